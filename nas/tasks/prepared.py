"""Tasks whose inputs are read and standardised once, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nas.tasks.base import Split, SplitName, check_split_name
from nas.tasks.carried import LABELS, PREPROCESSING
from nas.tasks.kept import Kept, keep, key_of
from nas.tasks.prepare import prepare
from nas.tasks.problems import Problems
from nas.tasks.samples import Sample, Sources
from search_spaces import names
from search_spaces.workload import Workload

# Of what is kept: another number where the same files would give other arrays.
_FORM = 4
# Options that say how files become values, whoever has other files.
_MAKING = ("size", "channels", "front_end")
# Lists the samples of one source, adding what is wrong with it.
Lister = Callable[[Any, Problems], Sequence[Sample]]


@dataclass(frozen=True)
class Prepared:
    """Arrays that ``prepare`` makes out of files, once.

    ``options`` are all that the values depend on beside the files; ``samples`` lists the samples
    of a source; the rest is as in ``prepare``. ``files`` lists what the values come from, where
    sources are not paths. ``finish`` may look at what was made, in its
    folder, and add to what is said of it.
    """

    sources: Sources
    options: Mapping[str, Any]
    samples: Lister
    axis: int
    what: str
    n_target_planes: int = 0
    files: Callable[[], Sequence[Path]] | None = None
    finish: Callable[[Path, dict[str, Any]], dict[str, Any]] = field(default=lambda _, x: x)

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
        """How files become inputs; see ``nas.tasks.carried``."""
        found = {
            "mean": self.about["mean"],
            "deviation": self.about["deviation"],
            "axis": self.axis,
            "of": {"what": self.what}
            | {name: self.options[name] for name in _MAKING if name in self.options},
        }
        return {PREPROCESSING: json.dumps(found, indent=2)}

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
        about = prepare(
            found,
            self.sources,
            folder,
            problems,
            axis=self.axis,
            what=self.what,
            n_target_planes=self.n_target_planes,
        )
        return self.finish(folder, about)


@dataclass(frozen=True)
class PreparedClassification:
    """A ``Task``: inputs, which are read as images, into classes."""

    name: str
    prepared: Prepared

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

    def carried(self) -> dict[str, str]:
        """The labels, and how inputs are made; see ``nas.tasks.carried``."""
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
