"""Conformal prediction: calibrated widths of prediction intervals.

Cross-conformal prediction (Vovk et al. 2005; Vovk 2015) from out-of-fold errors, with whole groups
held out. Errors within one measuring job are correlated, so the finite-sample correction uses
effective rows: the number of rows over Kish's (1965) design effect.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]

# Factor on the largest error if the sample is too small for the quantile.
_BEYOND = 1.25


class Conformal:
    """Conformal calibration from absolute standardised errors and their effective number."""

    def __init__(self, scores: Array, n_effective: float) -> None:
        """Store the non-negative ``scores``; ``calibrate`` makes instances."""
        self.scores, self.n_effective = np.sort(scores), n_effective

    def half_width(self, confidence: float) -> float:
        """Return the standardised half-width of the two-sided interval at ``confidence``."""
        level = confidence * (1 + 1 / self.n_effective)
        if level > 1:
            normal = float(norm.ppf(0.5 + confidence / 2)) * float(np.median(self.scores)) / 0.6745
            return max(normal, _BEYOND * float(self.scores[-1]))
        rank = max(1, math.ceil(level * len(self.scores) - 1e-9))
        return float(self.scores[rank - 1])


def calibrate(scores: Array, groups: NDArray[np.int64]) -> Conformal:
    """Calibrate by out-of-fold errors, standardised by their predicted deviations."""
    return Conformal(scores, effective_rows(scores, groups))


def effective_rows(scores: Array, groups: NDArray[np.int64]) -> float:
    """Return the rows over the design effect ``1 + (m - 1) ICC``, at least the number of groups.

    ``ICC`` is the intraclass correlation of the logarithms of the errors, by one-way analysis of
    variance; ``m`` is the mean size of a row's group.
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
    mean_size = float((sizes**2).sum()) / n
    effect = 1 + (mean_size - 1) * min(max(correlation, 0.0), 1.0)
    return max(n / effect, min(float(n_groups), float(n)))
