"""Tasks whose inputs are read and standardised once, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from nas.core import names
from nas.tasks.base import Split, SplitName, check_split_name
from nas.tasks.base.carried import LABELS, PREPROCESSING
from nas.tasks.base.kept import Kept, keep, key_of
from nas.tasks.base.prepare import prepare
from nas.tasks.base.problems import DataError, Problems
from nas.tasks.base.samples import Sample, Sources
from nas.tasks.base.skipped import lines_of as skipped_lines
from nas.tasks.base.split_names import OF_CLASSES
from search_spaces.workload import Workload

# Of what is kept: another number where the same files would give other arrays.
_FORM = 5
# Options that say how files become values, whoever has other files.
_MAKING = ("size", "channels", "levels", "front_end")
# And what a reader chose.
_CHOSEN = ("ground",)
# Lists the samples of one source, adding what is wrong with it.
Lister = Callable[[Any, Problems], Sequence[Sample]]


class Reader(Protocol):
    """Reads the samples, and may look at some of the training data before."""

    def settle(self, reads: Iterable[Callable[[], Any]]) -> None:
        """Choose what the options leave open by what some ``reads`` return."""
        ...

    def about(self) -> dict[str, Any]:
        """What was chosen and, as ``seen``, what was seen, as plain data, when all is read."""
        ...

    def notes(self, about: Mapping[str, Any]) -> list[str]:
        """Lines for people on what is read otherwise than one may think, from ``about``."""
        ...

    def warnings(self, about: Mapping[str, Any]) -> list[str]:
        """Lines for people on what does not fit the options, from ``about``."""
        ...

    def causes(self, about: Mapping[str, Any]) -> list[str]:
        """Lines that may explain why the data are refused, from ``about``."""
        ...


@dataclass(frozen=True)
class Prepared:
    """Arrays that ``prepare`` makes out of files, once.

    ``options`` are all that the values depend on beside the files; ``samples`` lists the samples
    of a source; the rest is as in ``prepare``. ``files`` lists what the values come from, where
    sources are not paths. ``finish`` may look at what was made, in its
    folder, and add to what is said of it. ``reader`` reads the samples, where something of how is
    chosen by the data.
    """

    sources: Sources
    options: Mapping[str, Any]
    samples: Lister
    axis: int
    what: str
    n_target_planes: int = 0
    files: Callable[[], Sequence[Path]] | None = None
    finish: Callable[[Path, dict[str, Any]], dict[str, Any]] = field(default=lambda _, x: x)
    reader: Reader | None = None

    def split(self, name: SplitName) -> Split:
        """One split, mapped from disk; see ``Task.split``."""
        check_split_name(name)
        return Split(self._kept.array(f"{name}.inputs"), self._kept.array(f"{name}.targets"))

    @property
    def about(self) -> Mapping[str, Any]:
        """What ``prepare`` says of the data.

        Raises:
            DataError: the data are not what they must be; all that is wrong is in it.
        """
        return self._kept.about

    def carried(self) -> dict[str, str]:
        """How files become inputs; see ``nas.tasks.base.carried``."""
        made = {
            "mean": self.about["mean"],
            "deviation": self.about["deviation"],
            "axis": self.axis,
            "of": {"what": self.what}
            | {name: self.options[name] for name in _MAKING if name in self.options}
            | {name: self._reading[name] for name in _CHOSEN if name in self._reading},
        }
        return {PREPROCESSING: json.dumps(made, indent=2)}

    def notes(self) -> list[str]:
        """What of the data is not read, or otherwise than one may think."""
        lines = [*self.sources.notes, *skipped_lines(self.about)]
        return lines + ([] if self.reader is None else self.reader.notes(self._reading))

    def warnings(self) -> list[str]:
        """Lengths that do not fit, of samples that have any."""
        return [] if self.reader is None else self.reader.warnings(self._reading)

    @property
    def _reading(self) -> Mapping[str, Any]:
        reading: Mapping[str, Any] = self.about.get("reading", {})
        return reading

    @cached_property
    def _kept(self) -> Kept:
        if self.files is None:
            files = [path for source in self.sources.given.values() for path in _files_of(source)]
        else:
            files = list(self.files())
        what = {
            "form": _FORM,
            "what": self.what,
            "given": self.sources.given,
            "shares": [self.sources.validation_share, self.sources.test_share],
            "n_target_planes": self.n_target_planes,
            **self.options,
        }
        return keep(key_of(what, files), self._make)

    def _make(self, folder: Path) -> Mapping[str, Any]:
        problems = Problems()
        found = {
            split: self.samples(source, problems) for split, source in self.sources.given.items()
        }
        if self.reader is not None:
            self.reader.settle(sample.read for sample in found["train"])
        try:
            about = prepare(
                found,
                self.sources,
                folder,
                problems,
                axis=self.axis,
                what=self.what,
                n_target_planes=self.n_target_planes,
            )
        except DataError as error:
            raise self._explained(error) from None
        about["skipped"] = problems.skipped.lines()
        if self.reader is not None:
            about["reading"] = self.reader.about()
        return self.finish(folder, about)

    def _explained(self, error: DataError) -> DataError:
        """``error`` after what was seen of the samples that explains it."""
        # A folder of splits that is read as one class is the likeliest cause of all.
        causes = [line for line in self.sources.notes if line.startswith(OF_CLASSES)]
        if self.reader is not None:
            causes += self.reader.causes(self.reader.about())
        return DataError((*causes, *error.lines), len(causes) + error.n)


@dataclass(frozen=True)
class PreparedClassification:
    """A ``Task``: inputs, which are read as images, into classes; ``kind`` is its file's."""

    name: str
    prepared: Prepared
    kind: str = "images"

    def __post_init__(self) -> None:
        """Validate the name, which is the user's."""
        check_name(self.name)

    def workload(self, batch_size: int) -> Workload:
        """Inputs into the classes of the training split."""
        about = self.about()
        shape, n_classes = tuple(about["shape"]), len(about["classes"])
        return Workload(self.name, "image_classification", shape, n_classes, batch_size)

    def split(self, name: SplitName) -> Split:
        """One split; see ``Task.split``."""
        return self.prepared.split(name)

    def about(self) -> Mapping[str, Any]:
        """See ``Prepared.about``."""
        return self.prepared.about

    def notes(self) -> list[str]:
        """See ``nas.tasks.base.checks``."""
        return self.prepared.notes()

    def warnings(self) -> list[str]:
        """See ``nas.tasks.base.checks``."""
        return self.prepared.warnings()

    def carried(self) -> dict[str, str]:
        """The labels, and how inputs are made; see ``nas.tasks.base.carried``."""
        labels = {"labels": [str(label) for label in self.about()["classes"]]}
        return {LABELS: json.dumps(labels), **self.prepared.carried()}


def check_name(name: object) -> None:
    """Raise ``ValueError`` unless ``name`` may be a task's."""
    names.check_name("name", name)


def _files_of(source: Any) -> list[Path]:
    """Every file that a source consists of."""
    if isinstance(source, Mapping):
        return [path for part in source.values() for path in _files_of(part)]
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.is_file())
    return [source]
