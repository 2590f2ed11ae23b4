"""Object detection from pictures and boxes: the class, the place and the score of each object.

A source is ``{images: FOLDER, annotations: FILE}`` in COCO's format, or ``{images: FOLDER, labels:
FOLDER}`` in YOLO's, or a folder that has the latter two. See ``docs/detection.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from nas.core.files import Place
from nas.core.names import check_name
from nas.tasks.base import IGNORED, SPLITS
from nas.tasks.base.array_task import ArrayTask
from nas.tasks.base.artifact_files import LABELS
from nas.tasks.base.file_task import Rows
from nas.tasks.base.metric import get_metric
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sample, Sources
from nas.tasks.base.task_file import TaskFile, check_whole_numbers
from nas.tasks.vision.box_score import OVERLAPS, check_installed
from nas.tasks.vision.boxed import Boxed, BoxReading
from nas.tasks.vision.boxes import MOST_BOXES, UNITS, as_targets
from nas.tasks.vision.coco import read_coco
from nas.tasks.vision.example_boxes import save_examples
from nas.tasks.vision.examples import examples_of
from nas.tasks.vision.picture_reader import PictureOptions, PictureReader
from nas.tasks.vision.yolo import read_yolo
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor

    from nas.tasks.vision.detector import Detector

_COCO, _YOLO = ("images", "annotations"), ("images", "labels")
# Warn of a larger share of training boxes with a side of fewer pixels.
_MANY_SMALL, _SMALL_PIXELS = 0.1, 4
_RARE = 10


@dataclass(frozen=True, slots=True)
class BoxOptions(PictureOptions):
    """Options of pictures and boxes; class ``i`` of a YOLO file is ``classes[i]``.

    COCO files have their own classes, which ``classes`` may order. A network returns at most
    ``max_boxes`` boxes of a picture.

    Raises:
        ValueError: a field is not allowed.
    """

    classes: tuple[str, ...] | None = None
    max_boxes: int = 100
    metric: str = "map"

    def __post_init__(self) -> None:
        # Without arguments `super` names the class as it was before it had slots.
        super(BoxOptions, self).__post_init__()
        check_whole_numbers(self, {"max_boxes": 1})
        if self.max_boxes > MOST_BOXES:
            raise ValueError(f"max_boxes must be at most {MOST_BOXES}, got {self.max_boxes}")
        if self.metric not in OVERLAPS:
            raise ValueError(f"metric must be {' or '.join(OVERLAPS)}, got {self.metric!r}")
        if self.classes is None:
            return
        if not isinstance(self.classes, list | tuple) or not self.classes:
            raise ValueError(f"classes must be a list of names, got {self.classes!r}")
        names = tuple(check_name("a name in classes", name) for name in self.classes)
        if len(set(names)) < len(names):
            raise ValueError(f"classes must be distinct names, got {list(names)!r}")
        object.__setattr__(self, "classes", names)


class Detection(ArrayTask):
    """Pictures into boxes of objects; targets are ``(N, M, 5)``, as ``boxes`` describes them."""

    kind = "detection"
    noun = "pictures with boxes"
    options_type = BoxOptions
    not_cached = ("max_boxes", "metric")
    has_parts = True
    has_targets = True
    reader_type = PictureReader
    reader: PictureReader
    options: BoxOptions

    def __init__(self, name: str, sources: Sources, options: BoxOptions) -> None:
        """Read nothing yet."""
        super().__init__(name, sources, options)
        self.metric = get_metric(options.metric)
        self._boxes = BoxReading(options.classes or ())

    @classmethod
    def from_file(cls, file: TaskFile) -> Self:
        """See ``FileTask.from_file``; a folder of ``images`` and ``labels`` stands for these."""
        check_installed()
        options = {
            key: _parts(file.path.parent, value) if key in ("data", *SPLITS) else value
            for key, value in file.options.items()
        }
        return super().from_file(replace(file, options=options))

    def workload(self, batch_size: int) -> Workload:
        """Pictures into an object at each patch."""
        shape, n_classes = tuple(self.about()["shape"]), len(self.labels())
        return Workload(self.name, "object_detection", shape, n_classes, batch_size)

    @cached_property
    def objective(self) -> Detector:
        """The loss of a detector, and the mean average precision."""
        from nas.tasks.vision.detector import Detector

        options = self.options
        return Detector(len(self.labels()), options.max_boxes, options.metric)

    def labels(self) -> list[str]:
        """See ``ArrayTask.labels``."""
        return list(self.about()["classes_of_boxes"])

    def artifact_files(self) -> dict[str, str]:
        """Also the most boxes of a picture."""
        files = super().artifact_files()
        labels = {"labels": self.labels(), "max_boxes": self.options.max_boxes}
        return {**files, LABELS: json.dumps(labels)}

    def save_examples(self, call: Callable[[Tensor], Tensor], device: str, folder: Place) -> None:
        """See ``Task.save_examples``: pictures with found and true boxes."""
        examples = examples_of(
            self.split("validation"),
            call,
            device,
            labels=self.labels(),
            scale=(self.about()["mean"], self.about()["deviation"]),
            max_boxes=self.options.max_boxes,
        )
        save_examples(folder, examples)

    def notes(self) -> list[str]:
        """Also of boxes that were cut or not read."""
        return [*super().notes(), *self.about()["notes_on_boxes"]]

    def warnings(self) -> list[str]:
        """Warn of classes with few boxes, of small boxes, and of more boxes than are found."""
        about, lines = self.about(), []
        for split, counts in about["boxes"].items():
            least = _RARE if split == "train" else 1
            rare = [
                f"{n!r} ({k})" for n, k in zip(self.labels(), counts, strict=True) if k < least
            ]
            if rare:
                lines.append(f"rare: too few {split} boxes of {', '.join(rare)}")
        if about["share_small"] > _MANY_SMALL:
            lines.append(
                f"small: {about['share_small']:.0%} of the training boxes have a side below "
                f"{_SMALL_PIXELS} pixels in pictures of {about['shape'][1]} x {about['shape'][2]}"
            )
        if about["most_boxes"] > self.options.max_boxes:
            lines.append(
                f"cut: a picture has {about['most_boxes']} boxes, and max_boxes is "
                f"{self.options.max_boxes}"
            )
        return lines

    def rows(self, source: Any, problems: Problems) -> Iterator[Sample]:
        """See ``ArrayTask.rows``."""
        for boxed in self._boxed(source, problems):
            read = partial(self.reader.read_file, boxed.path)
            yield Sample(str(boxed.path), "", read, target=as_targets(boxed.boxes))

    def _boxed(self, source: Any, problems: Problems) -> Iterator[Boxed]:
        keys = set(source) if isinstance(source, Mapping) else None
        if keys == set(_COCO):
            yield from read_coco(source, self._boxes, problems)
        elif keys == set(_YOLO):
            if self.options.classes is None:
                problems.add("classes must be named in the task file with labels of YOLO's format")
                return
            yield from read_yolo(source, self._boxes, problems)
        else:
            problems.add(
                f"data must be given as {{images: FOLDER, annotations: FILE}} (COCO) or "
                f"{{images: FOLDER, labels: FOLDER}} (YOLO), got {source}"
            )

    def write(self, rows: Rows[Sample], folder: Path, problems: Problems) -> dict[str, Any]:
        """Also count the boxes of each class."""
        about = super().write(rows, folder, problems)
        classes = self._boxes.classes
        height, width = about["shape"][1:]
        boxes: dict[str, list[int]] = {}
        share_small = 0.0
        for split in SPLITS:
            targets = np.load(folder / f"{split}.targets.npy", mmap_mode="r", allow_pickle=False)
            listed = targets[targets[..., 0] != IGNORED]
            boxes[split] = np.bincount(listed[:, 0], minlength=len(classes)).tolist()
            if split == "train" and len(listed):
                sides = (listed[:, 3:] - listed[:, 1:3]) * np.array([width, height]) / UNITS
                share_small = float((sides < _SMALL_PIXELS).any(axis=1).mean())
            most_boxes = targets.shape[1]
        if not sum(boxes["train"]):
            problems.add(f"{self.sources.training} must hold a box, and holds none")
        problems.check()
        return {
            **about,
            "classes_of_boxes": list(classes),
            "boxes": boxes,
            "most_boxes": most_boxes,
            "share_small": share_small,
            "notes_on_boxes": self._boxes.notes(),
        }


def _parts(folder: Path, value: Any) -> Any:
    """Return the folders of YOLO's format in the folder ``value``, if it has them."""
    if not isinstance(value, str):
        return value
    paths = {part: str(Path(value) / part) for part in _YOLO}
    return paths if all((folder / path).is_dir() for path in paths.values()) else value
