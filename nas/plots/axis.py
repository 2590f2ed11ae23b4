"""The axes of a front, for pictures and pages: frames, and ticks of quality in the metric's unit.

Positions of quality rise with it and are linear in what tables print: percent, hundredths, or
minus the bits. A tick so stands where its label says, and equal steps are equal lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nas.tasks.base.metric import Metric, Scale

_MOST_TICKS = 9
# Error bars may widen the frame by this share of the values' span on either side.
_ROOM_FOR_BARS = 0.5
_MARGIN = 0.06
_LEAST_DECADES = 0.04
# The least margin, in the unit of each scale.
_LEAST_MARGIN: dict[Scale, float] = {"percent": 0.5, "hundred": 0.5, "bits": 0.02}


@dataclass(frozen=True, slots=True)
class QualityAxis:
    """A frame from ``low`` to ``high`` and its ``ticks``, each a position with its label."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def position(metric: Metric, share: float) -> float:
    """Where a share in [0, 1] stands; infinitely low where it has no finite score."""
    if metric.scale == "percent":
        return 100 * share
    return -metric.score(share) if metric.falls else metric.score(share)


def position_error(metric: Metric, share: float, share_error: float) -> float:
    """A standard error of ``share`` as a length on the axis, as tables print it."""
    error = metric.score_error(share, share_error)
    return 100 * error if metric.scale == "percent" else error


def quality_axis(
    metric: Metric, shares: Sequence[float], errors: Sequence[float] | None = None
) -> QualityAxis:
    """The axis that shows ``shares`` with their standard errors.

    A bar that is long beside the span of all shares does not widen the frame any further: it is
    cut there, and who draws it marks the cut.
    """
    points = [
        (at, position_error(metric, share, error))
        for share, error in zip(shares, errors or [0.0] * len(shares), strict=True)
        if math.isfinite(at := position(metric, share))
    ]
    least = _LEAST_MARGIN[metric.scale]
    low, high = frame(
        [at for at, _ in points] or [0.0],
        [at - error for at, error in points],
        [at + error for at, error in points],
        least=least,
    )
    margin = max(_MARGIN * (high - low), least)
    low, high = low - 2 * margin, high + margin
    bottom, top = (-math.inf, 0.0) if metric.falls else (0.0, 100.0)
    ticks = tuple(
        (at, _label(metric, at, digits)) for at, digits in even_ticks(low, high, bottom, top)
    )
    return QualityAxis(low, high, ticks)


def joule_frame(
    energies_j: Sequence[float], lows_j: Sequence[float], highs_j: Sequence[float]
) -> tuple[float, float]:
    """The ends of a logarithmic axis that shows ``energies_j``; for intervals see ``frame``."""
    low, high = frame(
        [math.log10(x) for x in energies_j],
        [math.log10(x) for x in lows_j],
        [math.log10(x) for x in highs_j],
        least=_LEAST_DECADES,
    )
    margin = max(_MARGIN * (high - low), _LEAST_DECADES)
    return float(10 ** (low - margin)), float(10 ** (high + margin))


def frame(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float], *, least: float
) -> tuple[float, float]:
    """The ends of a frame that shows all ``values`` and all but the longest error bars.

    Bars may widen it by half of the values' span, or by ``least`` where that is more.
    """
    low, high = min(values), max(values)
    room = max(_ROOM_FOR_BARS * (high - low), least)
    return max(min(lows, default=low), low - room), min(max(highs, default=high), high + room)


def even_ticks(low: float, high: float, bottom: float, top: float) -> list[tuple[float, int]]:
    """Multiples of 1, 2 or 5 in some decade that lie in both ranges, with the digits they need."""
    raw = (high - low) / _MOST_TICKS
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


def _label(metric: Metric, at: float, digits: int) -> str:
    # Of 0 bits, no minus sign.
    number = f"{abs(at) if metric.falls else at:.{digits}f}"
    return f"{number}%" if metric.scale == "percent" else number
