"""Uncertain values: ``Estimate`` has an interval, ``Score`` a standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median


@dataclass(frozen=True, slots=True)
class Score:
    """A mean and its standard error, in the same unit.

    Raises:
        ValueError: the standard error is negative.
    """

    value: float
    standard_error: float

    def __post_init__(self) -> None:
        """Check the standard error, which may be NaN or infinite if it is unknown."""
        if self.standard_error < 0:
            raise ValueError(f"standard_error must be >= 0, got {self.standard_error!r}")


@dataclass(frozen=True, slots=True)
class Estimate:
    """An uncertain value: its mean (or median), its interval and its source.

    ``source`` is such as ``measured``, ``predicted`` or ``binomial``. The creator of the estimate
    chooses the confidence level.

    Raises:
        ValueError: the mean is outside the interval, or a bound is NaN.
    """

    mean: float
    low: float
    high: float
    source: str

    def __post_init__(self) -> None:
        """Check that the interval contains the mean."""
        if not self.low <= self.mean <= self.high:
            raise ValueError(
                f"low <= mean <= high must hold, got {self.low!r}, {self.mean!r}, {self.high!r}"
            )

    @property
    def range(self) -> tuple[float, float, float]:
        """Lower bound, mean and upper bound."""
        return self.low, self.mean, self.high

    @property
    def half_width(self) -> float:
        """Half-width of the interval relative to the mean."""
        return (self.high - self.low) / 2 / self.mean

    def __contains__(self, value: float) -> bool:
        """Return whether ``value`` lies in the interval."""
        return self.low <= value <= self.high

    @classmethod
    def of_median(cls, values: Sequence[float]) -> Estimate:
        """Return the median with its 95% interval, whose ends are order statistics of the values.

        The ``k``-th smallest and ``k``-th largest of ``n`` draws from any distribution enclose
        its median with probability ``1 - 2 P(Binomial(n, 1/2) < k)`` (David & Nagaraja 2003,
        section 7.1). ``k`` is the largest for which this is at least 95%.

        Raises:
            ValueError: there are fewer than six values, so that no pair reaches 95%.
        """
        rank = _median_rank(len(values))
        ordered = sorted(values)
        low, high = ordered[rank - 1], ordered[len(values) - rank]
        return cls(float(median(ordered)), low, high, "measured")

    @classmethod
    def of_share(cls, n_successes: int, n: int) -> Estimate:
        """Return ``n_successes / n`` with its exact 95% interval (Clopper & Pearson 1934).

        Raises:
            ValueError: ``n`` is below 1 or below ``n_successes``.
        """
        from scipy.stats import binomtest

        interval = binomtest(n_successes, n).proportion_ci(0.95, method="exact")
        return cls(n_successes / n, float(interval.low), float(interval.high), "binomial")


@lru_cache
def _median_rank(n: int) -> int:
    rank, n_below = 0, 1
    # ``n_below / 2**n`` is the probability that at most ``rank`` values are below the median.
    while 1 - 2 * n_below / 2**n >= 0.95:
        rank += 1
        n_below += math.comb(n, rank)
    if rank == 0:
        raise ValueError(f"a 95% interval of a median must have 6 or more values, got {n}")
    return rank
