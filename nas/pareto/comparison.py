"""Compare two fronts: hypervolumes from one reference point, coverage, dominance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.pareto.hypervolume import hypervolume, reference_point

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two fronts, A and B, in objectives that are minimised.

    ``volumes`` are hypervolumes from ``reference``. ``coverage`` is Zitzler and Thiele's C metric
    (1999): the share of B's members that some member of A weakly dominates, then the share of A's
    that B weakly dominates; the two need not add up to 1. ``dominated_a[i]`` holds
    the positions in B of those that dominate member ``i`` of A, ``dominated_b`` likewise.
    """

    reference: tuple[float, ...]
    volumes: tuple[float, float]
    coverage: tuple[float, float]
    dominated_a: tuple[tuple[int, ...], ...]
    dominated_b: tuple[tuple[int, ...], ...]


def compare_fronts(
    a: ArrayLike, b: ArrayLike, reference: Sequence[float] | None = None
) -> Comparison:
    """Compare the rows of ``a`` and ``b``, each ``(N, M)``, all objectives to be minimised.

    The default ``reference`` is that of both fronts together (``reference_point``).

    Raises:
        ValueError: one of the two is empty, or they differ in objectives.
    """
    rows_a, rows_b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if rows_a.ndim != 2 or rows_b.ndim != 2 or rows_a.shape[1] != rows_b.shape[1]:
        raise ValueError(
            f"fronts must be of the same objectives, got shapes {rows_a.shape} and {rows_b.shape}"
        )
    if not len(rows_a) or not len(rows_b):
        raise ValueError("fronts must both have a member to compare")
    if reference is None:
        reference = tuple(reference_point(np.vstack([rows_a, rows_b])).tolist())
    minimize = (False,) * len(reference)
    b_covers, dominated_a = _dominated(rows_a, rows_b)
    a_covers, dominated_b = _dominated(rows_b, rows_a)
    return Comparison(
        reference=tuple(float(value) for value in reference),
        volumes=(
            hypervolume(rows_a, reference, minimize),
            hypervolume(rows_b, reference, minimize),
        ),
        coverage=(a_covers, b_covers),
        dominated_a=dominated_a,
        dominated_b=dominated_b,
    )


def _dominated(rows: Array, others: Array) -> tuple[float, tuple[tuple[int, ...], ...]]:
    """Return the share of ``rows`` that ``others`` weakly dominate, and each row's dominators."""
    no_worse = np.all(others[:, None] <= rows[None, :], axis=2)
    is_better = np.any(others[:, None] < rows[None, :], axis=2)
    dominators = (np.flatnonzero(column) for column in (no_worse & is_better).T)
    covered = float(no_worse.any(axis=0).mean())
    return covered, tuple(tuple(map(int, positions)) for positions in dominators)
