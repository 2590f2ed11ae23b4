"""From what was evaluated to shares of the best-known hypervolume, and to sampler beside sampler.

The *share* after ``n`` evaluations is the hypervolume of the first ``n`` by the best known;
*regret* is one minus the share. Repeated candidates count as evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.benchmarks.sampling.problems.problem import Array, volume_of
from nas.pareto.dominance import extended_front, non_dominated_mask

# Less is not told apart: best-known fronts are not all proven, nor given to more digits.
LEAST_REGRET = 1e-4


def volume_curve(losses_NM: Array, reference: Sequence[float]) -> Array:
    """Hypervolume of the first 1, 2, ... rows; all columns are minimised.

    Each row adds its own volume less the part of it that the front dominates already, which few
    members limit (While, Bradstreet & Barone 2012).
    """
    front = np.empty((0, losses_NM.shape[1]))
    found, last = np.empty(len(losses_NM)), 0.0
    for index, loss in enumerate(losses_NM):
        if np.all(loss < reference) and not np.any(np.all(front <= loss, axis=1)):
            own = float(np.prod(np.asarray(reference) - loss))
            last += own - volume_of(np.maximum(front, loss), reference)
            front = extended_front(front, loss[None])
        found[index] = last
    return found


def measured_front_curve(measured_NM: Array, true_NM: Array, reference: Sequence[float]) -> Array:
    """Hypervolume of the true losses of the front of the first 1, 2, ... *measured* rows.

    It may fall: a lucky measurement takes the place of a row that is better.
    """
    chosen = np.empty(0, dtype=np.int64)
    found = np.empty(len(measured_NM))
    for index, loss in enumerate(measured_NM):
        if not np.any(np.all(measured_NM[chosen] <= loss, axis=1)):
            chosen = np.append(chosen, index)
            chosen = chosen[non_dominated_mask(measured_NM[chosen], (False,) * len(reference))]
            found[index] = volume_of(true_NM[chosen], reference)
        else:
            found[index] = found[index - 1]
    return found


def regret(volumes: Array, best: float) -> Array:
    """One minus the share of the best known, at least ``LEAST_REGRET``."""
    found: Array = np.maximum(1 - np.asarray(volumes) / best, LEAST_REGRET)
    return found


def quartiles(curves: Sequence[Array]) -> Array:
    """Lower quartile, median and upper quartile ``(3, N)``, to the end of the shortest curve."""
    n = min(len(curve) for curve in curves)
    found: Array = np.quantile(
        np.stack([curve[:n] for curve in curves]), (0.25, 0.5, 0.75), axis=0
    )
    return found


def evaluations_to(regrets: Array, target: float) -> int | None:
    """Evaluations until regret is at or below ``target``; ``None`` where it never is."""
    reached = np.flatnonzero(np.asarray(regrets) <= target * (1 + 1e-12))
    return int(reached[0]) + 1 if len(reached) else None


def over_time(seconds: Sequence[Array], regrets: Sequence[Array], grid: Array) -> Array:
    """Quartiles ``(3, G)`` of regret at times of ``grid``; NaN where not every run is under way.

    ``seconds`` are cumulative by evaluation. Before its first result a run has no regret; after
    its last it has ended and tells nothing.
    """
    table = np.full((len(seconds), len(grid)), np.nan)
    for row, (times, values) in enumerate(zip(seconds, regrets, strict=True)):
        at = np.searchsorted(times, grid, side="right") - 1
        under_way = (at >= 0) & (grid <= times[-1])
        table[row, under_way] = np.asarray(values)[at[under_way]]
    complete = ~np.isnan(table).any(axis=0)
    found = np.full((3, len(grid)), np.nan)
    if complete.any():
        found[:, complete] = np.quantile(table[:, complete], (0.25, 0.5, 0.75), axis=0)
    return found
