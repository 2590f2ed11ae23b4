"""Semantic segmentation from pictures and masks: the class of each pixel.

A source is ``{images: FOLDER, masks: FOLDER}``, or a folder that has both. A mask has the name of
its picture but for the ending: grey values, or indices of a palette. See ``docs/images.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core.names import check_name
from nas.tasks.base import IGNORED, SPLITS
from nas.tasks.base.array_task import ArrayTask
from nas.tasks.base.file_task import Rows
from nas.tasks.base.metric import get_metric
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sample, files_by_stem
from nas.tasks.base.splits import majority
from nas.tasks.vision.picture_reader import PictureOptions, PictureReader
from nas.tasks.vision.pictures import SUFFIXES, decode_mask, read_bytes
from search_spaces.workload import Workload

_MOST_CLASSES = 255
_PARTS = ("images", "masks")
# Warn of a larger share of pixels of one class.
_UNEVEN = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOptions(PictureOptions):
    """Options of pictures and masks; value ``i`` of a mask means ``classes[i]``.

    Raises:
        ValueError: a field is not allowed.
    """

    classes: tuple[str, ...]
    ignored: int | None = None

    def __post_init__(self) -> None:
        # Without arguments `super` names the class as it was before it had slots.
        super(MaskOptions, self).__post_init__()
        if not isinstance(self.classes, list | tuple):
            raise ValueError(f"classes must be a list of names, got {self.classes!r}")
        names = tuple(
            check_name("a name in classes", name) if isinstance(name, str) else name
            for name in self.classes
        )
        distinct = len({name for name in names if isinstance(name, str)})
        if not 2 <= distinct == len(names) <= _MOST_CLASSES:
            raise ValueError(f"classes must be two distinct names or more, got {list(names)!r}")
        object.__setattr__(self, "classes", names)
        ignored = self.ignored
        if ignored is not None and not (type(ignored) is int and len(names) <= ignored <= 255):
            raise ValueError(f"ignored must be in {len(names)}..255, got {ignored!r}")


class Segmentation(ArrayTask):
    """Pictures into a class for each pixel; targets are ``(N, H, W)``, some ``IGNORED``."""

    kind = "segmentation"
    noun = "pictures with masks"
    metric = get_metric("miou")
    options_type = MaskOptions
    required = ("classes",)
    has_parts = True
    n_target_planes = 1
    reader_type = PictureReader
    reader: PictureReader

    def workload(self, batch_size: int) -> Workload:
        """Pictures into a class for each pixel."""
        shape, n_classes = tuple(self.about()["shape"]), len(self.options.classes)
        return Workload(self.name, "image_segmentation", shape, n_classes, batch_size)

    def labels(self) -> list[str]:
        """See ``ArrayTask.labels``."""
        return list(self.options.classes)

    def warnings(self) -> list[str]:
        """Warn of classes that have most pixels of a split, or none."""
        lines = []
        for split, pixels in self.about()["pixels_of_classes"].items():
            largest, share, _ = majority(pixels)
            if share > _UNEVEN:
                lines.append(
                    f"uneven: {share:.1%} of the {split} pixels are {self.labels()[largest]!r}"
                )
            absent = [name for name, n in zip(self.labels(), pixels, strict=True) if not n]
            if absent:
                lines.append(f"rare: no {split} pixel is {', '.join(map(repr, absent))}")
        return lines

    def rows(self, source: Any, problems: Problems) -> list[Sample]:
        """See ``ArrayTask.rows``."""
        if isinstance(source, Path) and all((source / part).is_dir() for part in _PARTS):
            source = {part: source / part for part in _PARTS}
        if not isinstance(source, Mapping) or source.keys() != set(_PARTS):
            problems.add(f"data must be given as {{images: FOLDER, masks: FOLDER}}, got {source}")
            return []
        pictures, masks = (
            files_by_stem(source[part], SUFFIXES, problems, "pictures") for part in _PARTS
        )
        for stem in sorted(pictures.keys() - masks.keys()):
            problems.add(f"{pictures[stem]} must have a mask of that name in {source['masks']}")
        for stem in sorted(masks.keys() - pictures.keys()):
            problems.add(f"{masks[stem]} must have a picture of that name in {source['images']}")
        return [
            Sample(str(pictures[stem]), "", partial(self._read, pictures[stem], masks[stem]))
            for stem in sorted(pictures.keys() & masks.keys())
        ]

    def _read(self, picture: Path, mask: Path) -> NDArray[Any]:
        """Read the planes of a picture and, as the last one, its mask."""
        image_CHW = self.reader.read_file(picture)
        try:
            classes_HW = self._mask(mask, image_CHW.shape[1:])
        except ValueError as error:
            raise ValueError(f"has the mask {mask}, which {error}") from None
        # Both types hold the class numbers exactly.
        dtype = np.float32 if image_CHW.dtype.kind == "f" else np.int16
        return np.concatenate([image_CHW.astype(dtype), classes_HW[None].astype(dtype)])

    def _mask(self, path: Path, shape: tuple[int, ...]) -> NDArray[np.int64]:
        options: MaskOptions = self.options
        classes_HW = decode_mask(read_bytes(path), options.size)
        if classes_HW.shape != shape:
            raise ValueError(f"must be of the picture's {shape} pixels, got {classes_HW.shape}")
        least = int(classes_HW.min())
        if least < 0:
            raise ValueError(f"must hold no value below 0, got {least}")
        if options.ignored is not None:
            classes_HW[classes_HW == options.ignored] = IGNORED
        most = int(classes_HW.max())
        if most >= len(options.classes):
            more = "" if options.ignored is None else f" or {options.ignored}, which is ignored"
            raise ValueError(f"must hold 0..{len(options.classes) - 1}{more}, got {most}")
        return classes_HW

    def write(self, rows: Rows[Sample], folder: Path, problems: Problems) -> dict[str, Any]:
        """Also count the pixels of each class."""
        about = super().write(rows, folder, problems)
        pixels = {}
        for split in SPLITS:
            targets = np.load(folder / f"{split}.targets.npy", mmap_mode="r", allow_pickle=False)
            counts = np.bincount(targets[targets != IGNORED], minlength=len(self.labels()))
            pixels[split] = counts.tolist()
        seen = [name for name, n in zip(self.labels(), pixels["train"], strict=True) if n]
        if len(seen) < 2:
            problems.add(
                f"masks of {self.sources.training} must hold two classes or more, got "
                f"{', '.join(seen) or 'none'}"
            )
        problems.check()
        return {**about, "pixels_of_classes": pixels}
