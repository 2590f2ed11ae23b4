"""The description of a chart, which matplotlib and the HTML page draw without own decisions.

Positions are linear: those of a logarithmic quantity are its decades. Error bars end at the
frame, and ``Mark.cut`` names the sides at which they are cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["left", "right", "bottom", "top"]
Shape = Literal["none", "circle", "square", "diamond", "ring", "tick", "box", "frame"]
Line = Literal["", "straight", "stairs"]

# Legend of an arrow head at the frame, in both renderers.
CUT = "bar goes on beyond the frame"


@dataclass(frozen=True, slots=True)
class Colour:
    """The colours of a role on light and dark paper, and how areas of it are filled.

    They are those of Okabe and Ito, which colour-blind readers can distinguish. A shape, a hatch
    or a word repeats the meaning of each colour.
    """

    light: str
    dark: str
    fill: Literal["solid", "hatched", "empty"] = "solid"


_BLUE, _ORANGE = Colour("#0072B2", "#56B4E9"), Colour("#D55E00", "#F08A4B")
_GREEN, _PINK = Colour("#009E73", "#2CC79E"), Colour("#CC79A7", "#DD9BC0")
_YELLOW, _GREY = Colour("#E69F00", "#F0C040"), Colour("#767676", "#9A9A9A")
_INK = Colour("#1C1C1C", "#ECECEC")

COLOURS = {
    "front": _BLUE,
    "trained": _GREY,
    "dropped": _ORANGE,
    "baseline": _INK,
    "guide": _GREY,
    "held": _BLUE,
    "missed": _ORANGE,
    "joules": _BLUE,
    "quality": Colour(_ORANGE.light, _ORANGE.dark, "hatched"),
    "stream": Colour("#D9D9D9", "#3A3A3A"),
    "end": Colour(_INK.light, _INK.dark, "empty"),
    "fp32": _GREY,
    "bf16": _BLUE,
    "int8": _ORANGE,
    "fp8": _GREEN,
    "int8wo": _YELLOW,
    "int4wo": _PINK,
    "other": Colour("#56B4E9", "#0072B2"),
    "truth": Colour("#56B4E9", "#56B4E9"),
    "training": _BLUE,
    "measuring": _YELLOW,
    "teacher": _GREEN,
    "supernet": _PINK,
    "idle": _GREY,
}


@dataclass(frozen=True, slots=True)
class Axis:
    """A range from ``low`` to ``high`` with ``ticks``, each a position and its text."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()
    grid: bool = True


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with error bars, or a box from its low to its high ends, of a trial or of none."""

    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    cut: tuple[Side, ...] = ()
    trial: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Marks of one role, shape and legend entry (none if ``label`` is empty).

    ``line`` joins them: ``stairs`` have a mark's height until the next one. A mark of the shape
    ``tick`` is drawn at the bottom of the frame. A ``frame`` is the outline of a box.
    """

    role: str
    label: str
    shape: Shape
    marks: tuple[Mark, ...]
    line: Line = ""


@dataclass(frozen=True, slots=True)
class Text:
    """Text at a position; a ``soft`` one is smaller and paler, a ``tag`` lies on a picture."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "start"
    soft: bool = False
    tag: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture between two positions; ``pixels`` are red, green and blue bytes in Base64."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: int
    height: int
    pixels: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Axes, pictures, series in the order of drawing, and texts.

    ``height`` is relative to the width of a paper's column. Without ``framed`` axes set positions
    only and are not drawn.
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    texts: tuple[Text, ...] = ()
    height: float = 0.88
    framed: bool = True
    pictures: tuple[Picture, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Whether an error bar ends at the frame."""
        return any(mark.cut for series in self.series for mark in series.marks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        # Ten times as fast as dataclasses.asdict, for pages of thousands of trials.
        return _plain(self) | {
            "x": _plain(self.x),
            "y": _plain(self.y),
            "series": [
                _plain(series)
                | {"marks": list(map(_plain, series.marks)), "fill": COLOURS[series.role].fill}
                for series in self.series
            ],
            "texts": list(map(_plain, self.texts)),
            "pictures": list(map(_plain, self.pictures)),
            "cut": CUT if self.is_cut else "",
        }


def _plain(value: Axis | Mark | Series | Text | Picture | Chart) -> dict[str, Any]:
    return {name: _rounded(getattr(value, name)) for name in value.__slots__}


def _rounded(value: Any) -> Any:
    """Return a float with the digits that a screen can show, so that pages are smaller."""
    return float(f"{value:.6g}") if type(value) is float else value


def mark(
    axes: tuple[Axis, Axis],
    x: Sequence[float],
    y: Sequence[float],
    trial: int | None = None,
) -> Mark:
    """Return the point ``x``, ``y``, each (low, value, high), with error bars inside ``axes``.

    A value of minus infinity is drawn at the bottom.
    """
    sides: tuple[tuple[Side, bool], ...] = (
        ("left", x[0] < axes[0].low),
        ("right", x[2] > axes[0].high),
        ("bottom", y[0] < axes[1].low),
        ("top", y[2] > axes[1].high),
    )
    cut = tuple(side for side, is_beyond in sides if is_beyond)
    (x_low, x_at, x_high), (y_low, y_at, y_high) = (
        [min(max(value, axis.low), axis.high) for value in values]
        for axis, values in zip(axes, (x, y), strict=True)
    )
    return Mark(x_at, y_at, x_low, x_high, y_low, y_high, cut, trial)


def box(x_low: float, x_high: float, y_low: float, y_high: float) -> Mark:
    """Return a rectangle."""
    return Mark((x_low + x_high) / 2, (y_low + y_high) / 2, x_low, x_high, y_low, y_high)


def line(*points: tuple[float, float]) -> tuple[Mark, ...]:
    """Return the corners of a line."""
    return tuple(Mark(x, y, x, x, y, y) for x, y in points)


def decades(*energies_j: float) -> tuple[float, ...]:
    """Return logarithms to base 10, the positions on an axis of joules."""
    return tuple(map(math.log10, energies_j))
