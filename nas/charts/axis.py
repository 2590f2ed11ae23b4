"""Axes with their ranges and ticks: quality in the metric's unit, joules by decades, counts.

The text of a tick is exact, and neighbouring texts fit a paper's column and a phone's screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from nas.charts.chart import Axis, decades
from nas.core.units import format_joules
from nas.tasks.base.metric import Metric, Scale

_MOST_TICKS = 9
# Length of a horizontal axis in characters, and the gap between two texts.
_CHARACTERS, _GAP = 40, 1.5
# Error bars may widen the frame by this share of the values' span on either side.
_ROOM_FOR_BARS = 0.5
_MARGIN = 0.06
_LEAST_DECADES = 0.04
# The least margin, in the unit of each scale.
_LEAST_MARGIN: dict[Scale, float] = {"percent": 0.5, "hundred": 0.5, "bits": 0.02, "errors": 0.5}
# Mantissas of ticks, and the number of decades between them, from dense to sparse.
_MANTISSAS = (
    *(((1, 2, 3, 5, 7), 1), ((1, 2, 5), 1), ((1, 3), 1)),
    *(((1,), step) for step in (1, 2, 3, 6)),
)


def position(metric: Metric, share: float) -> float:
    """Return the position of a quality in [0, 1]; minus infinity without a finite score.

    Positions rise with quality and are linear in the printed score: percent, hundredths, or minus
    the bits.
    """
    if metric.scale == "percent":
        return 100 * share
    return -metric.score(share) if metric.falls else metric.score(share)


def quality_range(metric: Metric, share: float, error: float) -> tuple[float, float, float]:
    """Return the positions of a quality minus, without and plus its standard error."""
    middle = position(metric, share)
    if not math.isfinite(middle):
        return middle, middle, middle
    length = metric.score_error(share, error) * (100 if metric.scale == "percent" else 1)
    return middle - length, middle, middle + length


def quality_axis(
    label: str, metric: Metric, shares: Sequence[float], errors: Sequence[float]
) -> Axis:
    """Return the axis of qualities with their standard errors; long error bars are cut."""
    rows = [quality_range(metric, *row) for row in zip(shares, errors, strict=True)]
    rows = [row for row in rows if math.isfinite(row[1])] or [(0.0, 0.0, 0.0)]
    least = _LEAST_MARGIN[metric.scale]
    low, high = _frame(rows, least)
    margin = max(_MARGIN * (high - low), least)
    low, high = low - 2 * margin, high + margin
    bottom, top = (-math.inf, 0.0) if metric.falls else (0.0, 100.0)
    unit = "%" if metric.scale == "percent" else ""
    return Axis(
        label,
        low,
        high,
        tuple(
            # Zero bits have no minus sign.
            (at, f"{abs(at) if metric.falls else at:.{digits}f}{unit}")
            for at, digits in even_ticks(low, high, bottom, top)
        ),
    )


def joule_axis(
    label: str, ranges_j: Iterable[tuple[float, float, float]], *, vertical: bool = False
) -> Axis:
    """Return the axis of joules, each with its interval (low, value, high)."""
    low, high = _frame([decades(*row) for row in ranges_j], _LEAST_DECADES)
    margin = max(_MARGIN * (high - low), _LEAST_DECADES)
    low, high = low - margin, high + margin
    return Axis(label, low, high, joule_ticks(low, high, vertical=vertical))


def count_axis(label: str, high: float) -> Axis:
    """Return the axis of whole numbers from 0 to ``high``."""
    most = min(_MOST_TICKS, max(1, int(high)))
    ticks = [(at, f"{at:.0f}") for at, _ in even_ticks(0, max(1, high), 0, math.inf, most)]
    return Axis(label, 0, max(1, high) * 1.02, _thinned(ticks, high))


def number_axis(label: str, low: float, high: float, most: int = 5) -> Axis:
    """Return the axis of plain numbers from ``low`` to ``high`` with at most ``most`` ticks."""
    ticks = even_ticks(low, high, low, high, most)
    return Axis(label, low, high, tuple((at, f"{at:.{digits}f}") for at, digits in ticks))


def even_ticks(
    low: float, high: float, bottom: float, top: float, most: int = _MOST_TICKS
) -> list[tuple[float, int]]:
    """Return multiples of 1, 2 or 5 in some decade, in both ranges, with their decimals."""
    raw = (high - low) / most
    exponent = math.floor(math.log10(raw))
    factor = next((f for f in (1, 2, 5) if f * 10.0**exponent >= raw), 10)
    if factor == 10:
        factor, exponent = 1, exponent + 1
    digits = max(0, -exponent)

    def tick(n: int) -> float:
        # Parse the shortest decimal, so that a position equals its label to the bit.
        return round(n * factor * 10.0**exponent, digits)

    step = factor * 10.0**exponent
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [(tick(n), digits) for n in numbers if bottom <= tick(n) <= top]


def joule_ticks(low: float, high: float, *, vertical: bool) -> tuple[tuple[float, str], ...]:
    """Return ticks between two decades: as many as fit, at simple multiples or evenly spaced."""
    for mantissas, step in _MANTISSAS:
        values = [
            mantissa * 10.0**exponent
            for exponent in range(math.floor(low), math.floor(high) + 1)
            if exponent % step == 0
            for mantissa in mantissas
        ]
        ticks = [(at, format_joules(v)) for v in values if low <= (at := math.log10(v)) <= high]
        fits = len(ticks) <= _MOST_TICKS if vertical else _fit(ticks, high - low)
        if fits and len(ticks) > 1:
            return tuple(ticks)
    values = [at for at, _ in even_ticks(10**low, 10**high, 0, math.inf, most=5)]
    return _thinned([(math.log10(v), format_joules(v)) for v in values], high - low)


def _frame(ranges: Sequence[Sequence[float]], least: float) -> tuple[float, float]:
    """Return the range of all values and their error bars, each (low, value, high).

    Error bars widen it by at most half of the values' span, or by ``least`` if that is more.
    """
    lows, values, highs = zip(*ranges, strict=True)
    low, high = min(values), max(values)
    room = max(_ROOM_FOR_BARS * (high - low), least)
    return max(min(lows), low - room), min(max(highs), high + room)


def _fit(ticks: Sequence[tuple[float, str]], span: float) -> bool:
    """Return whether texts on a horizontal axis of length ``span`` leave a gap between them."""
    return all(
        (b - a) / span * _CHARACTERS >= (len(left) + len(right)) / 2 + _GAP
        for (a, left), (b, right) in pairwise(ticks)
    )


def _thinned(ticks: Sequence[tuple[float, str]], span: float) -> tuple[tuple[float, str], ...]:
    """Return every tick, or every second and so on, so that their texts fit."""
    step = next(n for n in range(1, len(ticks) + 2) if _fit(ticks[::n], span))
    return tuple(ticks[::step])
