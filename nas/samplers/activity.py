"""Conditional parameters, inferred from the rows of a study.

Optuna's define-by-run studies do not declare that ``layer12.width`` exists only from depth 12 on.
A parameter counts as conditional on a discrete parameter if it is present in every row with some
values of that parameter, and absent in every row with the other values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.samplers.parameters import Parameters

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Activity:
    """For each conditional column: the column it depends on, and the values that disable it."""

    rules: tuple[tuple[int, int, tuple[float, ...]], ...] = ()

    @classmethod
    def learn(cls, rows_NP: Array, parameters: Parameters) -> Activity:
        """Infer conditions from rows in which NaN marks an absent parameter.

        If several columns explain an absence, the rule uses the one with the fewest disabling
        values, so unseen values count as enabling.
        """
        rules = []
        absent_NP = np.isnan(rows_NP)
        for index in np.flatnonzero(absent_NP.any(axis=0) & ~absent_NP.all(axis=0)):
            absent = absent_NP[:, index]
            rule: tuple[int, tuple[float, ...]] | None = None
            for other, column in enumerate(parameters.columns):
                if column.n_choices is None or other == index or absent_NP[:, other].any():
                    continue
                off = set(rows_NP[absent, other].tolist())
                if off & set(rows_NP[~absent, other].tolist()):
                    continue
                if rule is None or len(off) < len(rule[1]):
                    rule = other, tuple(sorted(off))
            if rule is not None:
                rules.append((int(index), *rule))
        return cls(tuple(rules))

    def apply(self, rows_NP: Array) -> Array:
        """Return rows with NaN for disabled parameters, so that equivalent rows are equal."""
        rows = rows_NP.copy()
        for index, other, off in self.rules:
            rows[np.isin(rows[:, other], off), index] = np.nan
        return rows
