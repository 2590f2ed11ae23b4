"""Calibrate the predictor of joules: measure untrained architectures beside the first trainings.

Joules need no training. A search therefore measures a few architectures with random weights, which
fill its space, and fits the predictor to them before it chooses what to train. A fixed reference
is measured between them and later between trials: how its medians differ is the repeatability of
the device (``predictors.labels.repeatability``). All labels go to the user's cache of the device,
so that the next search under the same conditions starts with them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.names import first_line
from nas.core.plain import to_plain
from nas.core.retry import AwayError
from nas.records.config import SearchConfig
from nas.records.trial import Trial
from nas.searching.calibration.held_out import held_out_errors
from nas.searching.calibration.labels import Labels
from nas.searching.gating.prior_run import Conditions
from predictors.campaign.plan import reference_architecture
from predictors.energy.active import first_rows
from predictors.energy.features import counted
from predictors.energy.models import Observation
from predictors.labels.cache import Label
from predictors.labels.repeatability import Repeatability
from predictors.measurement.process import MeasureError
from predictors.measurement.records import EnergyRecord, append_records, read_records
from predictors.meters.base import MeterError
from search_spaces.architecture import Architecture
from search_spaces.cost.kernels import kernel_fault
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector
from search_spaces.space.sampling import sample_positions

# Untrained architectures that are measured at least and at most.
LEAST, MOST = 12, 24
# Between them measuring goes on until the held-out error is at most this, or at most so many
# times the labels' own repeatability.
GOAL_ERROR, GOAL_TIMES_REPEATABILITY = 0.10, 1.5
# A search of fewer trials ends before its predictor pays.
LEAST_TRIALS = 16
# Share of a search's expected joules above which calibration ends, and the architectures that are
# measured before a trial has shown what trials take. Where training costs no more than measuring,
# trials are labels as cheap as untrained architectures.
SHARE, FIRST = 0.1, 4
# The reference is measured before each block of so many measurements.
_BLOCK = 8
# Growth of the labels after which the predictor is judged again.
_MORE = 1.25
# Members drawn from the space to choose from.
_POOL = 1000
# Seconds that the end of a search waits for the measurement that runs.
_CLOSING_S = 5.0
# Failures in a row after which no more is measured: the cause is not the architectures.
_MOST_FAILURES = 3


@dataclass(frozen=True, slots=True)
class CalibrationState:
    """Progress of a calibration.

    ``n_cached`` members of the space have labels from earlier sessions. ``n_measured`` untrained
    ones were measured in this one, for ``spent_energy_j`` with references. ``error`` is the median
    relative error of predictions of held-out labels, ``None`` with fewer than ``LEAST``;
    ``is_done`` once it is known, or after a ``failure``.
    """

    n_cached: int
    n_measured: int
    n_references: int
    error: float | None
    repeatability: Repeatability
    is_done: bool = False
    spent_energy_j: float = 0.0
    failure: str | None = None

    @property
    def n_labels(self) -> int:
        """Members of the space with labels."""
        return self.n_cached + self.n_measured

    @classmethod
    def of_runtimes(cls, states: Sequence[CalibrationState]) -> CalibrationState:
        """Return sums over the runtimes of a search, with the worst error and repeatability."""
        if len(states) == 1:
            return states[0]
        errors = [state.error for state in states if state.error is not None]
        return cls(
            sum(state.n_cached for state in states),
            sum(state.n_measured for state in states),
            sum(state.n_references for state in states),
            max(errors) if len(errors) == len(states) else None,
            max((state.repeatability for state in states), key=lambda each: each.sd),
            all(state.is_done for state in states),
            sum(state.spent_energy_j for state in states),
            next((state.failure for state in states if state.failure is not None), None),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    def describe(self) -> str:
        """Return one line for a user."""
        labels = f"{self.n_labels} labels"
        if self.n_cached:
            labels += f" ({self.n_cached} from earlier searches)"
        error = "" if self.error is None else f", median error {self.error:.1%} on held-out labels"
        failure = "" if self.failure is None else f"; ended early: {self.failure}"
        return f"calibration: {labels}{error}; {self.repeatability.describe()}{failure}"


class Calibration:
    """Measurements of untrained architectures and of the reference, in order.

    ``measure`` measures an architecture with random weights. Records are appended to ``path``, in
    the run directory, before they count.
    """

    def __init__(
        self,
        labels: Labels,
        space: SearchSpace,
        measure: Callable[[Architecture], EnergyRecord],
        path: Path,
        *,
        device: str,
        seed: int,
        n: int | None = None,
        trials: int | None = None,
    ) -> None:
        """``n`` architectures are measured, as many as pay by default.

        In a search of so many ``trials`` it ends before it exceeds its ``SHARE`` of the joules.
        """
        self._labels, self._space, self._measure, self._path = labels, space, measure, path
        self._device, self._seed, self._n = device, seed, n
        self._workload = labels.conditions.workload
        self._reference = reference_architecture(self._workload, device)
        self._chosen: deque[Architecture] = deque()
        cached = [label.architecture for label in labels.all() if not label.is_reference]
        members = {a.hash: a for a in cached}.values()
        self._n_cached = sum(space.contains(member) for member in members)
        self._trials, self._trials_j = trials, list[float]()
        self._n_measured = self._n_references = self._n_since_reference = 0
        self._is_planned = False
        self._spent_j = spent_in(path, labels.runtime)
        #: Largest share of the search's joules.
        self.share = SHARE
        self._failures = 0
        self._failure: str | None = None
        self._error: float | None = None
        self._n_judged = 0
        self._new: list[Label] = []
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def state(self) -> CalibrationState:
        """The progress so far."""
        return CalibrationState(
            self._n_cached,
            self._n_measured,
            self._n_references,
            self._error,
            self._labels.repeatability(),
            self._error is not None or self._failure is not None,
            self._spent_j,
            self._failure,
        )

    def take(self) -> list[Observation]:
        """Return the new labels of untrained members since the last call."""
        with self._lock:
            new, self._new = self._new, []
        return [Observation.of_energy(n.architecture, self._workload, n.reading) for n in new]

    def advance(self) -> None:
        """Measure all that is due; ``BackgroundCalibration`` does so in its thread instead."""
        while self.step():
            pass

    def close(self) -> None:
        """Measure nothing more."""
        self._is_closed = True

    def add_trial(self, trial: Trial) -> None:
        """Add the measurement of a trained candidate to the labels, and what the trial cost."""
        if trial.state == "complete":
            self._trials_j.append(trial.spent.energy_j)
        for reading in trial.in_runtimes.values():
            conditions = Conditions.of(reading, self._workload)
            if conditions == self._labels.conditions:
                self._labels.add(
                    Label(trial.architecture, reading, self._labels.session, weights="trained")
                )
                self._n_since_reference += 1

    def step(self) -> bool:
        """Measure one architecture; return ``False`` if none is due."""
        if self._failure is not None:
            return False
        if not self._is_planned:
            self._plan()
        if self._error is None:
            self._update_error()
        if self._n_references and not self._is_affordable:
            return False
        if not self._n_references or self._n_since_reference >= _BLOCK:
            self._n_since_reference = 0
            return self._take(self._reference, is_reference=True)
        if not self._chosen:
            self._extend()
        if not self._chosen:
            return False
        self._n_since_reference += 1
        return self._take(self._chosen.popleft(), is_reference=False)

    @property
    def _is_affordable(self) -> bool:
        """Whether another measurement keeps to the calibration's share of the search's joules."""
        if self._trials is None:
            return True
        n = self._n_measured + self._n_references
        if not self._trials_j:
            return n <= FIRST
        expected_j = self._trials * sum(self._trials_j) / len(self._trials_j)
        return self._spent_j * (1 + 1 / max(1, n)) <= self.share * expected_j

    def _plan(self) -> None:
        self._is_planned = True
        if self._n_cached >= LEAST:
            self._update_error()
        self._choose(self._wanted(LEAST) - self._n_cached)

    def _wanted(self, n: int) -> int:
        return n if self._n is None else self._n

    def _extend(self) -> None:
        """Choose more architectures while the predictor's error is too large."""
        n = self._n_cached + self._n_measured
        if self._n is not None or n >= MOST:
            return
        self._update_error()
        if self._error is None:
            return
        goal = max(GOAL_ERROR, GOAL_TIMES_REPEATABILITY * self._labels.repeatability().sd)
        if self._error > goal:
            self._choose(min(4, MOST - n))

    def _update_error(self) -> None:
        """Judge the predictor again if there are enough new labels: this takes a second."""
        observations = self._labels.observations()
        if len(observations) >= max(LEAST, _MORE * self._n_judged):
            self._n_judged = len(observations)
            self._error = float(np.median(held_out_errors(observations, seed=self._seed)))

    def _choose(self, n: int) -> None:
        """Choose up to ``n`` members that fill the space together with the measured ones."""
        if n < 1:
            return
        labels = [label for label in self._labels.all() if not label.is_reference]
        measured = {label.architecture.hash: label.architecture for label in labels}
        drawn = sample_positions(self._space, _POOL, np.random.default_rng([self._seed, 7]))
        pool = {}
        for row in np.unique(drawn, axis=0):
            member = from_vector(row, self._space)
            if member.hash not in measured and kernel_fault(member, self._device) is None:
                pool[member.hash] = member
        if not pool:
            return
        members = [*measured.values(), *pool.values()]
        _, features = counted(ArchitectureBatch.of(members), self._workload, self._device)
        chosen = first_rows(features, min(n, len(pool)), measured=range(len(measured)))
        self._chosen.extend(members[row] for row in chosen.rows)

    def _take(self, architecture: Architecture, *, is_reference: bool) -> bool:
        try:
            record = self._measure(architecture)
            if self._is_closed:
                # The search ended meanwhile, and another one may write to the run.
                return False
            append_records(self._path, [record])
        except (MeasureError, MeterError, AwayError, OSError) as error:
            self._failures += 1
            if is_reference or self._failures >= _MOST_FAILURES:
                self._failure = first_line(error)
            return self._failure is None
        self._failures = 0
        self._spent_j += record.spent_energy_j
        label = Label(
            architecture, record.reading, self._labels.session, is_reference=is_reference
        )
        self._labels.add(label)
        self._n_references += is_reference
        self._n_measured += not is_reference
        if not is_reference:
            with self._lock:
                self._new.append(label)
        return True


class BackgroundCalibration(Calibration):
    """Calibration that measures in a thread of its own, until ``close``."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """See ``Calibration``."""
        super().__init__(*arguments, **named)
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def advance(self) -> None:
        """Start the thread, or let it look again whether a measurement is due."""
        self._wake.set()
        if self._thread is None:
            run = copy_context().run
            self._thread = threading.Thread(
                target=run, args=(self._run,), name="joulenas-calibration", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Start no other measurement, and wait some seconds for the one that runs."""
        super().close()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_CLOSING_S)

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.clear()
            try:
                while not self._is_closed and self.step():
                    pass
            except Exception as error:
                # A search goes on without its calibration; the state says why.
                self._failure = first_line(error)
            self._wake.wait()


def spent_in(path: Path, runtime: str | None = None) -> float:
    """Return the joules that a run's calibration took, 0 without one.

    ``runtime`` selects the measurements in one of several.

    Raises:
        ValueError: a line of the file is not a record.
    """
    if not path.is_file():
        return 0.0
    return sum(
        record.spent_energy_j
        for record in read_records(path).records
        if runtime in (None, record.reading.runtime)
    )


def pays(config: SearchConfig) -> bool:
    """Return whether a search calibrates: a short one ends before its predictor pays."""
    return config.calibration and config.trials >= LEAST_TRIALS
