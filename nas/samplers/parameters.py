"""Parameters of a study as numeric columns.

Rows have shape ``(N, P)``. The entry of a discrete parameter is the index of its value among its
choices, that of a continuous parameter lies in [0, 1]. NaN marks an absent conditional parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Standard deviation of a small mutation of a continuous parameter, as a share of its range.
_STEP = 0.1
# Probability that a mutation moves to a neighbouring value and not to a random one.
_NEIGHBOUR_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    ``n_choices`` is ``None`` for a continuous parameter. ``scale`` contains a number for each
    choice of an ordered parameter, and is ``None`` for any other.
    """

    name: str
    n_choices: int | None
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Reject an empty domain and a scale of the wrong length."""
        if self.n_choices is not None and self.n_choices < 1:
            raise ValueError(f"n_choices of {self.name} must be >= 1, got {self.n_choices}")
        if self.scale is not None and len(self.scale) != self.n_choices:
            raise ValueError(
                f"scale of {self.name} must have {self.n_choices} values, got {len(self.scale)}"
            )


@dataclass(frozen=True)
class Parameters:
    """All parameters, in the order of a row's columns."""

    columns: tuple[Parameter, ...]

    def __len__(self) -> int:
        """Number of columns."""
        return len(self.columns)

    @property
    def size(self) -> float:
        """Number of distinct rows with all parameters active; infinite if one is continuous."""
        return math.prod(float(c.n_choices or math.inf) for c in self.columns)

    def all_rows(self) -> Array:
        """Return every row of a finite space, shape ``(size, P)``."""
        # Mixed-radix digits, since numpy's grids end at 32 dimensions.
        sizes = [c.n_choices or 1 for c in self.columns]
        left, rows = np.arange(math.prod(sizes)), np.empty((math.prod(sizes), len(sizes)))
        for column in reversed(range(len(sizes))):
            left, rows[:, column] = np.divmod(left, sizes[column])
        return rows

    def random(self, n: int, rng: np.random.Generator) -> Array:
        """Return ``n`` random rows, uniform over each domain."""
        rows = rng.random((n, len(self)))
        for index, column in enumerate(self.columns):
            if column.n_choices is not None:
                rows[:, index] = np.floor(rows[:, index] * column.n_choices)
        return rows

    def corners(self) -> Array:
        """Return two rows: ordered columns all at their minimum, and all at their maximum.

        Other columns are at their middle. If values are sizes, these rows are the ends of the
        front.
        """
        ends = []
        for pick in (np.argmin, np.argmax):
            row = []
            for column in self.columns:
                if column.n_choices is None:
                    row.append(float(pick([0.0, 1.0])))
                elif column.scale is None:
                    row.append(float((column.n_choices - 1) // 2))
                else:
                    row.append(float(pick(column.scale)))
            ends.append(row)
        return np.array(ends)

    def mutated(self, parents_NP: Array, rng: np.random.Generator) -> Array:
        """Mutate each parent in one or more columns, a geometric random number of them."""
        n, width = parents_NP.shape
        rows = parents_NP.copy()
        changes = np.minimum(rng.geometric(0.5, size=n), width)
        order = rng.random((n, width)).argsort(axis=1).argsort(axis=1)
        chosen = order < changes[:, None]
        fresh = self.random(n, rng)
        near = rng.random((n, width)) < _NEIGHBOUR_SHARE
        steps = np.where(rng.random((n, width)) < 0.5, -1.0, 1.0)
        for index, column in enumerate(self.columns):
            at = np.flatnonzero(chosen[:, index])
            old = rows[at, index]
            if column.n_choices is None:
                stepped = np.clip(old + _STEP * rng.normal(size=len(at)), 0, 1)
                is_near = near[at, index]
            else:
                stepped = np.clip(old + steps[at, index], 0, column.n_choices - 1)
                is_near = near[at, index] & (column.scale is not None) & (stepped != old)
            # An absent parameter of the parent has no neighbouring value.
            is_near &= ~np.isnan(old)
            rows[at, index] = np.where(is_near, stepped, fresh[at, index])
        return rows

    def crossed(self, mothers_NP: Array, fathers_NP: Array, rng: np.random.Generator) -> Array:
        """Cross parents uniformly, or at one point, so that neighbouring layers stay together."""
        n, width = mothers_NP.shape
        uniform = rng.random((n, width)) < 0.5
        cut = np.arange(width) < rng.integers(0, width + 1, size=(n, 1))
        take = np.where(rng.random((n, 1)) < 0.5, uniform, cut)
        rows = np.where(take, mothers_NP, fathers_NP)
        other = np.where(take, fathers_NP, mothers_NP)
        return np.where(np.isnan(rows), other, rows)

    def filled(self, rows_NP: Array, rng: np.random.Generator) -> Array:
        """Return rows with a random value for each NaN."""
        return np.where(np.isnan(rows_NP), self.random(len(rows_NP), rng), rows_NP)


def keys(rows_NP: Array) -> list[bytes]:
    """Return a hashable key for each row, in which NaN equals NaN."""
    whole = np.ascontiguousarray(np.where(np.isnan(rows_NP), -1.0, rows_NP) + 0.0)
    return [row.tobytes() for row in whole]


def numeric_scale(values: Sequence[object]) -> tuple[float, ...] | None:
    """Scale numeric choices to [0, 1], logarithmically if they span a factor of 4 or more.

    The result is ``None`` if a choice is not a number, or for fewer than three choices, which
    need no order.
    """
    if len(values) < 3:
        return None
    numbers = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        numbers.append(float(value))
    array = np.array(numbers)
    if not np.isfinite(array).all():
        return None
    if array.min() > 0 and array.max() / array.min() >= 4:
        array = np.log(array)
    low, high = float(array.min()), float(array.max())
    return tuple(((array - low) / (high - low)).tolist()) if high > low else None
