"""Differences between runs that share a seed: their mean with a 95% interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.stats import t


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of paired differences; ``half_width`` is that of Student's 95% interval."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Difference:
        """``ours - theirs``, pair by pair; two pairs at least."""
        apart = [a - b for a, b in zip(ours, theirs, strict=True)]
        n = len(apart)
        if n < 2:
            raise ValueError(f"pairs must be two or more, got {n}")
        half = float(t.ppf(0.975, n - 1)) * stdev(apart) / math.sqrt(n)
        return cls(mean(apart), half)

    def points(self) -> str:
        """In percentage points, marked where the interval leaves zero out."""
        mark = "*" if abs(self.mean) > self.half_width else ""
        return f"{100 * self.mean:+.2f} ± {100 * self.half_width:.2f}{mark}"
