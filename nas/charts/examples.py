"""Pictures of the validation split with the boxes that a trial's network found in them."""

from __future__ import annotations

from collections.abc import Sequence

from nas.charts.chart import Axis, Chart, Mark, Picture, Series, Text, box
from nas.tasks.base.metric import get_metric
from nas.tasks.vision.example_boxes import ExampleBox, ExamplePicture, Examples

_COLUMNS = 2
# Share of a cell's side that its picture takes, and the height of a line of its text.
_SIDE, _LINE = 0.94, 0.045


def examples_chart(examples: Examples, title: str) -> Chart:
    """Return the pictures in rows of two, true boxes and found ones with their scores."""
    scores = "\n".join(_score(s.metric, s.value, s.standard_error) for s in examples.scores)
    rows = -(-len(examples.pictures) // _COLUMNS)
    pictures: list[Picture] = []
    true: list[Mark] = []
    found: list[Mark] = []
    texts: list[Text] = []
    for index, example in enumerate(examples.pictures):
        picture = _placed(example, index % _COLUMNS, rows - 1 - index // _COLUMNS)
        pictures.append(picture)
        true += _boxes(picture, example.true)
        for each, mark in zip(example.found, _boxes(picture, example.found), strict=True):
            found.append(mark)
            text = f"{each.label} {each.score:.2f}"
            texts.append(Text(mark.x_low, mark.y_high + _LINE / 2, text, soft=True, tag=True))
    return Chart(
        f"{title}\n{scores}",
        Axis("", 0, _COLUMNS),
        Axis("", 0, rows),
        (
            Series("truth", "true box", "frame", tuple(true)),
            Series("dropped", "found box, with its class and score", "frame", tuple(found)),
        ),
        tuple(texts),
        height=rows / _COLUMNS,
        framed=False,
        pictures=tuple(pictures),
    )


def _score(metric: str, value: float, standard_error: float) -> str:
    known = get_metric(metric)
    return f"{known.name} {known.text(value, standard_error, digits=1)}"


def _placed(example: ExamplePicture, column: int, row: int) -> Picture:
    """Return the picture in the middle of its cell, in its own proportions."""
    unit = _SIDE / max(example.height, example.width)
    half_x, half_y = example.width * unit / 2, example.height * unit / 2
    x, y = column + 0.5, row + 0.5
    return Picture(
        x - half_x,
        x + half_x,
        y - half_y,
        y + half_y,
        example.width,
        example.height,
        example.pixels,
    )


def _boxes(picture: Picture, boxes: Sequence[ExampleBox]) -> list[Mark]:
    """Return boxes at their places on ``picture``, whose rows begin at its top."""
    width, height = picture.x_high - picture.x_low, picture.y_high - picture.y_low
    return [
        box(
            picture.x_low + each.left * width,
            picture.x_low + each.right * width,
            picture.y_high - each.bottom * height,
            picture.y_high - each.top * height,
        )
        for each in boxes
    ]
