"""Statistics of repeats: a median with a distribution-free interval."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import median

from scipy.stats import binom

from nas.core.estimate import Estimate


def median_interval(values: Sequence[float]) -> Estimate:
    """The median with its 95% interval, whose ends are two order statistics of the values.

    Of ``n`` draws, the ``k``-th smallest and ``k``-th largest enclose the median of their
    distribution with probability ``1 - 2 P(Binomial(n, 1/2) < k)``, whatever that distribution
    is (David & Nagaraja 2003, section 7.1). ``k`` is the largest that keeps this at 95%.

    Raises:
        ValueError: fewer than six values, of which no pair reaches 95%.
    """
    rank = _rank(len(values))
    ordered = sorted(values)
    low, high = ordered[rank - 1], ordered[len(values) - rank]
    return Estimate(float(median(ordered)), low, high, "measured")


def half_width(values: Sequence[float]) -> float:
    """Half-width of ``median_interval`` relative to the median."""
    found = median_interval(values)
    return (found.high - found.low) / 2 / found.mean


@lru_cache
def _rank(n: int) -> int:
    rank = 0
    while 1 - 2 * float(binom.cdf(rank, n, 0.5)) >= 0.95:
        rank += 1
    if rank == 0:
        raise ValueError(f"a 95% interval of a median must have 6 or more values, got {n}")
    return rank
