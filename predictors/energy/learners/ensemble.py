"""The learners whose weighted sum the regressor adds to its prior.

Some learn what the prior leaves of the logarithm of the target. Others learn the target itself,
for tables on which the prior is wrong: a line through few features, and learners of what this line
leaves. All predictions here are relative to the prior, so that they can be mixed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from predictors.energy.learners.line import Line
from predictors.energy.learners.process import Process
from predictors.energy.learners.relevance import RelevanceProcess
from predictors.energy.learners.ridge import QuadraticRidge, Ridge
from predictors.energy.learners.trees import Trees

Array = NDArray[np.float64]


class Learner(Protocol):
    """A learner of one target: a dataclass of arrays; rows are standardised features."""

    def predict(self, rows_NF: Array) -> Array:
        """Return predictions, shape ``(N,)``."""


# The prior alone.
NOTHING = "nothing"
LINE, PROCESS = "line", "process"
# Learners of what the prior leaves, and of what the line leaves.
_ON_PRIOR: dict[str, Any] = {
    "ridge": Ridge,
    "quadratic": QuadraticRidge,
    "trees": Trees,
    PROCESS: Process,
    "relevance": RelevanceProcess,
}
_ON_LINE: dict[str, Any] = {"line-trees": Trees, "line-relevance": RelevanceProcess}
# With more rows the costs of the prior are well determined, and these learners gain nothing.
_MOST_FOR_LINE = 200
LEARNERS: dict[str, Any] = _ON_PRIOR | {LINE: Line} | _ON_LINE


def learner_names(n_rows: int) -> tuple[str, ...]:
    """Return the learners to fit to so many rows."""
    is_needed = n_rows <= _MOST_FOR_LINE
    return tuple(name for name in LEARNERS if is_needed or name not in _ON_LINE)


def builds_on_line(name: str) -> bool:
    """Return whether a learner learns what the line leaves."""
    return name in _ON_LINE


def fit_learners(
    rows_NF: Array,
    log_target_N: Array,
    log_prior_N: Array,
    weight_N: Array,
    seed: int,
    *,
    names: Collection[str] = tuple(LEARNERS),
    near: Mapping[str, Learner] | None = None,
) -> dict[str, Learner]:
    """Fit the learners ``names``, and the line if one of them builds on it.

    ``near`` are learners of almost the same rows, whose hyperparameters are a start.
    """
    near = near or {}
    learners: dict[str, Learner] = {}
    left = log_target_N - log_prior_N
    line_left = np.zeros(0)
    if LINE in names or not _ON_LINE.keys().isdisjoint(names):
        line = Line.fit(rows_NF, log_target_N, weight_N, seed)
        learners[LINE], line_left = line, log_target_N - line.predict(rows_NF)
    for name in names:
        if name == LINE:
            continue
        kind, target = LEARNERS[name], line_left if name in _ON_LINE else left
        if kind is RelevanceProcess:
            start = near.get(name)
            assert start is None or isinstance(start, RelevanceProcess)
            learners[name] = kind.fit(rows_NF, target, weight_N, seed, start)
        else:
            learners[name] = kind.fit(rows_NF, target, weight_N, seed)
    return learners


def parts(learners: Mapping[str, Learner], rows_NF: Array, log_prior_N: Array) -> dict[str, Array]:
    """Return what each learner predicts relative to the prior, each of shape ``(N,)``."""
    found: dict[str, Array] = {}
    if LINE in learners:
        found[LINE] = learners[LINE].predict(rows_NF) - log_prior_N
    for name, learner in learners.items():
        if name != LINE:
            predicted = learner.predict(rows_NF)
            found[name] = predicted + found[LINE] if name in _ON_LINE else predicted
    return found
