"""Boxes in the format of COCO: a JSON file with ``images``, ``annotations`` and ``categories``.

An annotation has ``image_id``, ``category_id`` and ``bbox``: left, top, width, height in pixels.
A picture without annotations has no box. Annotations with ``iscrowd`` are not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.core.names import check_name
from nas.tasks.base.problems import Problems, shown
from nas.tasks.base.sources import files_below
from nas.tasks.base.tables import read_text
from nas.tasks.vision.boxed import Boxed, BoxReading, Ends, size_of
from nas.tasks.vision.pictures import SUFFIXES, Size

_MOST_PIXELS = 2**31
_LISTS = ("images", "annotations", "categories")


def read_coco(
    source: Mapping[str, Path], reading: BoxReading, problems: Problems
) -> Iterator[Boxed]:
    """Read ``source``, the folder ``images`` and the file ``annotations``.

    Errors are added to ``problems``. ``reading`` takes the classes of the file if it has none.
    """
    folder, path = source["images"], source["annotations"]
    data = _contents(path, problems)
    if not folder.is_dir():
        problems.add(f"{folder} must be a folder of pictures")
        return
    files = set(files_below(folder, SUFFIXES, problems))
    if data is None:
        return
    names = _names(path, data["categories"], problems)
    if not reading.classes:
        reading.classes = tuple(names[number] for number in sorted(names))
    pictures = _pictures(path, data["images"], folder, problems)
    boxes: dict[Any, list[tuple[int, Ends]]] = {number: [] for number in pictures}
    for index, entry in enumerate(data["annotations"]):
        try:
            _add_box(entry, boxes, pictures, names, reading)
        except ValueError as error:
            problems.add(f"{path}: annotations[{index}] {error}")
    reading.counts["unnamed"] += len(files - {p for p, _ in pictures.values()})
    for number, (picture, size) in pictures.items():
        if size is not None:
            yield Boxed(picture, tuple(boxes[number]))


def _contents(path: Path, problems: Problems) -> dict[str, list[Any]] | None:
    text = read_text(path, problems, may_be_empty=False)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.add(f"{path} must be JSON: {error}")
        return None
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in _LISTS):
        problems.add(f"{path} must be an object with the lists {', '.join(_LISTS)}, as COCO is")
        return None
    return data


def _names(path: Path, categories: list[Any], problems: Problems) -> dict[int, str]:
    """Return the names of categories by their number."""
    names: dict[int, str] = {}
    for index, entry in enumerate(categories):
        try:
            number = _number(entry, "id")
            name = check_name("name", entry.get("name"))
            if number in names or name in names.values():
                raise ValueError(f"must have an id and a name of its own, got {number} and {name}")
            names[number] = name
        except ValueError as error:
            problems.add(f"{path}: categories[{index}] {error}")
    if not categories:
        problems.add(f"{path} must have categories, and has none")
    return names


def _pictures(
    path: Path, images: list[Any], folder: Path, problems: Problems
) -> dict[int, tuple[Path, Size | None]]:
    """Return the paths and sizes of pictures by their number; no size if one cannot be read."""
    pictures: dict[int, tuple[Path, Size | None]] = {}
    seen: set[Path] = set()
    for index, entry in enumerate(images):
        try:
            number, picture = _number(entry, "id"), _inside(entry.get("file_name"), folder)
            if number in pictures or picture in seen:
                raise ValueError(
                    f"must have an id and a file_name of its own, got {number} and {picture.name}"
                )
            seen.add(picture)
            size = size_of(picture, problems)
            pictures[number] = picture, size
            if size is not None:
                _check_size(entry, size)
        except ValueError as error:
            problems.add(f"{path}: images[{index}] {error}")
    return pictures


def _check_size(entry: Mapping[str, Any], size: Size) -> None:
    """Check the size that an entry states: boxes of a turned or shrunk picture would be wrong."""
    stated = entry.get("height", size[0]), entry.get("width", size[1])
    if stated != size:
        raise ValueError(
            f"must have the height and width of its picture, {size[0]} and {size[1]} pixels when "
            f"it is upright, got {shown(stated[0])} and {shown(stated[1])}"
        )


def _add_box(
    entry: Any,
    boxes: Mapping[int, list[tuple[int, Ends]]],
    pictures: Mapping[int, tuple[Path, Size | None]],
    names: Mapping[int, str],
    reading: BoxReading,
) -> None:
    number, category = _number(entry, "image_id"), _number(entry, "category_id")
    if number not in pictures:
        raise ValueError(f"must have the image_id of an entry of images, got {number}")
    if category not in names:
        raise ValueError(f"must have the category_id of an entry of categories, got {category}")
    if entry.get("iscrowd"):
        reading.counts["crowd"] += 1
        return
    label, bbox = reading.label(names[category]), entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise ValueError(f"must have a bbox [left, top, width, height], got {shown(bbox)}")
    size = pictures[number][1]
    if size is not None:
        left, top, width, height = map(float, bbox)
        ends = reading.clipped(left, top, left + width, top + height, size)
        boxes[number].append((label, ends))


def _inside(name: object, folder: Path) -> Path:
    """Return the path of a file below ``folder``.

    Raises:
        ValueError: it is elsewhere or no file.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"must have a file_name, got {shown(name)}")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(f"must have the file_name of a picture below {folder}, got {shown(name)}")
    return path


def _number(entry: Any, key: str) -> int:
    number = entry.get(key) if isinstance(entry, Mapping) else None
    if type(number) is not int:
        raise ValueError(f"must have a whole number as {key}, got {shown(number)}")
    return number


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        # Larger ones may be no floats.
        return abs(value) < _MOST_PIXELS
    return isinstance(value, float)
