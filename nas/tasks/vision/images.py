"""Image classification from a user's pictures: folders, arrays or Parquet.

A task is a YAML file::

    name: flowers
    kind: images
    data: flowers          # a folder of folders named after classes; or train, validation, test
    size: 32               # pixels, or [height, width]; may be left out if all are of one size
    channels: 3            # or 1: grey
    ground: white          # what is behind transparent pixels (default: what shows most)
    levels: full           # or percentile: each picture stretched between its percentiles 1 and 99

``data`` is divided into training, validation and test images by their content (``samples``),
unless what is in it is named after splits (``nas.tasks.base.split_names``). Instead of ``data``
each split may be named; a split that is not is held out of ``train``. Each is a folder, or

* ``images.npz`` with arrays ``images`` and ``labels`` (``image_key``, ``label_key``),
* ``{images: FILE, labels: FILE}``, of ``.npy`` or IDX (MNIST's format, ``.gz`` or not),
* ``images.parquet`` with columns ``image`` (bytes, or a struct with ``bytes``) and ``label``
  (``image_key``, ``label_key``).

Arrays are ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``. Pictures are read once,
standardised for each channel by the training split, and kept (``nas.tasks.base.kept``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base.arrays import read_array, read_named_arrays
from nas.tasks.base.labels import BadLabel, array_labels, check_label
from nas.tasks.base.limits import check_rows
from nas.tasks.base.parquet import ParquetTable
from nas.tasks.base.prepared import Prepared, PreparedClassification
from nas.tasks.base.problems import Problems, named
from nas.tasks.base.samples import SOURCE_KEYS, Sample, Sources, class_files
from nas.tasks.base.task_file import TaskFile
from nas.tasks.vision.picture_reader import PICTURE_KEYS, PictureOptions, PictureReader
from nas.tasks.vision.pictures import SUFFIXES, Size, read_bytes, resized

# Files that hold many pictures; any other path is a folder.
_FILES = (".npz", ".parquet")
_MAX_SIDE = 4096
_MOST_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class ImageOptions(PictureOptions):
    """What is made of the pictures of a task; see the module's description.

    Raises:
        ValueError: a field is not what it must be.
    """

    image_key: str | None = None
    label_key: str | None = None

    def __post_init__(self) -> None:
        """Validate every field."""
        # Without arguments `super` names the class as it was before it had slots.
        super(ImageOptions, self).__post_init__()
        for key in ("image_key", "label_key"):
            value = getattr(self, key)
            if value is not None and not (isinstance(value, str) and value):
                raise ValueError(f"{key} must be a name, got {value!r}")


def image_task(file: TaskFile) -> PreparedClassification:
    """The task that a user's file of kind ``images`` describes.

    Raises:
        ValueError: a key is missing, unknown, or its value not allowed.
    """
    own = (*PICTURE_KEYS, "image_key", "label_key")
    file.check_keys(allowed=("name", *SOURCE_KEYS, *own), required=("name",))
    options = ImageOptions(**picture_options(file, own))
    reader = PictureReader(options)
    prepared = Prepared(
        Sources.from_file(file, "classes", _FILES),
        asdict(options),
        partial(image_samples, options=options, reader=reader),
        axis=0,
        what="images",
        reader=reader,
    )
    return PreparedClassification(file.options["name"], prepared, kind=file.kind)


def picture_options(file: TaskFile, keys: Iterable[str]) -> dict[str, Any]:
    """Those of ``keys`` that ``file`` has, ``size`` as height and width; ``ValueError`` if not."""
    given = file.given(keys)
    if "size" in given:
        given["size"] = parse_size(given["size"])
    return given


def parse_size(value: object) -> Size:
    """``(height, width)`` from a number of pixels or a pair of them; ``ValueError`` if not."""
    pair: Any = value if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2 or not all(type(side) is int and 1 <= side <= _MAX_SIDE for side in pair):
        raise ValueError(
            f"size must be pixels in 1..{_MAX_SIDE} or [height, width] of them, got {value!r}"
        )
    return int(pair[0]), int(pair[1])


def image_samples(
    source: Any, problems: Problems, *, options: ImageOptions, reader: PictureReader
) -> list[Sample]:
    """The samples of one source; what is wrong with it as a whole is added to ``problems``."""
    if isinstance(source, Path) and source.suffix.lower() not in _FILES:
        return [
            Sample(str(path), label, partial(_read_picture, path, reader))
            for path, label in class_files(source, SUFFIXES, problems)
        ]
    image_key, label_key = options.image_key, options.label_key
    try:
        if isinstance(source, Path) and source.suffix.lower() == ".parquet":
            columns = image_key or "image", label_key or "label"
            return _parquet_samples(source, columns, reader)
        if isinstance(source, Path):
            names = image_key or "images", label_key or "labels"
            found = read_named_arrays(source, names)
            images, labels, where = found[names[0]], found[names[1]], source
        else:
            if source.keys() != {"images", "labels"}:
                raise ValueError(
                    f"arrays must be given as {{images: FILE, labels: FILE}}, got {list(source)}"
                )
            where = source["images"]
            images, labels = read_array(where), read_array(source["labels"])
        labelled = source if isinstance(source, Path) else source["labels"]
        _check_number(images, where)
        return _array_samples(
            images, array_labels(labels, len(images), labelled, problems), where, options
        )
    except ValueError as error:
        problems.add(str(error))
        return []


def _read_picture(path: Path, reader: PictureReader) -> NDArray[Any]:
    return reader.read(read_bytes(path))


def _check_number(images: NDArray[Any], where: Path) -> None:
    """Refuse an array of more pictures than its file has bytes: each is a sample in memory."""
    try:
        check_rows(len(images) if images.ndim else 0, where.stat().st_size)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from None


def _array_samples(
    images: NDArray[Any], labels: Sequence[str | int], where: Path, options: ImageOptions
) -> list[Sample]:
    if images.ndim not in (3, 4) or images.dtype.kind not in "buif" or 0 in images.shape:
        raise ValueError(
            f"{where} must hold images as numbers (N, H, W), (N, H, W, C) or (N, C, H, W), got "
            f"{images.dtype} {images.shape}"
        )
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[3] <= _MOST_CHANNELS:
        images = np.moveaxis(images, 3, 1)
    elif images.shape[1] > _MOST_CHANNELS:
        raise ValueError(
            f"{where} must have at most {_MOST_CHANNELS} channels, got images of {images.shape}"
        )
    return [
        Sample(f"{where}, image {row},", label, partial(_row, images, row, options.size))
        for row, label in enumerate(labels)
    ]


def _row(images_NCHW: NDArray[Any], row: int, size: Size | None) -> NDArray[Any]:
    values = np.asarray(images_NCHW[row])
    if values.dtype.kind in "fb":
        values = values.astype(np.float32)
    return values if size is None else resized(values, size)


def _parquet_samples(path: Path, columns: tuple[str, str], reader: PictureReader) -> list[Sample]:
    table = ParquetTable(path)
    missing = [name for name in columns if name not in table.names]
    if missing:
        raise ValueError(f"{path} must have a column {missing[0]!r}, got {named(table.names)}")
    images: list[Any] = []
    kept: list[str | int] = []
    for row, (image, label) in enumerate(table.lists(columns)):
        checked = check_label(label)
        if isinstance(checked, BadLabel):
            raise ValueError(f"{path}, row {row}, {checked.why}")
        images.append(image)
        kept.append(checked)
    return [
        Sample(f"{path}, row {row},", label, partial(_cell, images[row], reader))
        for row, label in enumerate(kept)
    ]


def _cell(value: Any, reader: PictureReader) -> NDArray[Any]:
    # A struct of bytes and a path is how Hugging Face's datasets keep pictures.
    raw = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(raw, bytes) or not raw:
        raise ValueError(f"must hold the bytes of a picture, got {type(raw).__name__}")
    return reader.read(raw)
