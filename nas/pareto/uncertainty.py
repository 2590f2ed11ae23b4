"""P(Pareto): the probability that no other point dominates one, given the errors of both.

A front is chosen from noisy measurements, so it contains lucky trials and lacks unlucky ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from nas.pareto.dominance import non_dominated_mask

Array = NDArray[np.float64]

_DRAWS = 2000
# P(Pareto) is 0 for a point that is dominated even if both are off by so many deviations.
_FAR = 5.0
_DRAWS_AT_ONCE = 200
_POINTS_AT_ONCE = 1024
# A candidate's deviation is at least this, so that its losses can be standardised.
_LEAST_SD = 1e-9
_CELLS_AT_ONCE = 2_000_000
# Least deviation of a true value from its prediction, as a share of a new label's: 0.5 to 0.7 were
# measured after 100 labels in sessions of 20, where noise is most of a label's deviation.
_LEAST_TRUE_SHARE = 0.5
# Least deviation of a measurement, as the same share: a process does not see the noise between
# processes. It costs little where labels are exact (experiments/LOG.md, 2026-11-30).
_LEAST_NOISE_SHARE = 0.5


def front_probabilities(
    values: ArrayLike, deviations: ArrayLike, maximize: tuple[bool, ...], *, seed: int = 0
) -> Array:
    """Return P(Pareto) of each row among all rows, shape ``(N,)``, by sampling.

    Values are taken as independent and normal around the measured ones. There is no correction
    for selection: trials chosen for good values were lucky more often than this assumes.

    Args:
        values: Measured values, ``(N, M)``.
        deviations: Their standard deviations, ``(N, M)``.
        maximize: For each of the M objectives whether more is better.
        seed: Seed of the draws; sampling error is one or two percent.
    """
    signs = np.where(maximize, -1.0, 1.0)
    losses = np.asarray(values, dtype=float).reshape(-1, len(signs)) * signs
    spread = np.asarray(deviations, dtype=float).reshape(losses.shape)
    probabilities = np.zeros(len(losses))
    at_best, at_worst = losses - _FAR * spread, losses + _FAR * spread
    minimize = (False,) * len(signs)
    if not len(losses):
        return probabilities
    rivals = at_worst[non_dominated_mask(at_worst, minimize)]
    # A point is never worse than its own pessimistic end, so it need not be excluded.
    rows = np.flatnonzero(~_dominated(at_best, rivals))
    rng = np.random.default_rng(seed)
    for _ in range(_DRAWS // _DRAWS_AT_ONCE):
        noise = rng.normal(size=(_DRAWS_AT_ONCE, len(rows), len(signs)))
        for draw in losses[rows] + noise * spread[rows]:
            probabilities[rows] += non_dominated_mask(draw, minimize)
    return probabilities / _DRAWS


class NoisyFront:
    """Members that candidates are judged against, with normal errors; two losses each.

    Errors of the two losses are independent, and a candidate's are independent of the members'.
    Members may depend on each other in any way: a session's labels share its error, and so do
    predictions of one model. P(Pareto) is at least the greatest that any such dependence gives,
    by the bound of Fréchet and Hoeffding for the differences to the candidate. It is exact for
    members without errors, and for members that share errors of one deviation.
    """

    def __init__(self, mean_F2: Array, sd_F2: Array) -> None:
        """Store the members, without those that others dominate even if both are off."""
        is_near = near_front(mean_F2, sd_F2)
        self._mean, self._variance = mean_F2[is_near], sd_F2[is_near] ** 2

    def probabilities(self, mean_N2: Array, sd_N2: Array) -> Array:
        """Return P(Pareto) of candidates with normal losses, shape ``(N,)``."""
        n = len(mean_N2)
        if not len(self._mean):
            return np.ones(n)
        sd = np.maximum(sd_N2, _LEAST_SD)
        size = max(1, _CELLS_AT_ONCE // len(self._mean))
        starts = range(0, max(1, n), size)
        return np.concatenate(
            [self._part(mean_N2[i : i + size], sd[i : i + size]) for i in starts]
        )

    def _part(self, mean_N2: Array, sd_N2: Array) -> Array:
        # A member dominates where the common standard error of each loss exceeds its threshold.
        # Between the second thresholds of two neighbours on the front of thresholds, the first
        # error must be below that of the lower neighbour.
        differences = self._mean - mean_N2[:, None]
        first, second = np.moveaxis(
            differences / np.sqrt(self._variance + sd_N2[:, None] ** 2), 2, 0
        )
        order = np.argsort(second, axis=1)
        second = np.take_along_axis(second, order, axis=1)
        first = np.minimum.accumulate(np.take_along_axis(first, order, axis=1), axis=1)
        below = ndtr(second)
        share = np.diff(below, axis=1, append=1.0)
        probabilities: Array = below[:, 0] + (share * ndtr(first)).sum(axis=1)
        return probabilities


def near_front(mean_N2: Array, sd_N2: Array) -> NDArray[np.bool_]:
    """Return which points, of two losses each, are on the front or would be by their errors.

    Others are dominated even where they are one deviation better and a rival one worse.
    """
    at_worst = mean_N2 + sd_N2
    rivals = at_worst[non_dominated_mask(at_worst, (False, False))]
    return ~_dominated(mean_N2 - sd_N2, rivals)


def true_deviations(label_sd: Array, noise: Array) -> Array:
    """Return deviations of true values from a surrogate's predictions.

    ``label_sd`` is that of new labels from the predictions, which contains the labels' own
    deviation ``noise``. As a difference of two uncertain variances it has a lower bound.
    """
    result: Array = np.sqrt(
        np.maximum(label_sd**2 - noise**2, (_LEAST_TRUE_SHARE * label_sd) ** 2)
    )
    return result


def smoothed(
    measured: Array, noise: Array, predicted: Array, label_sd: Array
) -> tuple[Array, Array]:
    """Return means and deviations of true values, given measurements and a surrogate.

    Both are weighted by their precision; ``noise`` is the stated deviation of the measurements,
    see ``true_deviations`` for ``label_sd``. A front is chosen for good labels, so without this
    its members would be lucky ones. Labels may repeat worse than they state, so a share of
    ``label_sd`` is taken as noise at least.
    """
    noise = np.maximum(noise, _LEAST_NOISE_SHARE * label_sd)
    true_variance = true_deviations(label_sd, noise) ** 2
    weight = true_variance / (true_variance + noise**2)
    return weight * measured + (1 - weight) * predicted, np.sqrt(weight) * noise


def _dominated(points: Array, rivals: Array) -> NDArray[np.bool_]:
    """Return for each point whether some rival is less in every objective, shape ``(N,)``."""
    is_dominated = np.zeros(len(points), dtype=bool)
    # In parts, so that the arrays of all pairs stay small.
    for start in range(0, len(points), _POINTS_AT_ONCE):
        part = points[start : start + _POINTS_AT_ONCE]
        less = np.ones((len(part), len(rivals)), dtype=bool)
        for objective in range(points.shape[1]):
            less &= rivals[:, objective] < part[:, objective, None]
        is_dominated[start : start + _POINTS_AT_ONCE] = less.any(axis=1)
    return is_dominated
