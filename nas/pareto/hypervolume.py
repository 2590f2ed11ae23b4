"""Hypervolume: how much of objective space a set of points dominates, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.pareto.dominance import as_losses, non_dominated_mask


def hypervolume(values: ArrayLike, reference: Sequence[float], maximize: Sequence[bool]) -> float:
    """Volume between the points and ``reference``; points beyond the reference add nothing.

    Exact for any number of objectives: a sweep for two, slices along the last one for more
    (Zitzler & Thiele 1999; Knowles 2002).

    Raises:
        ValueError: the shapes do not match, or a value is NaN.
    """
    losses = as_losses(values, maximize)
    corner = as_losses([reference], maximize)[0]
    losses = losses[np.all(losses < corner, axis=1)]
    return _volume(losses, corner)


def _volume(losses: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    if not len(losses):
        return 0.0
    if losses.shape[1] == 1:
        return float(corner[0] - losses.min())
    losses = losses[non_dominated_mask(losses, (False,) * losses.shape[1])]
    losses = losses[np.argsort(losses[:, -1], kind="stable")]
    if losses.shape[1] == 2:
        # Sorted by the second objective, the first falls: each point adds one rectangle.
        heights = np.append(losses[1:, 1], corner[1]) - losses[:, 1]
        best_first = np.minimum.accumulate(losses[:, 0])
        return float(np.sum(heights * (corner[0] - best_first)))
    depths = np.append(losses[1:, -1], corner[-1]) - losses[:, -1]
    return float(
        sum(
            depth * _volume(losses[: index + 1, :-1], corner[:-1])
            for index, depth in enumerate(depths)
            if depth > 0
        )
    )
