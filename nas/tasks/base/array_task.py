"""Base classes of tasks over images or recordings: values are read, standardised and cached."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nas.tasks.base import SplitName
from nas.tasks.base.artifact_files import LABELS, PREPROCESSING
from nas.tasks.base.file_task import FileTask, Rows
from nas.tasks.base.prepare import Plan, Scale, prepare
from nas.tasks.base.problems import DataError, Problems
from nas.tasks.base.sources import Sample, Sources
from nas.tasks.base.split_names import OF_CLASSES
from search_spaces.workload import Workload


class Reader(ABC):
    """Read samples and count those that a note names; by default there are none."""

    def settle(self, reads: Iterable[Callable[[], Any]]) -> None:
        """Choose what the options leave open; each of ``reads`` reads a training sample."""
        return

    def about(self) -> dict[str, Any]:
        """Return choices and counts as plain data, when all is read."""
        return {}

    @abstractmethod
    def preprocessing(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Describe how a file becomes values, for ``nas.tasks.raw_inputs``."""

    def notes(self, about: Mapping[str, Any]) -> list[str]:
        """Lines about what is not read as one may expect."""
        return []

    def warnings(self, about: Mapping[str, Any]) -> list[str]:
        """Lines about what does not fit the options."""
        return []

    def causes(self, about: Mapping[str, Any]) -> list[str]:
        """Lines that may explain why the data are refused."""
        return []


class ArrayTask(FileTask[Sample]):
    """A ``FileTask`` whose samples ``reader`` reads; inputs are read as images."""

    by_content = False
    #: See ``prepare.Plan``.
    axis: ClassVar[int] = 0
    n_target_planes: ClassVar[int] = 0
    has_targets: ClassVar[bool] = False
    reader_type: ClassVar[type[Any]]
    reader: Reader

    def __init__(self, name: str, sources: Sources, options: Any) -> None:
        """Read nothing yet."""
        super().__init__(name, sources, options)
        self.reader = self.reader_type(options)

    @property
    def scale(self) -> Scale | None:
        """Mean and deviation that standardise inputs; ``None`` for those of the training split."""
        return None

    @abstractmethod
    def rows(self, source: Any, problems: Problems) -> Iterable[Sample]:
        """List the samples of one source; errors are added to ``problems``."""

    def read(self, problems: Problems) -> Rows[Sample]:
        """List the samples of each source; ``prepare`` divides them by their values."""
        samples: dict[SplitName, Sequence[Sample]] = {
            split: list(self.rows(source, problems))
            for split, source in self.sources.by_split.items()
        }
        return samples

    def write(self, rows: Rows[Sample], folder: Path, problems: Problems) -> dict[str, Any]:
        """See ``FileTask.write``."""
        self.reader.settle(sample.read for sample in rows["train"])
        plan = Plan(self.axis, self.noun, self.n_target_planes, self.has_targets, self.scale)
        try:
            about = prepare(rows, self.sources, folder, problems, plan)
        except DataError as error:
            # A folder of splits that is read as one class is the likeliest cause of all.
            causes = [line for line in self.sources.notes if line.startswith(OF_CLASSES)]
            causes += self.reader.causes(self.reader.about())
            raise DataError((*causes, *error.lines), len(causes) + error.n) from None
        return {**about, "reading": self.reader.about()}

    def notes(self) -> list[str]:
        """See ``Task.notes``."""
        return [*super().notes(), *self.reader.notes(self.about()["reading"])]

    def warnings(self) -> list[str]:
        """See ``Task.warnings``."""
        return self.reader.warnings(self.about()["reading"])

    def labels(self) -> list[str]:
        """Return the names of the classes."""
        return [str(label) for label in self.about()["classes"]]

    def artifact_files(self) -> dict[str, str]:
        """The labels, and how files become inputs."""
        about = self.about()
        preprocessing = {
            "mean": about["mean"],
            "deviation": about["deviation"],
            "axis": self.axis,
            "of": {"what": self.noun} | self.reader.preprocessing(about["reading"]),
        }
        return {
            LABELS: json.dumps({"labels": self.labels()}),
            PREPROCESSING: json.dumps(preprocessing, indent=2),
        }


class ArrayClassification(ArrayTask):
    """An ``ArrayTask`` into the classes of the training split."""

    layout = "classes"

    def workload(self, batch_size: int) -> Workload:
        """Inputs into the classes of the training split."""
        shape, n_classes = tuple(self.about()["shape"]), len(self.about()["classes"])
        return Workload(self.name, "image_classification", shape, n_classes, batch_size)
