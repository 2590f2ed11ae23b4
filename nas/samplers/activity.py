"""Which parameters are part of a row, learnt from rows that were seen.

Studies that are defined while they run tell nobody that ``layer12.width`` exists from depth 12
on; the rows show it. A parameter's condition is a discrete parameter of whose values some always
come with it and all others never do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.samplers.parameters import Parameters

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Activity:
    """For each conditional column: the column that decides, and its values that switch it off."""

    rules: tuple[tuple[int, int, tuple[float, ...]], ...] = ()

    @classmethod
    def learn(cls, rows_NP: Array, parameters: Parameters) -> Activity:
        """From rows in which NaN marks what was not part of them.

        Where several columns explain the same, the one with the fewest values that switch it off
        is taken: what was not seen counts as part of the row.
        """
        rules = []
        absent_NP = np.isnan(rows_NP)
        for index in np.flatnonzero(absent_NP.any(axis=0) & ~absent_NP.all(axis=0)):
            absent = absent_NP[:, index]
            found: tuple[int, tuple[float, ...]] | None = None
            for other, column in enumerate(parameters.columns):
                if column.n_choices is None or other == index or absent_NP[:, other].any():
                    continue
                off = set(rows_NP[absent, other].tolist())
                if off & set(rows_NP[~absent, other].tolist()):
                    continue
                if found is None or len(off) < len(found[1]):
                    found = other, tuple(sorted(off))
            if found is not None:
                rules.append((int(index), *found))
        return cls(tuple(rules))

    def apply(self, rows_NP: Array) -> Array:
        """Rows with NaN where a parameter is not part of them: one form for each model."""
        rows = rows_NP.copy()
        for index, other, off in self.rules:
            rows[np.isin(rows[:, other], off), index] = np.nan
        return rows
