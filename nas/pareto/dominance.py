"""Pareto dominance: non-dominated points, and incremental fronts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def non_dominated_mask(values: ArrayLike, maximize: Sequence[bool]) -> NDArray[np.bool_]:
    """Return a mask of the rows that no other row dominates, shape ``(N,)``.

    A row dominates another that is no better in any objective and worse in one.

    Equal rows do not dominate each other. ``values`` has shape ``(N, M)``; ``maximize`` is true
    for each of the M objectives of which more is better. Two objectives take O(N log N) by a
    sweep (Kung et al. 1975), more take O(N * front).

    Raises:
        ValueError: the shapes do not match, or a value is NaN.
    """
    losses = as_losses(values, maximize)
    if losses.shape[1] == 2:
        return _sweep(losses)
    mask = np.ones(len(losses), dtype=bool)
    for row in range(len(losses)):
        rivals = losses[mask]
        mask[row] = not np.any(
            np.all(rivals <= losses[row], axis=1) & np.any(rivals < losses[row], axis=1)
        )
    return mask


def extended_front(
    front_FM: NDArray[np.float64], points_NM: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the non-dominated rows of a front and new points, all losses."""
    rows = np.vstack([front_FM, points_NM])
    return rows[non_dominated_mask(rows, (False,) * rows.shape[1])]


def as_losses(values: ArrayLike, maximize: Sequence[bool]) -> NDArray[np.float64]:
    """Return ``values`` with every objective to be minimised, shape ``(N, M)``.

    Raises:
        ValueError: the shapes do not match, or a value is NaN.
    """
    array = np.asarray(values, dtype=np.float64).reshape(-1, len(maximize))
    if np.isnan(array).any():
        raise ValueError("objectives must be numbers, got NaN")
    return np.where(np.asarray(maximize, dtype=bool), -array, array)


def _sweep(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    mask = np.zeros(len(losses), dtype=bool)
    if not len(losses):
        return mask
    order = np.argsort(losses[:, 0])
    first, second = losses[order].T
    starts = np.concatenate([[True], first[1:] != first[:-1]])
    if starts.all():
        # The best second objective of the rows with a better first objective.
        best_before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        mask[order] = second < best_before
        return mask
    order = np.lexsort((losses[:, 1], losses[:, 0]))
    first, second = losses[order].T
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
    # Rows with the same first objective share the best second one of rows with a better first.
    group = np.cumsum(starts) - 1
    best_before = best_before[np.flatnonzero(starts)][group]
    group_best = second[np.flatnonzero(starts)][group]
    mask[order] = (second < best_before) & (second == group_best)
    return mask
