"""Conformal widths: how many standardised errors an interval must span to hold a label.

Split-free conformal prediction from out-of-fold errors (Vovk et al. 2005; cross-conformal, Vovk
2015), with whole groups held out. Rows of one measuring job err together, so that the correction
for finite samples counts effective rows: the number of rows over Kish's (1965) design effect.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]

# Where the sample is too small to know a quantile: beyond the largest error that was seen.
_BEYOND = 1.25


class Conformal:
    """Sorted absolute standardised errors with the number of rows that they are worth."""

    def __init__(self, scores: Array, n_effective: float) -> None:
        """``scores`` are non-negative; made by ``calibrate``."""
        self.scores, self.n_effective = np.sort(scores), n_effective

    def half_width(self, confidence: float) -> float:
        """Standardised half-width of the two-sided interval at ``confidence``."""
        level = confidence * (1 + 1 / self.n_effective)
        if level > 1:
            normal = float(norm.ppf(0.5 + confidence / 2)) * float(np.median(self.scores)) / 0.6745
            return max(normal, _BEYOND * float(self.scores[-1]))
        rank = max(1, math.ceil(level * len(self.scores) - 1e-9))
        return float(self.scores[rank - 1])


def calibrate(scores: Array, groups: NDArray[np.int64]) -> Conformal:
    """From errors of rows whose group was held out, standardised by their deviations."""
    return Conformal(scores, effective_rows(scores, groups))


def effective_rows(scores: Array, groups: NDArray[np.int64]) -> float:
    """Rows over the design effect ``1 + (m - 1) ICC``; between the groups and the rows.

    ``ICC`` is the intraclass correlation of the logarithms of the errors, by one-way analysis of
    variance; ``m`` the mean size of a group as another row of its group meets it.
    """
    n, (_, index, sizes) = len(scores), np.unique(groups, return_inverse=True, return_counts=True)
    n_groups = len(sizes)
    if n_groups == n or n_groups < 2:
        return float(n_groups if n_groups < 2 else n)
    values = np.log(scores + 1e-3 * (np.median(scores) + 1e-12))
    means = np.bincount(index, values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (n_groups - 1)
    within = float(((values - means[index]) ** 2).sum()) / (n - n_groups)
    typical = (n - float((sizes**2).sum()) / n) / (n_groups - 1)
    correlation = (between - within) / max(between + (typical - 1) * within, 1e-12)
    met = float((sizes**2).sum()) / n
    effect = 1 + (met - 1) * min(max(correlation, 0.0), 1.0)
    return max(n / effect, min(float(n_groups), float(n)))
