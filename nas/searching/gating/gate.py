"""The gate: drop a candidate before it costs training, at a stated confidence.

Quality and joules of a candidate are predicted with intervals. The candidate is dropped if
P(Pareto) is below ``1 - confidence``, or if even its optimistic joules or latency break a limit.
The front consists of measured trials and of predicted points: unevaluated members of the space
(``CandidatePool``) at pessimistic predictions, and the warm start's trials. A search that may
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
from nas.pareto.uncertainty import exact_front_probabilities
from nas.records.config import GateConfig
from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.searching.gating.learning_curves import extrapolate
from nas.searching.gating.pruning import Pruning, Verdict
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

# Keeps the logarithm of an error rate finite at a quality of 1.
_LEAST_ERROR = 1e-12
_ONE_DEVIATION = 0.683
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
    verdict: Verdict = Verdict.KEPT


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
        pruning: Pruning | None = None,
    ) -> None:
        """Start without a trial; ``goals`` are quality and joules without a limit by default.

        Fitting takes at most ``fit_share`` of the time since then, plus one fit; ``None`` is no
        limit. The gate decides on the candidates of ``pruning``.
        """
        self.pruning = pruning
        if pruning is not None:
            pruning.judge = self.verdicts
        self._workload = workload
        self._config = config
        self._goals = goals or Goals()
        self._seed = seed
        self._warm_start = warm_start or WarmStartData()
        self._own: list[Observation] = []
        self._energy = self._warm_start.predictor((), seed=seed)
        self._latency: CostPredictor | None = None
        self._quality = QualitySurrogate(workload)
        self._pool = pool
        self._front: list[Trial] = []
        self._predicted_points = np.empty((0, 2))
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
        if self._is_due:
            self._fit(complete, records)

    def add(self, record: Trial, records: Callable[[], Sequence[Trial]]) -> None:
        """Add one complete trial, as ``refit`` of ``records``, of which it is one.

        ``records`` is called only when the models are fitted again.
        """
        self._n_complete += 1
        # A dominated trial stays dominated, so the front suffices.
        self._front = self._goals.front([*self._front, record])
        if self._is_due:
            trials = records()
            self._fit([r for r in trials if r.state == "complete"], trials)

    def add_observations(self, observations: Sequence[Observation]) -> None:
        """Add labels that no trial measured, and fit the predictor of joules again."""
        self._warm_start = self._warm_start.with_observations(observations)
        self._energy = self._warm_start.predictor(self._own, seed=self._seed)

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
        complete, records = _recent(complete), _recent(records)
        readings = [(r.architecture, r.reading) for r in complete if r.reading is not None]
        self._own = [Observation.of_energy(a, self._workload, reading) for a, reading in readings]
        self._energy = self._warm_start.predictor(self._own, seed=self._seed)
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
        # Prior trials have quality and joules only: they may break a limit of this search.
        prior = () if self._goals.narrows else self._warm_start.points
        self._predicted_points = np.array(prior).reshape(-1, 2)
        if self._pool is None:
            return
        # The front of many predictions is optimistic, so each is taken one deviation worse.
        quality = self._quality.predict(self._pool.batch, _ONE_DEVIATION)
        if quality is not None:
            energy_j = self._energy.predict(self._pool.batch, self._workload, _ONE_DEVIATION)
            usable = quality.in_range & energy_j.in_range
            if self._goals.max_latency_s is not None:
                usable &= self._latency_s(self._pool.batch).high <= self._goals.max_latency_s
            predicted = np.column_stack([quality.low, energy_j.high])[usable]
            self._predicted_points = np.vstack([self._predicted_points, predicted])

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
        verdict, reason = self._reason(batch, energy_j)
        return GateDecision(energy_j[0], reason, verdict)

    def _reason(
        self, batch: ArchitectureBatch, energy_j: Predictions
    ) -> tuple[Verdict, str | None]:
        kept = Verdict.KEPT, None
        least = self._config.startup_trials - self._n_complete
        if self._warm_start.n_energy < least:
            return kept
        low_j = float(energy_j.low[0])
        most_j, most_s = self._goals.max_joules, self._goals.max_latency_s
        if most_j is not None and low_j > most_j:
            reason = f"at least {low_j:.3g} J predicted, budget {most_j:.3g} J"
            return Verdict.OVER_LIMIT, reason
        if most_s is not None and self._latency is not None and self._n_complete >= least:
            low_s = float(self._latency_s(batch).low[0])
            if low_s > most_s:
                reason = f"at least {low_s:.3g} s latency predicted, limit {most_s:.3g} s"
                return Verdict.OVER_LIMIT, reason
        if self._warm_start.n_both < least:
            return kept
        quality = self._quality.predict(batch, self._config.confidence)
        if quality is None or not self._front:
            return kept
        probability = float(self._front_probabilities(batch, quality, energy_j)[0])
        if probability >= 1 - self._config.confidence:
            return kept
        return Verdict.DOMINATED, (
            f"{probability:.1%} likely to be on the front: "
            f"{float(quality.mean[0]):.3f} quality and {float(energy_j.mean[0]):.3g} J predicted"
        )

    def verdicts(self, batch: ArchitectureBatch) -> NDArray[np.int8]:
        """Return the verdict (``pruning.Verdict``) on each candidate, ``(N,)``; see ``judge``."""
        found = np.full(len(batch), Verdict.KEPT, dtype=np.int8)
        least = self._config.startup_trials - self._n_complete
        if self._warm_start.n_energy < least:
            return found
        energy_j = self._energy_j(batch)
        if self._warm_start.n_both >= least and self._front:
            quality = self._quality.predict(batch, self._config.confidence)
            if quality is not None:
                likely = self._front_probabilities(batch, quality, energy_j)
                found[likely < 1 - self._config.confidence] = Verdict.DOMINATED
        most_j, most_s = self._goals.max_joules, self._goals.max_latency_s
        if most_j is not None:
            found[energy_j.low > most_j] = Verdict.OVER_LIMIT
        if most_s is not None and self._latency is not None and self._n_complete >= least:
            found[self._latency_s(batch).low > most_s] = Verdict.OVER_LIMIT
        return found

    def quality_to_beat(self, energy_j: Estimate) -> float | None:
        """Best quality on the front at fewer joules than the optimistic end of ``energy_j``.

        A candidate below it is dominated whatever its joules are within the interval. ``None``
        without such a member, and in a search with further objectives.
        """
        if self._goals.costs:
            return None
        cheaper = [
            quality
            for quality, joules in (member.objectives for member in self._front)
            if joules <= energy_j.low
        ]
        return max(cheaper, default=None)

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
        """P(Pareto) by log-normal error rates and joules; both at the configured confidence."""
        confidence = self._config.confidence
        error, low, high = (
            np.maximum(1 - part, _LEAST_ERROR)
            for part in (quality.mean, quality.high, quality.low)
        )
        errors = Predictions(error, low, high, quality.in_range)
        mean_N2 = np.log(np.column_stack([errors.mean, energy_j.mean]))
        sd_N2 = np.column_stack([errors.log_sd(confidence), energy_j.log_sd(confidence)])
        measured = np.array([member.objectives for member in self._front])
        if not self._goals.costs:
            points = np.vstack([measured, self._predicted_points])
            return exact_front_probabilities(_log_losses(points), mean_N2, sd_N2)
        found = np.ones(len(batch))
        # Only members that are no worse in every further objective can dominate. Predicted points
        # have no costs that could be compared, and are left out.
        for index, may_dominate in enumerate(self._no_worse(batch)):
            if may_dominate.any():
                one = slice(index, index + 1)
                losses = _log_losses(measured[may_dominate])
                found[one] = exact_front_probabilities(losses, mean_N2[one], sd_N2[one])
        return found

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


def _recent(records: Sequence[Trial]) -> list[Trial]:
    """The trials that models are fitted to, in their order."""
    if len(records) <= _MOST_FITTED:
        return list(records)
    newest = _MOST_FITTED // 2
    before = np.linspace(0, len(records) - newest - 1, _MOST_FITTED - newest).astype(int)
    return [records[int(index)] for index in before] + list(records[-newest:])


def _log_losses(points_N2: Array) -> Array:
    """Logarithms of error rates and joules of rows ``(quality, joules)``."""
    errors = np.maximum(1 - points_N2[:, 0], _LEAST_ERROR)
    found: Array = np.log(np.column_stack([errors, points_N2[:, 1]]))
    return found


def audit_summary(records: Sequence[Trial], goals: Goals | None = None) -> AuditSummary:
    """The gate's false-drop rate in the records of a search."""
    # The gate does not decide on finalists.
    complete = [r for r in records if r.state == "complete" and r.finalist_of is None]
    n_audited = sum(r.audit for r in complete)
    n_dropped = sum(r.state == "dropped" for r in records)
    n_false = sum(r.audit for r in (goals or Goals()).front(complete)) if n_audited else 0
    rate = Estimate.of_share(n_false, n_audited) if n_audited else None
    return AuditSummary(n_dropped, n_audited, n_false, rate)
