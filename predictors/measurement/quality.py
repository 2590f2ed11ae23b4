"""Statistics of repeats: a median with a distribution-free interval."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import median

from scipy.stats import binom

from nas.core.estimate import Estimate


def median_interval(values: Sequence[float]) -> Estimate:
    """Return the median with its 95% interval, whose ends are order statistics of the values.

    The ``k``-th smallest and ``k``-th largest of ``n`` draws from any distribution enclose its
    median with probability ``1 - 2 P(Binomial(n, 1/2) < k)`` (David & Nagaraja 2003, section
    7.1). ``k`` is the largest for which this is at least 95%.

    Raises:
        ValueError: there are fewer than six values, so that no pair reaches 95%.
    """
    rank = _rank(len(values))
    ordered = sorted(values)
    low, high = ordered[rank - 1], ordered[len(values) - rank]
    return Estimate(float(median(ordered)), low, high, "measured")


def half_width(values: Sequence[float]) -> float:
    """Return the half-width of ``median_interval`` relative to the median."""
    interval = median_interval(values)
    return (interval.high - interval.low) / 2 / interval.mean


@lru_cache
def _rank(n: int) -> int:
    rank = 0
    while 1 - 2 * float(binom.cdf(rank, n, 0.5)) >= 0.95:
        rank += 1
    if rank == 0:
        raise ValueError(f"a 95% interval of a median must have 6 or more values, got {n}")
    return rank
