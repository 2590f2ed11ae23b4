"""DTLZ2 (Deb et al. 2005) over choices: three objectives or more whose best front is exact.

The first parameters place a candidate on a quarter of a sphere, the others move it away from it.
Each of those has its best value elsewhere in its range, two of them only together, and one is a
category without an order.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from experiments.benchmarks.sampling.problems.problem import Array, Problem, volume_of
from experiments.benchmarks.sampling.problems.space import choice, columns_of

_ANGLES, _LEVELS, _DISTANCES = 7, 5, 8
_KINDS = {"a": 0.12, "b": 0.0, "c": 0.3, "d": 0.06}
# So that a random candidate is about as far from the sphere as its radius.
_SCALE = 0.7
_REFERENCE = 1.1


def dtlz2(n_objectives: int) -> Problem:
    """The problem of ``n_objectives``, 3 or more, in ``7**(M - 1) * 5**8 * 4`` candidates.

    Raises:
        ValueError: there are fewer than three.
    """
    if n_objectives < 3:
        raise ValueError(f"DTLZ2 must have 3 objectives or more, got {n_objectives}")
    n_angles = n_objectives - 1
    space = (
        *(choice(f"angle_{i}", *range(_ANGLES)) for i in range(n_angles)),
        *(choice(f"distance_{i}", *range(_LEVELS)) for i in range(_DISTANCES)),
        choice("kind", *_KINDS),
    )
    reference = (_REFERENCE,) * n_objectives

    def best() -> float:
        angles = np.array(list(product(range(_ANGLES), repeat=n_angles)), dtype=float)
        return volume_of(_on_sphere(angles), reference)

    return Problem(
        name=f"dtlz2-{n_objectives}",
        about=f"DTLZ2 over choices, {n_objectives} losses in closed form (front: exact)",
        parameters=space,
        truth=lambda configs: _losses(columns_of(space, configs), n_angles),
        reference=reference,
        best=best,
    )


def _losses(columns: Mapping[str, Any], n_angles: int) -> Array:
    angles = np.stack([columns[f"angle_{i}"] for i in range(n_angles)], axis=1).astype(float)
    levels = np.stack([columns[f"distance_{i}"] for i in range(_DISTANCES)], axis=1)
    off = (levels - (2 * np.arange(_DISTANCES) + 1) % _LEVELS) / (_LEVELS - 1)
    # The product lets one of the first two make up for the other.
    away = (off**2).sum(axis=1) + off[:, 0] * off[:, 1]
    away = _SCALE * away + np.array([_KINDS[kind] for kind in columns["kind"]])
    losses: Array = (1 + away)[:, None] * _on_sphere(angles)
    return losses


def _on_sphere(angles_NA: Array) -> Array:
    """Points of the unit sphere's positive part, ``(N, A + 1)``."""
    theta = angles_NA / (_ANGLES - 1) * np.pi / 2
    columns = []
    for i in range(angles_NA.shape[1], -1, -1):
        value = np.prod(np.cos(theta[:, :i]), axis=1)
        columns.append(value * np.sin(theta[:, i]) if i < angles_NA.shape[1] else value)
    return np.column_stack(columns)
