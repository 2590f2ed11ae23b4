"""Image classification from a user's pictures: folders, arrays or Parquet.

A source (``data``, or ``train``, ``validation``, ``test``) is a folder of folders named after
classes, or

* ``images.npz`` with arrays ``images`` and ``labels`` (``image_key``, ``label_key``),
* ``{images: FILE, labels: FILE}``, of ``.npy`` or IDX (MNIST's format, ``.gz`` or not),
* ``images.parquet`` with columns ``image`` (bytes, or a struct with ``bytes``) and ``label``
  (``image_key``, ``label_key``).

Arrays are ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``. See ``docs/images.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base.array_task import ArrayClassification
from nas.tasks.base.arrays import read_array, read_named_arrays
from nas.tasks.base.labels import BadLabel, array_labels, check_label
from nas.tasks.base.limits import check_rows
from nas.tasks.base.parquet import ParquetTable
from nas.tasks.base.prepare import Scale
from nas.tasks.base.problems import Problems, named
from nas.tasks.base.sources import Sample, class_files
from nas.tasks.vision.picture_reader import PictureOptions, PictureReader
from nas.tasks.vision.pictures import SUFFIXES, Size, resized

# Files of many pictures; any other path is a folder.
_FILES = (".npz", ".parquet")
_MOST_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class ImageOptions(PictureOptions):
    """Options of a task file of kind ``images``.

    ``mean`` and ``deviation``, one number a channel on the scale of 0 to 255, standardise pixels
    in place of those of the training split: a pretrained network has its own.

    Raises:
        ValueError: a field is not allowed.
    """

    image_key: str | None = None
    label_key: str | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        # Without arguments `super` names the class as it was before it had slots.
        super(ImageOptions, self).__post_init__()
        for key, value in (("image_key", self.image_key), ("label_key", self.label_key)):
            if value is not None and not (isinstance(value, str) and value):
                raise ValueError(f"{key} must be a name, got {value!r}")
        if (self.mean is None) != (self.deviation is None):
            raise ValueError("mean and deviation must be given together, got one")
        for key in ("mean", "deviation"):
            numbers = getattr(self, key)
            if numbers is not None:
                object.__setattr__(self, key, self._numbers(key, numbers))

    def _numbers(self, key: str, values: Any) -> tuple[float, ...]:
        least = 0.0 if key == "deviation" else -math.inf
        is_list = isinstance(values, list | tuple) and len(values) == self.channels
        if not is_list or not all(
            type(value) in (int, float) and math.isfinite(value) and value > least
            for value in values
        ):
            needed = "finite numbers" if key == "mean" else "finite numbers > 0"
            raise ValueError(f"{key} must be {self.channels} {needed}, got {values!r}")
        return tuple(map(float, values))


class PictureTask(ArrayClassification):
    """Pictures into classes; subclasses list the samples of a source."""

    kind = "images"
    noun = "images"
    reader_type = PictureReader
    reader: PictureReader


class ImageClassification(PictureTask):
    """Pictures of a user's files into classes."""

    options_type = ImageOptions
    endings = _FILES
    has_parts = True
    options: ImageOptions

    @property
    def scale(self) -> Scale | None:
        """See ``ArrayTask.scale``."""
        mean, deviation = self.options.mean, self.options.deviation
        return None if mean is None or deviation is None else (mean, deviation)

    def rows(self, source: Any, problems: Problems) -> list[Sample]:
        """See ``ArrayTask.rows``."""
        is_path = isinstance(source, Path)
        if is_path and source.suffix.lower() not in _FILES:
            return [
                Sample(str(path), label, partial(self.reader.read_file, path))
                for path, label in class_files(source, SUFFIXES, problems)
            ]
        try:
            if is_path and source.suffix.lower() == ".parquet":
                return self._parquet(source)
            return self._arrays(source, problems)
        except ValueError as error:
            problems.add(str(error))
            return []

    def _arrays(self, source: Any, problems: Problems) -> list[Sample]:
        options: ImageOptions = self.options
        if isinstance(source, Path):
            names = options.image_key or "images", options.label_key or "labels"
            arrays = read_named_arrays(source, names)
            images, labels, path, labelled = arrays[names[0]], arrays[names[1]], source, source
        else:
            if source.keys() != {"images", "labels"}:
                raise ValueError(
                    f"arrays must be given as {{images: FILE, labels: FILE}}, got {list(source)}"
                )
            path, labelled = source["images"], source["labels"]
            images, labels = read_array(path), read_array(labelled)
        try:
            # An array of values without a width may claim any number of samples.
            check_rows(len(images) if images.ndim else 0, path.stat().st_size)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None
        parsed = array_labels(labels, len(images), labelled, problems)
        images_NCHW = _channels_first(images, path)
        return [
            Sample(f"{path}, image {row},", label, partial(_row, images_NCHW, row, options.size))
            for row, label in enumerate(parsed)
        ]

    def _parquet(self, path: Path) -> list[Sample]:
        columns = self.options.image_key or "image", self.options.label_key or "label"
        table = ParquetTable(path)
        missing = [name for name in columns if name not in table.names]
        if missing:
            raise ValueError(f"{path} must have a column {missing[0]!r}, got {named(table.names)}")
        samples = []
        for row, (image, label) in enumerate(table.lists(columns)):
            place, parsed = f"{path}, row {row},", check_label(label)
            if isinstance(parsed, BadLabel):
                raise ValueError(f"{place} {parsed.why}")
            samples.append(Sample(place, parsed, partial(self.reader.read_cell, image)))
        return samples


def _channels_first(images: NDArray[Any], path: Path) -> NDArray[Any]:
    if images.ndim not in (3, 4) or images.dtype.kind not in "buif" or 0 in images.shape:
        raise ValueError(
            f"{path} must hold images as numbers (N, H, W), (N, H, W, C) or (N, C, H, W), got "
            f"{images.dtype} {images.shape}"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.shape[3] <= _MOST_CHANNELS:
        return np.moveaxis(images, 3, 1)
    if images.shape[1] > _MOST_CHANNELS:
        raise ValueError(
            f"{path} must have at most {_MOST_CHANNELS} channels, got images of {images.shape}"
        )
    return images


def _row(images_NCHW: NDArray[Any], row: int, size: Size | None) -> NDArray[Any]:
    values = np.asarray(images_NCHW[row])
    if values.dtype.kind in "fb":
        values = values.astype(np.float32)
    return values if size is None else resized(values, size)
