"""A table too sparse to look candidates up in, as a surrogate benchmark.

As in NAS-Bench-301 (Zela et al. 2022), a regressor that is fitted to the measured rows answers
for every candidate. Here it is a forest of extremely randomised trees (Geurts et al. 2006) for
each objective. It gives a measured candidate what was measured (the mean of its rows), gives none
more or less than the table's extremes, and is no smooth function such as a Gaussian process
assumes, so that samplers with one are not judged on their own assumption. How well the forests
foretell candidates that were left out is part of what the problem says of itself; where they
order those badly, the table is refused.

Arrays: N rows, F features, 2 objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.ensemble import ExtraTreesRegressor

from experiments.benchmarks.sampling.problems.evolve import best_front
from experiments.benchmarks.sampling.problems.problem import Array, Problem
from experiments.benchmarks.sampling.problems.scoring import Scoring
from experiments.benchmarks.sampling.problems.space import Parameter, columns_of

_TREES, _FOLDS, _SEED = 100, 5, 0
# Fewer leave folds of less than ten, whose figures say nothing.
_FEWEST = 50
# (1 + tau) / 2 of all pairs are ordered as measured: three of four.
_LEAST_TAU = 0.5
# Of the search for the best front; a forest takes much longer than a law in closed form.
_STARTS, _GENERATIONS, _POPULATION = 3, 150, 200


@dataclass(frozen=True)
class Quality:
    """R2 and Kendall's tau of candidates left out of the fit, each once."""

    r2: float
    tau: float


class Forests:
    """A forest for each objective, fitted to the rows of a table."""

    def __init__(
        self, parameters: Sequence[Parameter], columns: Mapping[str, Any], losses_N2: Array
    ) -> None:
        """Fit both."""
        self._parameters = tuple(parameters)
        features_NF = self._features(columns)
        self._forests = [_fitted(features_NF, losses_N) for losses_N in losses_N2.T]

    def __call__(self, columns: Mapping[str, Any]) -> Array:
        """Losses ``(N, 2)`` of candidates."""
        features_NF = self._features(columns)
        return np.column_stack([forest.predict(features_NF) for forest in self._forests])

    def _features(self, columns: Mapping[str, Any]) -> Array:
        return encoded(self._parameters, columns)


def encoded(parameters: Sequence[Parameter], columns: Mapping[str, Any]) -> Array:
    """Numbers as they are, other values a column each, ``(N, F)``."""
    found = []
    for parameter in parameters:
        values_N1 = np.asarray(columns[parameter.name])[:, None]
        is_each = values_N1 == np.array(parameter.values)
        found.append(values_N1 if parameter.is_ordered else is_each)
    return np.hstack(found).astype(float)


def qualities(
    features_NF: Array, losses_N2: Array, candidate_N: NDArray[np.int64]
) -> list[Quality]:
    """By cross-validation; all rows of one candidate are left out together."""
    fold_N = np.random.default_rng(_SEED).permutation(candidate_N.max() + 1)[candidate_N] % _FOLDS
    predicted_N2 = np.empty_like(losses_N2)
    for fold in range(_FOLDS):
        out = fold_N == fold
        for i, losses_N in enumerate(losses_N2.T):
            forest = _fitted(features_NF[~out], losses_N[~out])
            predicted_N2[out, i] = forest.predict(features_NF[out])
    return [_quality(p, t) for p, t in zip(predicted_N2.T, losses_N2.T, strict=True)]


def surrogate_problem(
    path: Path,
    scoring: Scoring,
    parameters: Sequence[Parameter],
    rows: pd.DataFrame,
    losses_N2: Array,
    reference: tuple[float, float],
) -> Problem:
    """The problem of forests that are fitted to ``rows``, the parameters' values in the table.

    Raises:
        ValueError: a cell is empty, rows are few, or the forests do not order what they have not
            seen.
    """
    empty = [str(name) for name in rows if rows[name].isna().any()]
    if empty:
        raise ValueError(
            f"table {path} must have a value in every row of {empty[0]!r} for a surrogate"
        )
    candidate_N = rows.groupby(list(rows), sort=False).ngroup().to_numpy()
    n_candidates = int(candidate_N.max()) + 1
    if n_candidates < _FEWEST:
        raise ValueError(
            f"table {path} must be nearer to a full grid, or have {_FEWEST} candidates or more "
            f"for a surrogate, got {n_candidates}"
        )
    columns = {str(name): rows[name].to_numpy() for name in rows}
    found = qualities(encoded(parameters, columns), losses_N2, candidate_N)
    for name, quality in zip(scoring.objectives, found, strict=True):
        if quality.tau < _LEAST_TAU:
            raise ValueError(
                f"table {path} must be nearer to a full grid, or have a surrogate whose "
                f"cross-validated Kendall tau is {_LEAST_TAU} or more, got {quality.tau:.2f} for "
                f"{name!r}"
            )
    forests = Forests(parameters, columns, losses_N2)

    def best() -> float:
        front = best_front(
            parameters,
            forests,
            seed=_SEED,
            starts=_STARTS,
            generations=_GENERATIONS,
            population=_POPULATION,
        )
        # Evolution may miss a measured candidate that is on the front.
        return problem.volume(np.vstack([front, forests(columns)]))

    figures = " and ".join(
        f"{name} (R2 {quality.r2:.2f}, Kendall tau {quality.tau:.2f})"
        for name, quality in zip(scoring.objectives, found, strict=True)
    )
    problem = Problem(
        name=f"{path.stem}-surrogate",
        about=f"{scoring.about}; {figures} by surrogates: forests fitted to {len(rows):,} rows of "
        f"{n_candidates:,} candidates, figures by {_FOLDS}-fold cross-validation (front: best "
        "known, by NSGA-II and local search on the surrogates and by the rows, not proven)",
        parameters=tuple(parameters),
        truth=lambda configs: forests(columns_of(parameters, configs)),
        reference=reference,
        best=best,
    )
    return problem


def _fitted(features_NF: Array, losses_N: Array) -> ExtraTreesRegressor:
    return ExtraTreesRegressor(_TREES, random_state=_SEED).fit(features_NF, losses_N)


def _quality(predicted_N: Array, truth_N: Array) -> Quality:
    spread = float(np.sum((truth_N - truth_N.mean()) ** 2))
    if spread == 0 or np.ptp(predicted_N) == 0:
        # Nothing is ordered.
        return Quality(0.0, 0.0)
    error = float(np.sum((predicted_N - truth_N) ** 2))
    return Quality(1 - error / spread, float(kendalltau(predicted_N, truth_N).statistic))
