"""How sure it is that a trial is on the front, given the errors of what was measured.

A front is chosen from noisy measurements, so it holds lucky trials and leaves out unlucky ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.pareto.dominance import non_dominated_mask

Array = NDArray[np.float64]

_DRAWS = 2000
# Trials that are dominated even where both err by so many deviations are never on the front.
_FAR = 5.0
_DRAWS_AT_ONCE = 200
_POINTS_AT_ONCE = 1024


def front_probabilities(
    values: ArrayLike, deviations: ArrayLike, maximize: tuple[bool, ...], *, seed: int = 0
) -> Array:
    """The probability that each row is dominated by no other, shape ``(N,)``.

    Values are taken as independent and normal around what was measured. That looks at each trial
    alone: of trials picked for being good, more were lucky than this says.

    Args:
        values: What was measured, ``(N, M)``.
        deviations: Standard deviations of it, ``(N, M)``.
        maximize: For each of the M objectives whether more is better.
        seed: Of the draws, by which the probabilities are estimated to one or two percent.
    """
    signs = np.where(maximize, -1.0, 1.0)
    losses = np.asarray(values, dtype=float).reshape(-1, len(signs)) * signs
    spread = np.asarray(deviations, dtype=float).reshape(losses.shape)
    found = np.zeros(len(losses))
    at_best, at_worst = losses - _FAR * spread, losses + _FAR * spread
    minimize = (False,) * len(signs)
    if not len(losses):
        return found
    rivals = at_worst[non_dominated_mask(at_worst, minimize)]
    # A point is never beaten by its own worst.
    left = np.flatnonzero(~_beaten(at_best, rivals))
    rng = np.random.default_rng(seed)
    for _ in range(_DRAWS // _DRAWS_AT_ONCE):
        noise = rng.normal(size=(_DRAWS_AT_ONCE, len(left), len(signs)))
        for draw in losses[left] + noise * spread[left]:
            found[left] += non_dominated_mask(draw, minimize)
    return found / _DRAWS


def _beaten(points: Array, rivals: Array) -> NDArray[np.bool_]:
    """Which points some rival is less than in every objective, shape ``(N,)``."""
    found = np.zeros(len(points), dtype=bool)
    # In parts, so that tables of each with each stay small.
    for start in range(0, len(points), _POINTS_AT_ONCE):
        part = points[start : start + _POINTS_AT_ONCE]
        less = np.ones((len(part), len(rivals)), dtype=bool)
        for objective in range(points.shape[1]):
            less &= rivals[:, objective] < part[:, objective, None]
        found[start : start + _POINTS_AT_ONCE] = less.any(axis=1)
    return found
