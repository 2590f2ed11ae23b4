"""Pictures with boxes, as files list them, and the checks of a box."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.tasks.base.problems import Problems, named
from nas.tasks.vision.pictures import Size, read_bytes, upright_size

Ends = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Boxed:
    """A picture and its boxes: indices of classes, and ends in shares of the picture's sides."""

    path: Path
    boxes: tuple[tuple[int, Ends], ...]


@dataclass(slots=True)
class BoxReading:
    """Classes of boxes, and counts of what a note names.

    ``classes`` are those of the task file, or of the training data's own list.
    """

    classes: tuple[str, ...]
    counts: Counter[str] = field(default_factory=Counter)
    most_beyond: float = 0.0

    def label(self, name: object) -> int:
        """Return the index of a class.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.classes:
            raise ValueError(
                f"must be of a class in classes ({named(self.classes)}), got {name!r}"
            )
        return self.classes.index(str(name))

    def clipped(self, left: float, top: float, right: float, bottom: float, size: Size) -> Ends:
        """Return a box, its ends in pixels of a picture of ``size``, cut at the picture's edges.

        The result is in shares of the picture's sides.

        Raises:
            ValueError: it has no area, or none of it is in the picture.
        """
        height, width = size
        ends = left, top, right, bottom
        if not all(map(math.isfinite, ends)):
            raise ValueError(f"must have finite numbers, got {_shown(ends)}")
        if right <= left or bottom <= top:
            raise ValueError(
                f"must have a width and a height > 0, got {right - left:g} x "
                f"{bottom - top:g} pixels"
            )
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            raise ValueError(
                f"must be in its picture of {width} x {height} pixels, got the box from "
                f"({left:g}, {top:g}) to ({right:g}, {bottom:g})"
            )
        beyond = max(-left, -top, right - width, bottom - height)
        # Programs round ends to whole pixels.
        if beyond > 1:
            self.counts["clipped"] += 1
            self.most_beyond = max(self.most_beyond, beyond)
        return (
            max(0.0, left) / width,
            max(0.0, top) / height,
            min(float(width), right) / width,
            min(float(height), bottom) / height,
        )

    def notes(self) -> list[str]:
        """Lines about boxes that were cut or not read."""
        lines = []
        if n := self.counts["clipped"]:
            lines.append(
                f"clipped: {n:,} boxes reach beyond their pictures, by up to "
                f"{self.most_beyond:.0f} pixels, and are cut there"
            )
        if n := self.counts["crowd"]:
            lines.append(f"not read: {n:,} annotations with iscrowd, of several objects each")
        if n := self.counts["unnamed"]:
            lines.append(f"not read: {n:,} pictures that no annotation file names")
        return lines


def size_of(path: Path, problems: Problems) -> Size | None:
    """Return the size of the upright picture at ``path``; ``None`` and a problem if it is none."""
    try:
        return upright_size(read_bytes(path))
    except ValueError as error:
        problems.add(f"{path} {error}")
        return None


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
