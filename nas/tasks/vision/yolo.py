"""Boxes in the format of YOLO: a text file for each picture, with a line for each box.

A line is ``CLASS X Y WIDTH HEIGHT``: the number of a class, and the centre and the size of a box
in shares of the picture's width and height. A picture without a file, or with an empty one, has no
box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from nas.tasks.base.problems import Problems, shown
from nas.tasks.base.sources import files_by_stem
from nas.tasks.base.tables import read_text
from nas.tasks.vision.boxed import Boxed, BoxReading, Ends, size_of
from nas.tasks.vision.pictures import SUFFIXES, Size

# Programs write the names of classes beside the labels.
_NAMES = ("classes", "labels")


def read_yolo(
    source: Mapping[str, Path], reading: BoxReading, problems: Problems
) -> Iterator[Boxed]:
    """Read ``source``, the folders ``images`` and ``labels``; errors are added to ``problems``."""
    pictures = files_by_stem(source["images"], SUFFIXES, problems, "pictures")
    labels = files_by_stem(source["labels"], (".txt",), problems, "text files of boxes")
    for stem in sorted(labels.keys() - pictures.keys()):
        if labels[stem].stem not in _NAMES:
            problems.add(f"{labels[stem]} must have a picture of that name in {source['images']}")
    for stem, path in sorted(pictures.items()):
        size = size_of(path, problems)
        if size is None:
            continue
        boxes = [] if stem not in labels else _boxes(labels[stem], size, reading, problems)
        yield Boxed(path, tuple(boxes))


def _boxes(
    path: Path, size: Size, reading: BoxReading, problems: Problems
) -> list[tuple[int, Ends]]:
    boxes = []
    text = read_text(path, problems, may_be_empty=True)
    for number, line in enumerate([] if text is None else text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            boxes.append(_box(line, size, reading))
        except ValueError as error:
            problems.add(f"{path}:{number} {error}")
    return boxes


def _box(line: str, size: Size, reading: BoxReading) -> tuple[int, Ends]:
    cells, n_classes = line.split(), len(reading.classes)
    if len(cells) != 5:
        raise ValueError(
            f"must be a class and four numbers (x, y, width, height), got {len(cells)} values"
        )
    if not cells[0].isdecimal() or int(cells[0]) >= n_classes:
        raise ValueError(
            f"must have a class in 0..{n_classes - 1}, of the {n_classes} in classes, got "
            f"{shown(cells[0])}"
        )
    try:
        x, y, width, height = (float(cell) for cell in cells[1:])
    except ValueError:
        raise ValueError(f"must have four numbers behind its class, got {shown(line)}") from None
    rows, columns = size
    ends = (x - width / 2) * columns, (y - height / 2) * rows
    far = (x + width / 2) * columns, (y + height / 2) * rows
    return int(cells[0]), reading.clipped(*ends, *far, size)
