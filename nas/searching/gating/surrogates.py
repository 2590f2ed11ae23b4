"""The surrogates of one search: joules, latency and quality of architectures.

Gate, sampler, early stopping and weight sharing predict by the same fitted models. They are
fitted to the search's complete trials, to labels from before it (``WarmStartData``) and to
measurements of untrained architectures (``add_observations``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.searching.gating.architecture_process import MOST_LABELS, ArchitectureProcess
from nas.searching.gating.cost_surrogate import CostSurrogate
from nas.searching.gating.energy_surrogates import EnergySurrogates
from nas.searching.gating.learning_curves import extrapolate
from nas.searching.gating.quality_surrogate import QualitySurrogate
from nas.searching.gating.warm_start_data import QualityLabel, WarmStartData
from predictors.energy.models import CostPredictor, Observation
from predictors.energy.regressor import Predictions
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

Array = NDArray[np.float64]

# Models are fitted to this many trials at most: half of them the newest, which resemble the next
# candidates most, the others evenly from all before.
_MOST_FITTED = 2000
# Largest share of a search's time that fitting takes. Trials of several seconds stay below it.
FIT_SHARE = 0.1
# Confidence of intervals where only the means are used.
_ANY_CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions of a batch; ``quality`` is ``None`` before its surrogate has enough labels."""

    energy_j: Predictions
    quality: Predictions | None


class ArchitectureSurrogates:
    """Surrogates of architectures, fitted to the trials of one search so far."""

    def __init__(
        self,
        workload: Workload,
        *,
        goals: Goals | None = None,
        seed: int,
        warm_start: WarmStartData | None = None,
        fit_share: float | None = None,
        runtimes: Mapping[str, WarmStartData] | None = None,
        choices: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Start without a trial; ``goals`` are quality and joules without a limit by default.

        Fitting takes at most ``fit_share`` of the time since then, plus one fit; ``None`` is no
        limit. In a search with several ``runtimes`` each has prior data of its own and measures
        its ``choices`` of precisions and sparsities; ``warm_start`` then has the qualities.
        """
        self.workload, self.seed = workload, seed
        self.goals = goals or Goals()
        self.warm_start = warm_start or WarmStartData()
        self._complete: list[Trial] = []
        self._energy = EnergySurrogates(
            workload, self.warm_start, seed=seed, further=runtimes, choices=choices
        )
        self._energy_is_due = False
        self._latency: CostSurrogate | None = None
        self._quality = QualitySurrogate(workload)
        #: Number of fits so far.
        self.n_fits = 0
        self._n_fitted = 0
        self._fit_share = fit_share
        self._started_s = time.perf_counter()
        self._fits_s = 0.0
        self._fit_quality(())

    @property
    def complete(self) -> Sequence[Trial]:
        """The complete trials."""
        return self._complete

    @property
    def n_complete(self) -> int:
        """Number of complete trials."""
        return len(self._complete)

    @property
    def n_prior_energy(self) -> int:
        """Number of measurements of joules that are no trials of the search."""
        return self._energy.n_prior

    @property
    def n_prior_both(self) -> int:
        """Number of prior trials that both joules and qualities can be predicted from."""
        return self.warm_start.n_both

    def add_observations(
        self, observations: Sequence[Observation], runtime: str | None = None
    ) -> None:
        """Add joules measured under the search's conditions, of architectures of any kind.

        They are of ``runtime``, by default the only one. The predictor of joules is fitted to
        them when it is used next.
        """
        self._energy.observe(observations, runtime)
        self._energy_is_due |= bool(observations)

    def refit(self, records: Sequence[Trial]) -> None:
        """Learn from all trials; models are refitted once a tenth more are complete.

        They are conditioned on each trial at once.
        """
        before = {record.number for record in self._complete}
        self._complete = [r for r in records if r.state == "complete"]
        if self._is_due:
            self._fit(records)
        else:
            self._condition([r for r in self._complete if r.number not in before])

    def add(self, record: Trial, records: Callable[[], Sequence[Trial]]) -> None:
        """Add one complete trial, as ``refit`` of ``records``, of which it is one.

        ``records`` is called only when the models are fitted again.
        """
        self._complete.append(record)
        if self._is_due:
            self._fit(records())
        else:
            self._condition([record])

    def _condition(self, trials: Sequence[Trial]) -> None:
        """Condition on complete trials; hyperparameters stay."""
        self._quality.add([_quality_label(record) for record in trials])
        self._energy.add(trials)
        if self._latency is not None:
            measured = [(r.architecture, r.reading) for r in trials if r.reading is not None]
            self._latency.add([Observation.of_latency(a, self.workload, r) for a, r in measured])

    @property
    def _is_due(self) -> bool:
        fitted = self._n_fitted + self.n_prior_both
        if self.n_complete - self._n_fitted < max(1, fitted // 10):
            return False
        return self._may_fit

    @property
    def _may_fit(self) -> bool:
        if self._fit_share is None:
            return True
        return self._fits_s <= self._fit_share * (time.perf_counter() - self._started_s)

    def _fit(self, records: Sequence[Trial]) -> None:
        started_s = time.perf_counter()
        self._fit_models(records)
        self.n_fits += 1
        self._fits_s += time.perf_counter() - started_s

    def _fit_models(self, records: Sequence[Trial]) -> None:
        self._n_fitted = self.n_complete
        complete = recent(self._complete)
        self._fit_energy(complete)
        if self.goals.needs_latency:
            labels = [
                Observation.of_latency(r.architecture, self.workload, r.reading)
                for r in complete
                if r.reading is not None
            ]
            predictor = CostPredictor.fit(labels, seed=self.seed)
            self._latency = self._latency or CostSurrogate(self.workload, predictor)
            self._latency.fit(predictor, labels[-MOST_LABELS:])
        self._fit_quality(
            [_quality_label(record) for record in recent(self._complete, MOST_LABELS)]
            + [
                QualityLabel(e.record.architecture, e.quality, e.standard_error)
                for e in extrapolate(recent(records, MOST_LABELS))
            ]
        )

    def _fit_energy(self, complete: Sequence[Trial]) -> None:
        self._energy_is_due = False
        self._energy.fit(complete)

    def _fit_energy_if_due(self) -> None:
        if self._energy_is_due and self._may_fit:
            started_s = time.perf_counter()
            self._fit_energy(recent(self._complete))
            self.n_fits += 1
            self._fits_s += time.perf_counter() - started_s

    def _fit_quality(self, own: Sequence[QualityLabel]) -> None:
        self._quality.fit([*self.warm_start.qualities, *own])

    def energy_j(self, batch: ArchitectureBatch, confidence: float) -> Predictions:
        """Predict joules per unit of the workload, with intervals at ``confidence``."""
        self._fit_energy_if_due()
        return self._energy.predict(batch, confidence)

    def in_runtimes(self, batch: ArchitectureBatch, confidence: float) -> dict[str, Predictions]:
        """Predict joules per unit in each runtime; empty in a search that has one."""
        self._fit_energy_if_due()
        return self._energy.in_runtimes(batch, confidence)

    @property
    def predicts_latency(self) -> bool:
        """Whether latency was measured; before, its intervals are infinite."""
        return self._latency is not None

    def latency_s(self, batch: ArchitectureBatch, confidence: float) -> Predictions:
        """Predict seconds per batch, with intervals at ``confidence``."""
        if self._latency is None:
            zeros = np.zeros(len(batch))
            return Predictions(zeros, zeros, zeros + np.inf, zeros.astype(bool))
        per_unit = self._latency.predict(batch, confidence)
        return per_unit.scaled(self.workload.n_units)

    @property
    def log_error(self) -> ArchitectureProcess:
        """The process of the logarithm of the error rate, conditioned on all labels so far."""
        return self._quality.log_error

    @property
    def log_energy(self) -> ArchitectureProcess | None:
        """The process of the logarithm of joules; ``None`` while the predictor serves alone."""
        self._fit_energy_if_due()
        return self._energy.process

    @property
    def log_latency(self) -> ArchitectureProcess | None:
        """The process of the logarithm of seconds per unit; ``None`` without one."""
        return None if self._latency is None else self._latency.log_cost

    def quality(self, batch: ArchitectureBatch, confidence: float) -> Predictions | None:
        """Predict qualities with intervals; ``None`` before there are enough labels."""
        return self._quality.predict(batch, confidence)

    def predict(self, batch: ArchitectureBatch, confidence: float) -> Predicted:
        """Predict joules and quality of a batch, with intervals at ``confidence``."""
        return Predicted(self.energy_j(batch, confidence), self.quality(batch, confidence))

    def energies_j(self, records: Sequence[Trial]) -> dict[int, float]:
        """Joules per sample by trial: measured, else predicted by the models as they are now.

        Predictions made when the trials started would not compare with each other.
        """
        energies_j = {r.number: r.reading.energy_j for r in records if r.reading is not None}
        unmeasured = [record for record in records if record.reading is None]
        if unmeasured:
            batch = ArchitectureBatch.of([record.architecture for record in unmeasured])
            predicted = self.energy_j(batch, _ANY_CONFIDENCE).mean
            energies_j |= {r.number: float(j) for r, j in zip(unmeasured, predicted, strict=True)}
        return energies_j


def _quality_label(record: Trial) -> QualityLabel:
    return QualityLabel(record.architecture, record.objectives[0], record.quality_se or 0.0)


def recent(records: Sequence[Trial], most: int = _MOST_FITTED) -> list[Trial]:
    """The trials that models are fitted to, in their order."""
    if len(records) <= most:
        return list(records)
    newest = most // 2
    before = np.linspace(0, len(records) - newest - 1, most - newest).astype(int)
    return [records[int(index)] for index in before] + list(records[-newest:])
