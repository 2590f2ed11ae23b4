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


def exact_front_probabilities(front_F2: Array, mean_N2: Array, sd_N2: Array) -> Array:
    """Return P(Pareto) of each candidate beside a front without errors, shape ``(N,)``.

    All are two losses; ``front`` may contain dominated rows. The losses of a candidate are
    independent and normal. In closed form: between the second losses of two neighbours on the
    front, a candidate must have a smaller first loss than the cheaper neighbour.
    """
    ordered = front_F2[non_dominated_mask(front_F2, (False, False))]
    first, second = ordered[np.argsort(ordered[:, 1])].T
    sd = np.maximum(sd_N2, 1e-9)
    below = ndtr((second - mean_N2[:, 1:]) / sd[:, 1:])
    share = np.diff(np.column_stack([below, np.ones(len(below))]), axis=1)
    better = ndtr((first - mean_N2[:, :1]) / sd[:, :1])
    probabilities: Array = below[:, 0] + (share * better).sum(axis=1)
    return probabilities


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
