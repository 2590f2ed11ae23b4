"""A CSV or Parquet table of measured candidates as a search problem.

Columns become categorical parameters of their distinct values. A proposal that the table lacks is
taken for the row that differs from it in the fewest columns; of those, for the one whose ordered
columns are nearest in rank; of those, for the first. All samplers are served alike, and are told
that what they proposed has that row's values. A table where a random proposal differs from its
row in more than a third of the columns becomes a surrogate (``surrogate_table.py``): what would be
judged there is the rule, not the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.benchmarks.sampling.problems.problem import Array, Problem, volume_of
from experiments.benchmarks.sampling.problems.scoring import Scoring
from experiments.benchmarks.sampling.problems.space import Config, Parameter
from experiments.benchmarks.sampling.problems.surrogate_table import surrogate_problem
from experiments.benchmarks.tables.frame import (
    check_columns,
    check_filled,
    check_numbers,
    read_frame,
)

_MARGIN, _MOST_SNAPPED, _PROBES = 0.1, 1 / 3, 200
_FULL = "a full grid"


class Snapping:
    """From codes of a proposal to the nearest row of ``rows_NC``; ``is_ordered_C`` by column."""

    def __init__(self, rows_NC: NDArray[np.int64], is_ordered_C: NDArray[np.bool_]) -> None:
        """Keep the rows."""
        self._rows, self._is_ordered = rows_NC, is_ordered_C
        self._extent = np.maximum(rows_NC.max(axis=0), 1)

    def __call__(self, codes_C: NDArray[np.int64]) -> tuple[int, int]:
        """The row's position, and in how many columns it differs."""
        differs = self._rows != codes_C
        n_differing = differs.sum(axis=1)
        apart = np.abs(self._rows - codes_C) / self._extent
        rank = np.where(self._is_ordered, apart, differs).sum(axis=1)
        found = int(np.lexsort((rank, n_differing))[0])
        return found, int(n_differing[found])


def read_table(
    path: Path,
    objectives: tuple[str, str],
    directions: tuple[str, str] = ("min", "min"),
    scales: tuple[str, str] = ("linear", "linear"),
    ignore: Sequence[str] = (),
) -> Problem:
    """The problem of ``path``; what is to be maximised is negated.

    Raises:
        ValueError: as ``table_problem``, or the file is no table.
    """
    return table_problem(path, read_frame(path), Scoring(objectives, directions, scales), ignore)


def table_problem(
    path: Path, data: pd.DataFrame, scoring: Scoring, ignore: Sequence[str] = ()
) -> Problem:
    """Return the problem of a table's rows; ``path`` names it.

    Rows of the same candidate count as one, with their mean losses. The reference point lies a
    tenth of the table's extent beyond its worst losses.

    Raises:
        ValueError: a column or direction is unknown, an objective is no number or not positive
            where it is scored in logarithms, a cell is empty, no column is left, or what is far
            from a grid makes no surrogate.
    """
    objectives = scoring.objectives
    check_columns(data, (*objectives, *ignore))
    check_numbers(path, data, objectives)
    losses = scoring.losses(path, data)
    features = data.drop(columns=[*objectives, *ignore])
    check_filled(path, features, features.columns)
    features = features.loc[:, features.nunique() > 1]
    if not features.shape[1]:
        raise ValueError(f"table {path} must have a parameter column that varies")
    parameters = tuple(
        Parameter(str(c), values=tuple(sorted(features[c].unique().tolist()))) for c in features
    )
    position = [{v: i for i, v in enumerate(p.values)} for p in parameters]
    codes = np.column_stack(
        [features[p.name].map(at) for p, at in zip(parameters, position, strict=True)]
    ).astype(np.int64)
    n_rows = len(codes)
    row_losses = losses
    codes, losses = _candidates(codes, losses)
    snapping = Snapping(codes, np.array([p.is_ordered for p in parameters]))
    worst, extent = losses.max(axis=0), np.ptp(losses, axis=0)
    reference = (float(worst[0] + _MARGIN * extent[0]), float(worst[1] + _MARGIN * extent[1]))
    coverage = _coverage(codes, snapping)
    if coverage is None:
        return surrogate_problem(path, scoring, parameters, features, row_losses, reference)

    def row(config: Config) -> int:
        codes_C = [at[config[p.name]] for at, p in zip(position, parameters, strict=True)]
        return snapping(np.array(codes_C))[0]

    of = f" of {len(codes):,} candidates (means of repeated ones)" * (len(codes) < n_rows)
    return Problem(
        name=path.stem,
        about=f"{scoring.about} of {n_rows:,} rows{of}; {coverage} (front: exact)",
        parameters=parameters,
        truth=lambda configs: losses[[row(config) for config in configs]],
        reference=reference,
        best=lambda: volume_of(losses, reference),
        measured=scoring.measured(losses),
        row=row,
        has_own_values=coverage == _FULL,
    )


def _candidates(codes_NC: NDArray[np.int64], losses_N2: Array) -> tuple[NDArray[np.int64], Array]:
    """Return each candidate once, in the order of first rows, with its rows' mean losses.

    The best of repeated rows could otherwise be on the best front, where no sampler gets it.
    """
    _, first, group = np.unique(codes_NC, axis=0, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), 2))
    np.add.at(sums, group.ravel(), losses_N2)
    means = sums / np.bincount(group.ravel())[:, None]
    order = np.argsort(first, kind="stable")
    return codes_NC[first[order]], means[order]


def _coverage(codes_NC: NDArray[np.int64], snapping: Snapping) -> str | None:
    """What of the grid is there, in words; ``None`` where that is too little to snap to."""
    sizes = codes_NC.max(axis=0) + 1
    share = len(np.unique(codes_NC, axis=0)) / np.prod(sizes, dtype=float)
    if share == 1:
        return _FULL
    rng = np.random.default_rng(0)
    differing = [snapping(rng.integers(sizes))[1] for _ in range(_PROBES)]
    typical, n = float(np.median(differing)), codes_NC.shape[1]
    if typical > _MOST_SNAPPED * n:
        return None
    words = f"a random proposal differs from its row in {typical:g} of {n} columns"
    return f"{share:.2g} of the grid is there, {words}"
