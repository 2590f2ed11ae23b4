"""The best front one can find with many evaluations of a law in closed form.

NSGA-II (Deb et al. 2002) from several starts, then Pareto local search: every one-value neighbour
of the front is tried until none is on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.sampling.problems.problem import Array
from experiments.benchmarks.sampling.problems.space import Parameter
from nas.pareto.dominance import non_dominated_mask

Indices = NDArray[np.int64]
Law = Callable[[Mapping[str, Any]], Array]


def best_front(
    parameters: Sequence[Parameter],
    law: Law,
    *,
    seed: int,
    starts: int = 5,
    generations: int = 400,
    population: int = 300,
    is_local: bool = True,
) -> Array:
    """Losses ``(N, M)`` of the front found; all parameters must be choices.

    Without ``is_local`` there is no local search, which does not end on fronts of many thousands.

    Raises:
        ValueError: one is not.
    """
    if not all(p.values for p in parameters):
        raise ValueError("parameters must all be choices to be enumerated")
    sizes = np.array([len(p.values) for p in parameters])

    def losses_of(rows_NP: Indices) -> Array:
        return law({p.name: np.array(p.values)[rows_NP[:, i]] for i, p in enumerate(parameters)})

    rows = np.vstack(
        [
            _nsga2(sizes, losses_of, np.random.default_rng([seed, s]), generations, population)
            for s in range(starts)
        ]
    )
    if not is_local:
        return _front(rows, losses_of(rows))[1]
    return _local_search(sizes, losses_of, rows)


def _nsga2(
    sizes: Indices,
    losses_of: Callable[[Indices], Array],
    rng: np.random.Generator,
    generations: int,
    population: int,
) -> Indices:
    rows = rng.integers(sizes, size=(population, len(sizes)))
    losses = losses_of(rows)
    for _ in range(generations):
        mothers, fathers = rows[rng.integers(len(rows), size=(2, population))]
        children = np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)
        mutated = rng.random(children.shape) < 1.5 / len(sizes)
        children = np.where(mutated, rng.integers(sizes, size=children.shape), children)
        rows = np.vstack([rows, children])
        losses = np.vstack([losses, losses_of(children)])
        _, first = np.unique(losses, axis=0, return_index=True)
        rows, losses = rows[first], losses[first]
        kept = _survivors(losses, population)
        rows, losses = rows[kept], losses[kept]
    return rows


def _survivors(losses_NM: Array, n: int) -> Indices:
    """Front by front; of the last one the least crowded."""
    left, chosen = np.arange(len(losses_NM)), np.empty(0, dtype=np.int64)
    while len(left) and len(chosen) < n:
        mask = _is_non_dominated(losses_NM[left])
        front = left[mask]
        if len(chosen) + len(front) > n:
            crowding = _crowding(losses_NM[front])
            front = front[np.argsort(-crowding, kind="stable")[: n - len(chosen)]]
        chosen, left = np.concatenate([chosen, front]), left[~mask]
    return chosen


def _is_non_dominated(losses_NM: Array) -> NDArray[np.bool_]:
    return non_dominated_mask(losses_NM, (False,) * losses_NM.shape[1])


def _crowding(losses_NM: Array) -> Array:
    distance = np.zeros(len(losses_NM))
    for column in losses_NM.T:
        order = np.argsort(column)
        extent = max(float(column.max() - column.min()), 1e-12)
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / extent
    return distance


def _local_search(sizes: Indices, losses_of: Callable[[Indices], Array], rows: Indices) -> Array:
    rows, losses = _front(rows, losses_of(rows))
    tried: set[bytes] = set()
    while True:
        fresh = [row for row in rows if row.tobytes() not in tried]
        if not fresh:
            return losses
        tried.update(row.tobytes() for row in fresh)
        near = np.vstack([_neighbours(row, sizes) for row in fresh])
        rows, losses = _front(np.vstack([rows, near]), np.vstack([losses, losses_of(near)]))


def _front(rows: Indices, losses: Array) -> tuple[Indices, Array]:
    _, first = np.unique(losses, axis=0, return_index=True)
    first = np.sort(first)
    rows, losses = rows[first], losses[first]
    mask = _is_non_dominated(losses)
    return rows[mask], losses[mask]


def _neighbours(row_P: Indices, sizes: Indices) -> Indices:
    found = []
    for index, size in enumerate(sizes):
        for value in range(size):
            if value != row_P[index]:
                near = row_P.copy()
                near[index] = value
                found.append(near)
    return np.array(found)
