"""What a study's trials say, read once each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.samplers.columns import Columns
from nas.samplers.proposer import Evaluated

Array = NDArray[np.float64]
Variances = Callable[[FrozenTrial], Sequence[float]]

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class History:
    """A study as arrays; finished trials never change, so each is read once.

    ``space`` is the union of all trials' parameters, since trials need not have the same. A
    parameter whose distribution changes between trials is left out of it.
    """

    def __init__(self, variances: Variances | None) -> None:
        """Start with nothing read."""
        self._variances = variances
        self._forget()

    def _forget(self) -> None:
        self._study_id: int | None = None
        self._n_objectives = 0
        self._n_settled = 0
        self._read: set[int] = set()
        self._distributions: dict[str, BaseDistribution] = {}
        self._changing: set[str] = set()
        self._complete: list[FrozenTrial] = []
        self._given_up: list[FrozenTrial] = []
        self._running: list[FrozenTrial] = []
        self._columns: Columns | None = None
        self._rows: list[Array] = []
        self._values: list[list[float]] = []
        self._variance: list[Sequence[float]] = []
        self._constraints: list[dict[str, float]] = []

    def read(self, study: Study, current: int) -> None:
        """Take up what is new in ``study``; ``current`` is the trial being asked for."""
        if study._study_id != self._study_id:
            self._forget()
            self._study_id = study._study_id
            self._n_objectives = len(study.directions)
        trials = study.get_trials(deepcopy=False)
        self._running = []
        settled = True
        for index in range(self._n_settled, len(trials)):
            trial = trials[index]
            if trial.number in self._read:
                pass
            elif trial.state in _FINISHED:
                self._read.add(trial.number)
                self._take(trial)
            else:
                settled = False
                if trial.number != current and trial.params:
                    self._learn_space(trial)
                    self._running.append(trial)
            if settled:
                self._n_settled = index + 1
                self._read.discard(trial.number)

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """Every parameter that a trial has had, but those whose distribution changes."""
        return {n: d for n, d in self._distributions.items() if n not in self._changing}

    @property
    def n_complete(self) -> int:
        """Number of trials that can be learnt from."""
        return len(self._complete)

    @property
    def n_pruned(self) -> int:
        """Number of trials that were pruned."""
        return sum(trial.state == TrialState.PRUNED for trial in self._given_up)

    @property
    def complete(self) -> Sequence[FrozenTrial]:
        """Trials that can be learnt from."""
        return self._complete

    @property
    def unfinished(self) -> Sequence[FrozenTrial]:
        """Failed and pruned trials, and those whose values are not finite."""
        return self._given_up

    def evaluated(self, columns: Columns) -> Evaluated:
        """Complete trials, values and variances in the study's units."""
        if self._columns is None or columns.parameters != self._columns.parameters:
            self._columns, self._rows = columns, []
        self._rows += [columns.row(t.params) for t in self._complete[len(self._rows) :]]
        names = sorted({name for values in self._constraints for name in values})
        constraints = [[c.get(name, np.nan) for name in names] for c in self._constraints]
        values = np.array(self._values, dtype=float)
        n = len(self._complete)
        return Evaluated(
            np.array(self._rows).reshape(n, len(columns.parameters)),
            values.reshape(n, self._n_objectives),
            np.array(self._variance, dtype=float).reshape(n, self._n_objectives),
            np.array(constraints, dtype=float).reshape(n, len(names)),
        )

    def running(self, columns: Columns) -> Array:
        """Rows of trials in flight."""
        return _stacked(self._running, columns)

    def given_up(self, columns: Columns) -> Array:
        """Rows of failed and pruned trials, and of those whose values are not finite."""
        return _stacked(self._given_up, columns)

    def _take(self, trial: FrozenTrial) -> None:
        self._learn_space(trial)
        values = trial.values if trial.state == TrialState.COMPLETE else None
        if values is None or not np.isfinite(values).all():
            self._given_up.append(trial)
            return
        self._complete.append(trial)
        self._values.append(list(values))
        given = [0.0] * len(values) if self._variances is None else self._variances(trial)
        self._variance.append(given)
        self._constraints.append(dict(trial.constraints))

    def _learn_space(self, trial: FrozenTrial) -> None:
        for name, distribution in trial.distributions.items():
            if self._distributions.setdefault(name, distribution) != distribution:
                self._changing.add(name)


def _stacked(trials: Sequence[FrozenTrial], columns: Columns) -> Array:
    rows = [columns.row(trial.params) for trial in trials]
    return np.array(rows).reshape(len(rows), len(columns.parameters))
