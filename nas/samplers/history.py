"""Trials of an Optuna study as arrays; each finished trial is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.samplers.columns import Columns
from nas.samplers.evaluated import Evaluated

Array = NDArray[np.float64]
Variances = Callable[[FrozenTrial], Sequence[float]]

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class GrowingArray:
    """Array to which rows are appended in amortised constant time."""

    def __init__(self) -> None:
        """Create an empty array."""
        self._array: Array | None = None
        self._n = 0

    def __len__(self) -> int:
        """Number of rows."""
        return self._n

    def extend(self, rows: Iterable[Array]) -> None:
        """Append ``rows``, each of shape ``(P,)``."""
        for row in rows:
            if self._array is None:
                self._array = np.empty((64, len(row)))
            elif self._n == len(self._array):
                self._array = np.vstack([self._array, np.empty_like(self._array)])
            self._array[self._n] = row
            self._n += 1

    def array(self, width: int) -> Array:
        """Return all rows, ``(N, width)``, which callers must not modify."""
        return np.empty((0, width)) if self._array is None else self._array[: self._n]


class History:
    """Trials of a study as arrays; finished trials never change, so each is read once.

    ``space`` is the union of all trials' parameters, except those whose distribution differs
    between trials. ``complete`` contains the complete trials with finite values, ``unfinished``
    the failed and pruned (``n_pruned``) trials and those with values that are not finite.
    """

    def __init__(self, variances: Variances | None) -> None:
        """Create an empty history; ``variances`` returns those of a trial's values."""
        self._variances = variances
        self._reset()

    def _reset(self) -> None:
        self._study: Study | None = None
        self._n_objectives = 0
        self._n_settled = 0
        self._read: set[int] = set()
        self._distributions: dict[str, BaseDistribution] = {}
        self._changing: set[str] = set()
        self.complete: list[FrozenTrial] = []
        self.unfinished: list[FrozenTrial] = []
        self.running_trials: list[FrozenTrial] = []
        self._columns: Columns | None = None
        self.n_pruned = 0
        # Rows of running trials by number, ``None`` until first used.
        self._running_rows: dict[int, Array | None] = {}
        self._rows = GrowingArray()
        self._unfinished_rows = GrowingArray()
        self._values = GrowingArray()
        self._variance = GrowingArray()
        self._constraints: list[dict[str, float]] = []
        self._constraint_names: set[str] = set()

    def read(self, study: Study, current: int) -> None:
        """Read the new trials of ``study``; ``current`` is the number of the trial to sample."""
        if study is not self._study:
            self._reset()
            self._study = study
            self._n_objectives = len(study.directions)
        trials = study.get_trials(deepcopy=False)
        self.running_trials = []
        settled = True
        for index in range(self._n_settled, len(trials)):
            trial = trials[index]
            if trial.number in self._read:
                pass
            elif trial.state in _FINISHED:
                self._read.add(trial.number)
                self._running_rows.pop(trial.number, None)
                self._add(trial)
            else:
                settled = False
                if trial.number != current and trial.params:
                    if trial.number not in self._running_rows:
                        # Once for each trial: a thousand may be running.
                        self._extend_space(trial)
                        self._running_rows[trial.number] = None
                    self.running_trials.append(trial)
            if settled:
                self._n_settled = index + 1
                self._read.discard(trial.number)

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """Search space: all parameters whose distribution is the same in every trial."""
        return {n: d for n, d in self._distributions.items() if n not in self._changing}

    @property
    def constraint_names(self) -> list[str]:
        """Names of the constraints, in the order of their columns."""
        return sorted(self._constraint_names)

    def evaluated(self, columns: Columns) -> Evaluated:
        """Return the complete trials, with values and variances in the study's units."""
        self._use_columns(columns)
        n = len(self.complete)
        names = self.constraint_names
        constraints = [[c.get(x, np.nan) for x in names] for c in self._constraints if names]
        self._rows.extend(columns.row(t.params) for t in self.complete[len(self._rows) :])
        return Evaluated(
            self._rows.array(len(columns.parameters)),
            self._values.array(self._n_objectives),
            self._variance.array(self._n_objectives),
            np.array(constraints, dtype=float).reshape(n, len(names)),
        )

    def running(self, columns: Columns) -> Array:
        """Return the rows of running trials."""
        self._use_columns(columns)
        rows = []
        for trial in self.running_trials:
            row = self._running_rows[trial.number]
            if row is None:
                row = self._running_rows[trial.number] = columns.row(trial.params)
            rows.append(row)
        return np.array(rows).reshape(len(rows), len(columns.parameters))

    def unfinished_rows(self, columns: Columns) -> Array:
        """Return the rows of unfinished trials."""
        self._use_columns(columns)
        rows = self._unfinished_rows
        rows.extend(columns.row(t.params) for t in self.unfinished[len(rows) :])
        return rows.array(len(columns.parameters))

    def _use_columns(self, columns: Columns) -> None:
        """Drop cached rows if ``columns`` differ from the last ones."""
        if self._columns is None or columns.parameters != self._columns.parameters:
            self._columns = columns
            self._rows, self._unfinished_rows = GrowingArray(), GrowingArray()
            self._running_rows = dict.fromkeys(self._running_rows)

    def _add(self, trial: FrozenTrial) -> None:
        self._extend_space(trial)
        values = trial.values if trial.state == TrialState.COMPLETE else None
        if values is None or not np.isfinite(values).all():
            self.unfinished.append(trial)
            self.n_pruned += trial.state == TrialState.PRUNED
            return
        self.complete.append(trial)
        self._values.extend([np.array(values)])
        variances = [0.0] * len(values) if self._variances is None else self._variances(trial)
        self._variance.extend([np.array(variances)])
        self._constraints.append(dict(trial.constraints))
        self._constraint_names.update(trial.constraints)

    def _extend_space(self, trial: FrozenTrial) -> None:
        for name, distribution in trial.distributions.items():
            if self._distributions.setdefault(name, distribution) != distribution:
                self._changing.add(name)
