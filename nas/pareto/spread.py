"""Select a few members that represent a whole front: max-min dispersion."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def spread(losses: ArrayLike, k: int) -> list[int]:
    """Return the indices of ``k`` rows with the greatest least distance, ascending.

    A distance is the largest difference in any objective, each scaled to [0, 1] over the rows.
    With two objectives, distance grows along the non-dominated rows, and dynamic programming finds
    the best choice (max-min dispersion; Kuby 1987, on a two-objective front Vaz et al. 2015). With
    more, the farthest row is added in turn, from the best in the first objective on; its least
    distance is at least half of the best (Gonzalez 1985; Ravi et al. 1994). All rows are returned
    if there are ``k`` or fewer.

    Args:
        losses: Objectives to be minimised, ``(N, M)``; costs as logarithms, so that distances
            are ratios.
        k: Number of rows to choose, at least 2.

    Raises:
        ValueError: ``k`` is below 2, since one row has no distance.
    """
    if k < 2:
        raise ValueError(f"k must be >= 2, got {k!r}")
    rows = np.asarray(losses, dtype=np.float64)
    if len(rows) <= k:
        return list(range(len(rows)))
    low, high = rows.min(axis=0), rows.max(axis=0)
    scaled = (rows - low) / np.where(high > low, high - low, 1.0)
    apart = np.abs(scaled[:, None] - scaled[None, :]).max(axis=2)
    if rows.shape[1] == 2:
        return _along(apart, np.lexsort((rows[:, 1], rows[:, 0])), k)
    return _farthest(apart, int(np.argmin(rows[:, 0])), k)


def _along(apart: Array, order: NDArray[np.intp], k: int) -> list[int]:
    """Return the best ``k`` rows on a line, both ends among them."""
    n = len(order)
    apart = apart[np.ix_(order, order)]
    # The greatest least distance of a choice from row 0 to row i.
    best = np.where(np.arange(n) == 0, np.inf, -np.inf)
    before = np.zeros((k, n), dtype=np.intp)
    for step in range(1, k):
        reached = np.full(n, -np.inf)
        for last in range(step, n):
            least = np.minimum(best[:last], apart[:last, last])
            before[step, last] = int(np.argmax(least))
            reached[last] = least[before[step, last]]
        best = reached
    chosen = [n - 1]
    for step in range(k - 1, 0, -1):
        chosen.append(int(before[step, chosen[-1]]))
    return sorted(int(order[i]) for i in chosen)


def _farthest(apart: Array, first: int, k: int) -> list[int]:
    chosen = [first]
    nearest = apart[first].copy()
    for _ in range(k - 1):
        nearest[chosen] = -1.0
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, apart[chosen[-1]])
    return sorted(chosen)
