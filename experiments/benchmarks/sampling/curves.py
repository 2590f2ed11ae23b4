"""From what was evaluated to shares of the best-known hypervolume, and to sampler beside sampler.

The *share* after ``n`` evaluations is the hypervolume of the first ``n`` by the best known;
*regret* is one minus the share. Repeated candidates count as evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.benchmarks.sampling.problems.problem import MINIMISED, Array
from nas.pareto.dominance import extended_front
from nas.pareto.hypervolume import hypervolume

# Less is not told apart: best-known fronts are not all proven, nor given to more digits.
LEAST_REGRET = 1e-4


def volume_curve(losses_N2: Array, reference: Sequence[float]) -> Array:
    """Hypervolume of the first 1, 2, ... rows; both columns are minimised."""
    front = np.empty((0, 2))
    found, last = np.empty(len(losses_N2)), 0.0
    for index, loss in enumerate(losses_N2):
        if np.all(loss < reference) and not np.any(np.all(front <= loss, axis=1)):
            front = extended_front(front, loss[None])
            last = hypervolume(front, reference, MINIMISED)
        found[index] = last
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
