"""Classification of inputs that are read and standardised once, whatever they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nas.tasks.base import Split, SplitName, check_split_name
from nas.tasks.kept import Kept, keep, key_of
from nas.tasks.prepare import prepare
from nas.tasks.problems import Problems
from nas.tasks.samples import Sample, Sources
from search_spaces.workload import Workload

# Of what is kept: another number where the same files would give other arrays.
_FORM = 1
# Lists the samples of one source, adding what is wrong with it.
Lister = Callable[[Any, Problems], Sequence[Sample]]


@dataclass(frozen=True)
class PreparedClassification:
    """A ``Task`` whose arrays ``prepare`` makes out of files.

    ``options`` are all that the values depend on beside the files; ``samples`` lists the samples
    of a source. ``axis`` is that of a sample along which it is standardised, and ``what`` names
    samples in messages, in the plural.
    """

    name: str
    sources: Sources
    options: Mapping[str, Any]
    samples: Lister
    axis: int
    what: str

    def __post_init__(self) -> None:
        """Validate the name, which is the user's."""
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a non-empty string, got {self.name!r}")

    def workload(self, batch_size: int) -> Workload:
        """Inputs, read as images, into the classes of the training split."""
        about = self.about()
        shape, n_classes = tuple(about["shape"]), len(about["classes"])
        return Workload(self.name, "image_classification", shape, n_classes, batch_size)

    def split(self, name: SplitName) -> Split:
        """One split, mapped from disk; see ``Task.split``."""
        check_split_name(name)
        return Split(self._kept.array(f"{name}.inputs"), self._kept.array(f"{name}.targets"))

    def about(self) -> Mapping[str, Any]:
        """What ``prepare`` says of the data: classes, and numbers of samples.

        Raises:
            DataError: the data are not what they must be; all that is wrong is in it.
        """
        return self._kept.about

    @cached_property
    def _kept(self) -> Kept:
        files = [path for source in self.sources.given.values() for path in _files_of(source)]
        what = {
            "form": _FORM,
            "what": self.what,
            "given": self.sources.given,
            "shares": [self.sources.validation_share, self.sources.test_share],
            **self.options,
        }
        return keep(key_of(what, files), self._make)

    def _make(self, folder: Path) -> Mapping[str, Any]:
        problems = Problems()
        found = {
            split: self.samples(source, problems) for split, source in self.sources.given.items()
        }
        return prepare(found, self.sources, folder, problems, axis=self.axis, what=self.what)


def _files_of(source: Any) -> list[Path]:
    """Every file that a source consists of."""
    if isinstance(source, Mapping):
        return list(source.values())
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.is_file())
    return [source]
