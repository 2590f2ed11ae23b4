"""Pictures of drawn shapes with their boxes, for detection: the right answer is known.

Circles, squares and triangles lie on a grey ground with noise and may cover each other in part.
Their colours say nothing of their class, unless classes have ``own_colours``. Thin lines of the
same colours cross the picture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CLASSES = ("circle", "square", "triangle")
_COLOURS = ((220, 60, 60), (60, 200, 80), (70, 90, 230))
# Most overlap of two shapes.
_OVERLAP = 0.2
# Sides are drawn at this multiple and averaged, so that edges are smooth.
_FINE = 4

Box = tuple[float, float, float, float]


def write_shapes(
    folder: Path,
    n: int,
    *,
    seed: int = 0,
    side: int = 64,
    most: int = 4,
    sizes: tuple[int, int] = (12, 28),
    lines: int = 3,
    own_colours: bool = False,
) -> list[list[tuple[str, Box]]]:
    """Write ``n`` pictures of up to ``most`` shapes and some ``lines`` below ``folder``.

    ``pictures`` has the pictures, ``boxes.json`` the boxes as COCO has them, ``labels`` those of
    YOLO. Every eighth picture is empty. Returns the boxes, (left, top, right, bottom) in pixels.
    """
    rng = np.random.default_rng(seed)
    for name in ("pictures", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    every: list[list[tuple[str, Box]]] = []
    for index in range(n):
        shapes = [] if index % 8 == 7 else _placed(rng, side, most, sizes)
        pixels = _drawn(rng, side, shapes, lines, own_colours)
        Image.fromarray(pixels).save(folder / "pictures" / f"{index:04}.png")
        every.append(shapes)
    _write_coco(folder / "boxes.json", every, side)
    _write_yolo(folder / "labels", every, side)
    return every


def _placed(
    rng: np.random.Generator, side: int, most: int, sizes: tuple[int, int]
) -> list[tuple[str, Box]]:
    shapes: list[tuple[str, Box]] = []
    for _ in range(int(rng.integers(1, most + 1))):
        size = float(rng.integers(sizes[0], sizes[1] + 1))
        left, top = (float(rng.integers(0, side - int(size) + 1)) for _ in range(2))
        box = left, top, left + size, top + size
        if all(_shared(box, other) <= _OVERLAP for _, other in shapes):
            shapes.append((CLASSES[int(rng.integers(len(CLASSES)))], box))
    return shapes


def _shared(one: Box, two: Box) -> float:
    width = max(0.0, min(one[2], two[2]) - max(one[0], two[0]))
    height = max(0.0, min(one[3], two[3]) - max(one[1], two[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, two)]
    return width * height / (sum(areas) - width * height)


def _drawn(
    rng: np.random.Generator,
    side: int,
    shapes: Sequence[tuple[str, Box]],
    lines: int,
    own_colours: bool,
) -> NDArray[np.uint8]:
    canvas = Image.new("RGB", (side * _FINE, side * _FINE), (int(rng.integers(90, 160)),) * 3)
    draw = ImageDraw.Draw(canvas)
    for _ in range(lines):
        ends = [tuple(end) for end in (rng.random((2, 2)) * side * _FINE).tolist()]
        draw.line(ends, fill=_COLOURS[int(rng.integers(3))], width=_FINE)
    for name, box in shapes:
        own = CLASSES.index(name)
        colour = _COLOURS[own if own_colours else int(rng.integers(3))]
        left, top, right, bottom = (round(_FINE * end) for end in box)
        right, bottom = right - 1, bottom - 1
        if name == "circle":
            draw.ellipse((left, top, right, bottom), fill=colour)
        elif name == "square":
            draw.rectangle((left, top, right, bottom), fill=colour)
        else:
            corners = [(left, bottom), (right, bottom), ((left + right) / 2, top)]
            draw.polygon(corners, fill=colour)
    small = np.asarray(canvas.resize((side, side), Image.Resampling.BOX), dtype=np.float64)
    return np.clip(small + rng.normal(0, 12, small.shape), 0, 255).astype(np.uint8)


def _write_coco(path: Path, every: Sequence[Sequence[tuple[str, Box]]], side: int) -> None:
    annotations = [
        {
            "id": index * 100 + place,
            "image_id": index,
            "category_id": 1 + CLASSES.index(name),
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": (box[2] - box[0]) * (box[3] - box[1]),
            "iscrowd": 0,
        }
        for index, shapes in enumerate(every)
        for place, (name, box) in enumerate(shapes)
    ]
    images = [
        {"id": index, "file_name": f"{index:04}.png", "height": side, "width": side}
        for index in range(len(every))
    ]
    categories = [{"id": 1 + i, "name": name} for i, name in enumerate(CLASSES)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data), encoding="utf-8")


def _write_yolo(folder: Path, every: Sequence[Sequence[tuple[str, Box]]], side: int) -> None:
    for index, shapes in enumerate(every):
        lines = [
            f"{CLASSES.index(name)} {(box[0] + box[2]) / 2 / side:.6f} "
            f"{(box[1] + box[3]) / 2 / side:.6f} {(box[2] - box[0]) / side:.6f} "
            f"{(box[3] - box[1]) / side:.6f}\n"
            for name, box in shapes
        ]
        (folder / f"{index:04}.txt").write_text("".join(lines), encoding="utf-8")
