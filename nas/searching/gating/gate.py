"""The gate: drop a candidate before it costs training, at a stated confidence.

Quality and joules of a candidate are predicted with intervals. The candidate is dropped if
P(Pareto) is below ``1 - confidence``, or if even its optimistic joules or latency break a limit.
The front consists of measured trials, without their labels' noise, and of predicted points:
unevaluated members of the space (``CandidatePool``) at pessimistic predictions. A search that may
still evaluate those should not train what they dominate. An audit evaluates a stated share of the
dropped candidates all the same; ``audit_summary`` estimates the false-drop rate from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core.estimate import Estimate
from nas.pareto.uncertainty import NoisyFront, near_front, smoothed, true_deviations
from nas.records.config import GateConfig
from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.searching.gating.learning_curves import extrapolate
from nas.searching.gating.noisy_losses import label_deviations, log_losses, log_predictions
from nas.searching.gating.quality_surrogate import QualitySurrogate
from nas.searching.gating.warm_start_data import QualityLabel, WarmStartData
from predictors.energy.models import CostPredictor, Observation
from predictors.energy.regressor import Predictions
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector
from search_spaces.space.sampling import sample_positions
from search_spaces.workload import Workload

Array = NDArray[np.float64]

_NO_LOSSES = np.empty((0, 2)), np.empty((0, 2))
# Models are fitted to this many trials at most: half of them the newest, which resemble the next
# candidates most, the others evenly from all before.
_MOST_FITTED = 2000
# Largest share of a search's time that fitting takes. Trials of several seconds stay below it.
FIT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The gate's decision on one candidate; ``reason`` is ``None`` where it passes."""

    energy_j: Estimate
    reason: str | None
    audit: bool = False


@dataclass(frozen=True)
class CandidatePool:
    """Unevaluated members of a space: all as one batch, and one by one by ``member``."""

    batch: ArchitectureBatch
    member: Callable[[int], Architecture]

    @classmethod
    def sample(
        cls,
        space: SearchSpace,
        seed: int,
        n: int = 2000,
        *,
        allows: Callable[[ArchitectureBatch], NDArray[np.bool_]] | None = None,
    ) -> CandidatePool:
        """Sample up to ``n`` distinct members uniformly, and leave out those not in ``allows``."""
        drawn = sample_positions(space, n, np.random.default_rng([seed, n]))
        positions = np.unique(drawn, axis=0)
        batch = ArchitectureBatch.from_positions(positions, space)
        if allows is not None:
            positions = positions[allows(batch)]
            batch = ArchitectureBatch.from_positions(positions, space)
        return cls(batch, lambda index: from_vector(positions[index], space))


@dataclass(frozen=True)
class _Rivals:
    """What candidates are judged against: log losses without the errors of labels.

    ``mean`` and ``sd``, shape ``(F, 2)``, are of measured trials that are or may be on the front;
    ``front`` contains the predicted points as well. ``noise`` are the usual deviations of labels.
    """

    mean: Array
    sd: Array
    noise: Array
    front: NoisyFront


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """False drops among ``n_dropped + n_audited`` rejected candidates.

    ``false_drop_rate`` is the share of audited candidates that are on the front, with its exact
    95% binomial interval; ``None`` where none was audited.
    """

    n_dropped: int
    n_audited: int
    n_false: int
    false_drop_rate: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        rate = self.false_drop_rate
        return {
            "n_dropped": self.n_dropped,
            "n_audited": self.n_audited,
            "n_false": self.n_false,
            "false_drop_rate": None if rate is None else rate.mean,
            "low": None if rate is None else rate.low,
            "high": None if rate is None else rate.high,
        }


class Gate:
    """Decides on candidates by surrogates that are fitted to the search's trials so far."""

    def __init__(
        self,
        workload: Workload,
        config: GateConfig,
        *,
        goals: Goals | None = None,
        seed: int,
        warm_start: WarmStartData | None = None,
        pool: CandidatePool | None = None,
        fit_share: float | None = None,
    ) -> None:
        """Start without a trial; ``goals`` are quality and joules without a limit by default.

        Fitting takes at most ``fit_share`` of the time since then, plus one fit; ``None`` is no
        limit.
        """
        self._workload = workload
        self._config = config
        self._goals = goals or Goals()
        self._seed = seed
        self._warm_start = warm_start or WarmStartData()
        self._energy = self._warm_start.predictor((), seed=seed)
        self._latency: CostPredictor | None = None
        self._quality = QualitySurrogate(workload)
        self._pool = pool
        self._front: list[Trial] = []
        self._measured: list[Trial] = []
        self._rivals: _Rivals | None = None
        self._noise: Array | None = None
        self._smoothed: dict[int, Array] = {}
        self._pool_losses = _NO_LOSSES
        self._n_complete = 0
        self._n_fitted = 0
        self._fit_share = fit_share
        self._started_s = time.perf_counter()
        self._fits_s = 0.0
        self._fit_quality(())

    @property
    def front_numbers(self) -> frozenset[int]:
        """Numbers of the trials on the measured front."""
        return frozenset(member.number for member in self._front)

    def refit(self, records: Sequence[Trial]) -> None:
        """Learn from all trials; models are refitted once a tenth more are complete."""
        complete = [r for r in records if r.state == "complete"]
        self._n_complete = len(complete)
        self._front = self._goals.front(complete)
        self._reset_rivals(complete)
        if self._is_due:
            self._fit(complete, records)

    def add(self, record: Trial, records: Callable[[], Sequence[Trial]]) -> None:
        """Add one complete trial, as ``refit`` of ``records``, of which it is one.

        ``records`` is called only when the models are fitted again.
        """
        self._n_complete += 1
        # A dominated trial stays dominated, so the front suffices.
        self._front = self._goals.front([*self._front, record])
        self._measured, self._rivals = self._goals.feasible([*self._measured, record]), None
        if self._is_due:
            trials = records()
            self._fit([r for r in trials if r.state == "complete"], trials)

    @property
    def _is_due(self) -> bool:
        fitted = self._n_fitted + self._warm_start.n_both
        if self._n_complete - self._n_fitted < max(1, fitted // 10):
            return False
        if self._fit_share is None:
            return True
        return self._fits_s <= self._fit_share * (time.perf_counter() - self._started_s)

    def _fit(self, complete: Sequence[Trial], records: Sequence[Trial]) -> None:
        started_s = time.perf_counter()
        self._fit_models(complete, records)
        self._fits_s += time.perf_counter() - started_s

    def _fit_models(self, complete: Sequence[Trial], records: Sequence[Trial]) -> None:
        self._n_fitted = len(complete)
        self._reset_rivals(complete)
        complete, records = _recent(complete), _recent(records)
        readings = [(r.architecture, r.reading) for r in complete if r.reading is not None]
        self._energy = self._warm_start.predictor(
            [Observation.of_energy(a, self._workload, reading) for a, reading in readings],
            seed=self._seed,
        )
        if self._goals.needs_latency:
            self._latency = CostPredictor.fit(
                [Observation.of_latency(a, self._workload, reading) for a, reading in readings],
                seed=self._seed,
            )
        self._fit_quality(
            [QualityLabel(r.architecture, r.objectives[0], r.quality_se or 0.0) for r in complete]
            + [
                QualityLabel(e.record.architecture, e.quality, e.standard_error)
                for e in extrapolate(records)
            ]
        )

    def _fit_quality(self, own: Sequence[QualityLabel]) -> None:
        rows = [*self._warm_start.qualities, *own]
        self._quality.fit(
            [row.architecture for row in rows],
            [row.quality for row in rows],
            [row.standard_error for row in rows],
        )
        self._pool_losses = _NO_LOSSES
        if self._pool is None:
            return
        confidence = self._config.confidence
        quality = self._quality.predict(self._pool.batch, confidence)
        if quality is not None:
            energy_j = self._energy_j(self._pool.batch)
            usable = quality.in_range & energy_j.in_range
            if self._goals.max_latency_s is not None:
                usable &= self._latency_s(self._pool.batch).high <= self._goals.max_latency_s
            mean, sd = log_predictions(quality, energy_j, confidence)
            self._pool_losses = mean[usable], sd[usable]

    def energies_j(self, records: Sequence[Trial]) -> dict[int, float]:
        """Joules per sample by trial: measured, else predicted by the models as they are now.

        Predictions made when the trials started would not compare with each other.
        """
        energies_j = {r.number: r.reading.energy_j for r in records if r.reading is not None}
        unmeasured = [record for record in records if record.reading is None]
        if unmeasured:
            batch = ArchitectureBatch.of([record.architecture for record in unmeasured])
            predicted = self._energy_j(batch).mean
            energies_j |= {r.number: float(j) for r, j in zip(unmeasured, predicted, strict=True)}
        return energies_j

    def judge(self, architecture: Architecture) -> GateDecision:
        """Decide whether to train ``architecture``."""
        batch = ArchitectureBatch.of([architecture])
        energy_j = self._energy_j(batch)
        reason = self._reason(batch, energy_j)
        audit = reason is not None and self._is_audited(architecture)
        return GateDecision(energy_j[0], reason, audit)

    def _reason(self, batch: ArchitectureBatch, energy_j: Predictions) -> str | None:
        least = self._config.startup_trials - self._n_complete
        if self._warm_start.n_energy < least:
            return None
        low_j = float(energy_j.low[0])
        most_j, most_s = self._goals.max_joules, self._goals.max_latency_s
        if most_j is not None and low_j > most_j:
            return f"at least {low_j:.3g} J predicted, budget {most_j:.3g} J"
        if most_s is not None and self._latency is not None and self._n_complete >= least:
            low_s = float(self._latency_s(batch).low[0])
            if low_s > most_s:
                return f"at least {low_s:.3g} s latency predicted, limit {most_s:.3g} s"
        if self._warm_start.n_both < least:
            return None
        quality = self._quality.predict(batch, self._config.confidence)
        if quality is None or not self._front:
            return None
        probability = float(self._front_probabilities(batch, quality, energy_j)[0])
        if probability >= 1 - self._config.confidence:
            return None
        return (
            f"{probability:.1%} likely to be on the front: "
            f"{float(quality.mean[0]):.3f} quality and {float(energy_j.mean[0]):.3g} J predicted"
        )

    def front_probabilities(
        self, architectures: Sequence[Architecture] | ArchitectureBatch
    ) -> Array | None:
        """P(Pareto) of each, ``(N,)``; ``None`` before there are models and a front."""
        batch = architectures
        if not isinstance(batch, ArchitectureBatch):
            batch = ArchitectureBatch.of(batch)
        quality = self._quality.predict(batch, self._config.confidence)
        if quality is None or not self._front:
            return None
        return self._front_probabilities(batch, quality, self._energy_j(batch))

    def suggest(self, exclude: Container[str]) -> Architecture | None:
        """The pool's member of greatest P(Pareto) whose hash is not in ``exclude``.

        ``None`` where there is none, or before there are models and a front.
        """
        if self._pool is None:
            return None
        probabilities = self.front_probabilities(self._pool.batch)
        if probabilities is None:
            return None
        for index in np.argsort(-probabilities, kind="stable"):
            member = self._pool.member(int(index))
            if member.hash not in exclude:
                return member
        return None

    def _front_probabilities(
        self, batch: ArchitectureBatch, quality: Predictions, energy_j: Predictions
    ) -> Array:
        """P(Pareto) of true values; both predictions are at the configured confidence."""
        if self._rivals is None:
            self._rivals = self._fresh_rivals()
        rivals = self._rivals
        mean_N2, label_sd_N2 = log_predictions(quality, energy_j, self._config.confidence)
        sd_N2 = true_deviations(label_sd_N2, rivals.noise)
        if not self._goals.costs:
            return rivals.front.probabilities(mean_N2, sd_N2)
        found = np.ones(len(batch))
        # Only members that are no worse in every further objective can dominate. Predicted points
        # have no costs that could be compared, and are left out.
        for index, may_dominate in enumerate(self._no_worse(batch)):
            one = slice(index, index + 1)
            front = NoisyFront(rivals.mean[may_dominate], rivals.sd[may_dominate])
            found[one] = front.probabilities(mean_N2[one], sd_N2[one])
        return found

    def _reset_rivals(self, complete: Sequence[Trial]) -> None:
        """Compare candidates with these trials, or recent ones and the front of many."""
        by_number = {r.number: r for r in (*self._goals.feasible(_recent(complete)), *self._front)}
        self._measured, self._rivals, self._noise = list(by_number.values()), None, None
        self._smoothed.clear()

    def _fresh_rivals(self) -> _Rivals:
        """Return what candidates are judged against, by the models as they are now."""
        if self._noise is None:
            self._noise = np.median(label_deviations(self._measured), axis=0)
        noise = self._noise
        trials = self._front if self._goals.costs else self._measured
        self._smooth([trial for trial in trials if trial.number not in self._smoothed])
        rows = np.array([self._smoothed[trial.number] for trial in trials])
        mean, sd = rows[:, 0], rows[:, 1]
        if not self._goals.costs:
            # Certainly dominated trials are left out until the models are fitted again.
            is_near = near_front(mean, sd)
            self._measured = [r for r, near in zip(trials, is_near, strict=True) if near]
            mean, sd = mean[is_near], sd[is_near]
        # The front of many predictions is optimistic, so each is taken one deviation worse.
        pool_mean, pool_label_sd = self._pool_losses
        points = pool_mean + true_deviations(pool_label_sd, noise)
        front = NoisyFront(np.vstack([mean, points]), np.vstack([sd, np.zeros_like(points)]))
        return _Rivals(mean, sd, noise, front)

    def _smooth(self, trials: Sequence[Trial]) -> None:
        """Compute log losses without the errors of labels, with deviations, by trial."""
        if not trials:
            return
        batch = ArchitectureBatch.of([trial.architecture for trial in trials])
        quality = self._quality.predict(batch, self._config.confidence)
        assert quality is not None
        predicted, label_sd = log_predictions(
            quality, self._energy_j(batch), self._config.confidence
        )
        labels = log_losses(np.array([trial.objectives for trial in trials]))
        mean, sd = smoothed(labels, label_deviations(trials), predicted, label_sd)
        # Trials whose joules were not measured have predictions only.
        is_label = np.array([[True, trial.reading is not None] for trial in trials])
        mean, sd = np.where(is_label, mean, predicted), np.where(is_label, sd, label_sd)
        for trial, row in zip(trials, np.stack([mean, sd], axis=1), strict=True):
            self._smoothed[trial.number] = row

    def _no_worse(self, batch: ArchitectureBatch) -> NDArray[np.bool_]:
        """Which members of the front are no worse in further objectives than each candidate.

        Shape ``(N, F)``; where a candidate's cost is predicted, it is taken at its optimistic end.
        """
        costs = self._goals.costs
        members = np.array([self._goals.values(member)[2:] for member in self._front])
        counted = self._goals.counted(batch, self._workload)
        found = np.ones((len(batch), len(members)), dtype=bool)
        for column, cost in enumerate(costs):
            candidates = counted.get(cost)
            if candidates is None:
                candidates = self._latency_s(batch).low
            found &= members[None, :, column] <= candidates[:, None]
        return found

    def _energy_j(self, batch: ArchitectureBatch) -> Predictions:
        """Joules per unit, at the configured confidence."""
        return self._energy.predict(batch, self._workload, self._config.confidence)

    def _latency_s(self, batch: ArchitectureBatch) -> Predictions:
        """Seconds per batch, at the configured confidence."""
        if self._latency is None:
            zeros = np.zeros(len(batch))
            return Predictions(zeros, zeros, zeros + np.inf, zeros.astype(bool))
        per_unit = self._latency.predict(batch, self._workload, self._config.confidence)
        return per_unit.scaled(self._workload.n_units)

    def _is_audited(self, architecture: Architecture) -> bool:
        # Drawn from seed and hash, so that a resumed search audits the same candidates.
        rng = np.random.default_rng([self._seed, int(architecture.hash, 16)])
        return bool(rng.random() < self._config.audit_share)


def _recent(records: Sequence[Trial]) -> list[Trial]:
    """The trials that models are fitted to, in their order."""
    if len(records) <= _MOST_FITTED:
        return list(records)
    newest = _MOST_FITTED // 2
    before = np.linspace(0, len(records) - newest - 1, _MOST_FITTED - newest).astype(int)
    return [records[int(index)] for index in before] + list(records[-newest:])


def audit_summary(records: Sequence[Trial], goals: Goals | None = None) -> AuditSummary:
    """The gate's false-drop rate in the records of a search."""
    # The gate does not decide on finalists.
    complete = [r for r in records if r.state == "complete" and r.finalist_of is None]
    n_audited = sum(r.audit for r in complete)
    n_dropped = sum(r.state == "dropped" for r in records)
    n_false = sum(r.audit for r in (goals or Goals()).front(complete)) if n_audited else 0
    rate = Estimate.of_share(n_false, n_audited) if n_audited else None
    return AuditSummary(n_dropped, n_audited, n_false, rate)
