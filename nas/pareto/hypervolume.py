"""Exact hypervolume, and the default reference point."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.pareto.dominance import as_losses, non_dominated_mask

# The default reference point lies this share of the front's extent beyond its worst losses.
_MARGIN = 0.1


def reference_point(
    front_FM: NDArray[np.float64], points_NM: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the default reference point of a front of losses, shape ``(M,)``.

    It lies a tenth of the front's extent beyond the front's worst losses. In an objective without
    extent, ``points`` worse than the front give the extent, and without such points it is 1.
    """
    worst = front_FM.max(axis=0)
    extent = worst - front_FM.min(axis=0)
    if points_NM is not None:
        extent = np.where(extent > 0, extent, points_NM.max(axis=0) - worst)
    point: NDArray[np.float64] = worst + _MARGIN * np.where(extent > 0, extent, 1.0)
    return point


def volume_losses(values: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return objectives as hypervolume counts them, ``(N, M)``: error rate, decades of costs."""
    quality, *costs = np.array(values).T
    return np.column_stack([1 - quality, *np.log10(costs)])


def volume_values(losses_M: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    """Return the objectives whose ``volume_losses`` are ``losses``."""
    return 1 - float(losses_M[0]), *(float(10**cost) for cost in losses_M[1:])


def hypervolume(values: ArrayLike, reference: Sequence[float], maximize: Sequence[bool]) -> float:
    """Volume between the points and ``reference``; points beyond the reference add nothing.

    Exact for any number of objectives: a sweep for two, slices along the last one for more
    (Zitzler & Thiele 1999; Knowles 2002).

    Raises:
        ValueError: the shapes do not match, or a value is NaN.
    """
    losses = as_losses(values, maximize)
    point = as_losses([reference], maximize)[0]
    losses = losses[np.all(losses < point, axis=1)]
    return _volume(losses, point)


def hypervolume_subset(
    front_FM: NDArray[np.float64], reference_M: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """Return the positions of ``most`` members that keep most of a front's hypervolume.

    Greedy: each next member adds the most volume, which keeps at least ``1 - 1/e`` of that of the
    best subset (Guerreiro, Fonseca & Paquete 2016). A member's gain only falls as others are
    chosen, so few gains are computed again (Minoux 1978).

    Args:
        front_FM: losses, ``(F, M)``.
        reference_M: the reference point; members beyond it add nothing.
        most: members to choose.
    """
    lengths = np.maximum(reference_M - front_FM, 0)
    queue = [(-gain, index, 0) for index, gain in enumerate(lengths.prod(axis=1).tolist())]
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue and len(chosen) < most:
        _, index, n_known = heapq.heappop(queue)
        if n_known == len(chosen):
            chosen.append(index)
            continue
        shared = np.maximum(front_FM[chosen], front_FM[index])
        inside = shared[np.all(shared < reference_M, axis=1)]
        gain = float(lengths[index].prod()) - _volume(inside, reference_M)
        heapq.heappush(queue, (-gain, index, len(chosen)))
    return np.array(chosen, dtype=np.int64)


def _volume(losses: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    if not len(losses):
        return 0.0
    if losses.shape[1] == 1:
        return float(reference[0] - losses.min())
    losses = losses[non_dominated_mask(losses, (False,) * losses.shape[1])]
    losses = losses[np.argsort(losses[:, -1], kind="stable")]
    if losses.shape[1] == 2:
        # Sorted by the second objective, the first falls: each point adds one rectangle.
        heights = np.append(losses[1:, 1], reference[1]) - losses[:, 1]
        best_first = np.minimum.accumulate(losses[:, 0])
        return float(np.sum(heights * (reference[0] - best_first)))
    depths = np.append(losses[1:, -1], reference[-1]) - losses[:, -1]
    return float(
        sum(
            depth * _volume(losses[: index + 1, :-1], reference[:-1])
            for index, depth in enumerate(depths)
            if depth > 0
        )
    )
