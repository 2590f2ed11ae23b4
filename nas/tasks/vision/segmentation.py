"""Semantic segmentation from pictures and masks: the class of each pixel.

A task is a YAML file::

    name: streets
    kind: segmentation
    data: {images: pictures, masks: masks}   # or train, validation, test, each like that
    classes: [background, road, car]         # what the values 0, 1, 2 of a mask mean
    ignored: 255                             # a value that is neither learnt nor judged
    size: 64                                 # pixels, or [height, width]
    channels: 3                              # or 1: grey
    ground: white                            # and levels: as of images

A mask has the name of its picture but for the ending: grey values, or places in a palette. Splits
are those of images (``nas.tasks.base.samples``); they may be folders in both of ``data``, or
``data`` a folder of splits that hold ``images`` and ``masks``. Pictures are brought to ``size``
smoothly, masks by the nearest pixel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core.names import check_name
from nas.tasks.base import SPLITS, Split, SplitName
from nas.tasks.base.carried import LABELS
from nas.tasks.base.metric import get_metric
from nas.tasks.base.prepared import Prepared
from nas.tasks.base.prepared import check_name as check_task_name
from nas.tasks.base.problems import Problems
from nas.tasks.base.samples import SOURCE_KEYS, Sample, Sources, files_below
from nas.tasks.base.splits import majority
from nas.tasks.base.task_file import TaskFile
from nas.tasks.vision.images import picture_options
from nas.tasks.vision.picture_reader import PICTURE_KEYS, PictureOptions, PictureReader
from nas.tasks.vision.pictures import SUFFIXES, decode_mask, read_bytes
from search_spaces.workload import Workload

# In targets: a pixel that is neither learnt nor judged.
IGNORED = -1
_MOST_CLASSES = 255
_SIDES = ("images", "masks")
# A share of pixels of one class that is worth a warning.
_UNEVEN = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOptions(PictureOptions):
    """What pictures and masks mean and are brought to; see the module's description.

    Raises:
        ValueError: a field is not what it must be.
    """

    classes: tuple[str, ...]
    ignored: int | None = None

    def __post_init__(self) -> None:
        """Validate every field."""
        # Without arguments `super` names the class as it was before it had slots.
        super(MaskOptions, self).__post_init__()
        names = self.classes
        distinct = len({name for name in names if isinstance(name, str)})
        if not 2 <= distinct == len(names) <= _MOST_CLASSES:
            raise ValueError(f"classes must be two distinct names or more, got {list(names)!r}")
        ignored = self.ignored
        if ignored is not None and not (type(ignored) is int and len(names) <= ignored <= 255):
            raise ValueError(f"ignored must be in {len(names)}..255, got {ignored!r}")


class Segmentation:
    """A ``Task`` over pictures and masks, judged by the mean intersection over union."""

    metric = get_metric("miou")

    def __init__(self, name: str, sources: Sources, options: MaskOptions) -> None:
        """Nothing is read yet."""
        check_task_name(name)
        self.name, self._options = name, options
        reader = PictureReader(options)
        self._prepared = Prepared(
            sources,
            asdict(options),
            partial(_samples, options=options, reader=reader),
            axis=0,
            what="pictures with masks",
            n_target_planes=1,
            finish=partial(_counted, sources=sources, options=options),
            reader=reader,
        )

    @classmethod
    def from_file(cls, file: TaskFile) -> Segmentation:
        """The task that a user's file of kind ``segmentation`` describes.

        Raises:
            ValueError: a key is missing, unknown, or its value not allowed.
        """
        own = (*PICTURE_KEYS, "classes", "ignored")
        file.check_keys(allowed=("name", *SOURCE_KEYS, *own), required=("name", "classes"))
        given = picture_options(file, own)
        if not isinstance(given["classes"], list):
            raise ValueError(f"classes must be a list of names, got {given['classes']!r}")
        given["classes"] = tuple(
            check_name("a name in classes", name) if isinstance(name, str) else name
            for name in given["classes"]
        )
        return cls(file.options["name"], Sources.from_file(file), MaskOptions(**given))

    def workload(self, batch_size: int) -> Workload:
        """Pictures into a class for each pixel."""
        shape, n_classes = tuple(self.about()["shape"]), len(self._options.classes)
        return Workload(self.name, "image_segmentation", shape, n_classes, batch_size)

    def split(self, name: SplitName) -> Split:
        """One split; targets are ``(N, H, W)`` classes, ``IGNORED`` where there is none."""
        return self._prepared.split(name)

    def about(self) -> Mapping[str, Any]:
        """See ``Prepared.about``; ``pixels_of_classes`` are those of each split."""
        return self._prepared.about

    def warnings(self) -> list[str]:
        """What is allowed but seldom meant; see ``nas.tasks.base.checks``."""
        found = []
        for split, pixels in self.about()["pixels_of_classes"].items():
            largest, share, _ = majority(pixels)
            if share > _UNEVEN:
                found.append(
                    f"uneven: {share:.1%} of the {split} pixels are "
                    f"{self._options.classes[largest]!r}"
                )
            absent = [name for name, n in zip(self._options.classes, pixels, strict=True) if not n]
            if absent:
                found.append(f"rare: no {split} pixel is {', '.join(map(repr, absent))}")
        return found

    def notes(self) -> list[str]:
        """See ``nas.tasks.base.checks``."""
        return self._prepared.notes()

    def carried(self) -> dict[str, str]:
        """The names of the classes, and how inputs are made; see ``nas.tasks.base.carried``."""
        labels = {"labels": list(self._options.classes)}
        return {LABELS: json.dumps(labels), **self._prepared.carried()}


def _samples(
    source: Any, problems: Problems, *, options: MaskOptions, reader: PictureReader
) -> Sequence[Sample]:
    if isinstance(source, Path) and all((source / side).is_dir() for side in _SIDES):
        source = {side: source / side for side in _SIDES}
    if not isinstance(source, Mapping) or source.keys() != set(_SIDES):
        problems.add(f"data must be given as {{images: FOLDER, masks: FOLDER}}, got {source}")
        return []
    folders = [source["images"], source["masks"]]
    pictures, masks = (_by_stem(folder, problems) for folder in folders)
    for stem in sorted(pictures.keys() - masks.keys()):
        problems.add(f"{pictures[stem]} must have a mask of that name in {source['masks']}")
    for stem in sorted(masks.keys() - pictures.keys()):
        problems.add(f"{masks[stem]} must have a picture of that name in {source['images']}")
    return [
        Sample(
            str(pictures[stem]), "", partial(_read, pictures[stem], masks[stem], options, reader)
        )
        for stem in sorted(pictures.keys() & masks.keys())
    ]


def _by_stem(folder: Path, problems: Problems) -> dict[str, Path]:
    """Pictures below ``folder`` by their path in it, without the ending."""
    found: dict[str, Path] = {}
    if not folder.is_dir():
        problems.add(f"{folder} must be a folder of pictures")
        return found
    for path in files_below(folder, SUFFIXES, problems):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            problems.add(f"{path} must have a name of its own, as {found[stem].name} has")
        found[stem] = path
    if not found:
        problems.add(f"{folder} must hold pictures, and holds none")
    return found


def _read(picture: Path, mask: Path, options: MaskOptions, reader: PictureReader) -> NDArray[Any]:
    """Planes of a picture and, as the last one, its mask."""
    image_CHW = reader.read(read_bytes(picture))
    try:
        classes_HW = decode_mask(read_bytes(mask), options.size)
        if classes_HW.shape != image_CHW.shape[1:]:
            raise ValueError(
                f"must be of the picture's {image_CHW.shape[1:]} pixels, got {classes_HW.shape}"
            )
        least = int(classes_HW.min())
        if least < 0:
            raise ValueError(f"must hold no value below 0, got {least}")
        if options.ignored is not None:
            classes_HW[classes_HW == options.ignored] = IGNORED
        most = int(classes_HW.max())
        if most >= len(options.classes):
            more = "" if options.ignored is None else f" or {options.ignored}, which is ignored"
            raise ValueError(f"must hold 0..{len(options.classes) - 1}{more}, got {most}")
    except ValueError as error:
        raise ValueError(f"has the mask {mask}, which {error}") from None
    # Both hold the classes, of which there are at most 255, to the number.
    dtype = np.float32 if image_CHW.dtype.kind == "f" else np.int16
    return np.concatenate([image_CHW.astype(dtype), classes_HW[None].astype(dtype)])


def _counted(
    folder: Path, about: dict[str, Any], *, sources: Sources, options: MaskOptions
) -> dict[str, Any]:
    pixels = {split: _pixels(folder / f"{split}.targets.npy", options) for split in SPLITS}
    seen = [name for name, n in zip(options.classes, pixels["train"], strict=True) if n]
    if len(seen) < 2:
        problems = Problems()
        problems.add(
            f"masks of {sources.training} must hold two classes or more, got "
            f"{', '.join(seen) or 'none'}"
        )
        problems.check()
    # Classes are those of pixels: samples have none.
    rest = {key: value for key, value in about.items() if key not in ("classes", "of_classes")}
    return rest | {"pixels_of_classes": pixels}


def _pixels(path: Path, options: MaskOptions) -> list[int]:
    """How many pixels are of each class."""
    targets = np.load(path, mmap_mode="r", allow_pickle=False)
    counts: list[int] = np.bincount(
        targets[targets != IGNORED], minlength=len(options.classes)
    ).tolist()
    return counts
