"""The gate: drop a candidate before it costs training, at a stated confidence.

Quality and joules of a candidate are predicted with intervals. The candidate is dropped if
P(Pareto) is below ``1 - confidence``, or if even its optimistic joules or latency break a limit.
The front consists of measured trials, without their labels' noise, and of predicted points:
unevaluated members of the space (``CandidatePool``) at pessimistic predictions. A search that may
still evaluate those should not train what they dominate. An audit evaluates candidates that were
pruned (``pruning``); ``audit_summary`` estimates the false-drop rate from it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core.estimate import Estimate
from nas.pareto.uncertainty import NoisyFront, near_front, smoothed, true_deviations
from nas.records.config import GateConfig
from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.searching.gating.noisy_losses import label_deviations, log_losses, log_predictions
from nas.searching.gating.pruning import Pruning, Verdict
from nas.searching.gating.surrogates import ArchitectureSurrogates, recent
from predictors.energy.regressor import Predictions
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector
from search_spaces.space.sampling import sample_positions

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The gate's decision on one candidate; ``reason`` is ``None`` where it passes.

    ``in_runtimes`` are the predicted joules in each runtime of a search that has several.
    """

    energy_j: Estimate
    reason: str | None
    verdict: Verdict = Verdict.KEPT
    in_runtimes: Mapping[str, Estimate] = field(default_factory=dict)


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
        surrogates: ArchitectureSurrogates,
        config: GateConfig,
        *,
        pool: CandidatePool | None = None,
        pruning: Pruning | None = None,
    ) -> None:
        """Start without a trial; goals are those of ``surrogates``.

        The gate decides on the candidates of ``pruning``.
        """
        self.pruning = pruning
        if pruning is not None:
            pruning.judge = self.verdicts
        self.surrogates = surrogates
        self._workload, self._goals = surrogates.workload, surrogates.goals
        self._config = config
        self._pool = pool
        self._front: list[Trial] = []
        self._measured: list[Trial] = []
        self._rivals: _Rivals | None = None
        self._noise: Array | None = None
        self._smoothed: dict[int, Array] = {}
        self._pool_predicted: tuple[Array, Array] | None = None
        self._n_fits = -1

    @property
    def front_numbers(self) -> frozenset[int]:
        """Numbers of the trials on the measured front."""
        return frozenset(member.number for member in self._front)

    def refit(self, records: Sequence[Trial]) -> None:
        """Learn from all trials; models are refitted once a tenth more are complete."""
        self.surrogates.refit(records)
        self._front = self._goals.front([r for r in records if r.state == "complete"])
        self._reset_rivals()

    def add(self, record: Trial, records: Callable[[], Sequence[Trial]]) -> None:
        """Add one complete trial, as ``refit`` of ``records``, of which it is one.

        ``records`` is called only when the models are fitted again.
        """
        self.surrogates.add(record, records)
        # A dominated trial stays dominated, so the front suffices.
        self._front = self._goals.front([*self._front, record])
        self._measured, self._rivals = self._goals.feasible([*self._measured, record]), None

    @property
    def _n_missing(self) -> int:
        """Number of startup trials that are not complete yet."""
        return self._config.startup_trials - self.surrogates.n_complete

    def judge(self, architecture: Architecture) -> GateDecision:
        """Decide whether to train ``architecture``."""
        batch = ArchitectureBatch.of([architecture])
        energy_j = self._energy_j(batch)
        verdict, reason = self._reason(batch, energy_j)
        by_runtime = self.surrogates.in_runtimes(batch, self._config.confidence)
        in_runtimes = {name: predictions[0] for name, predictions in by_runtime.items()}
        return GateDecision(energy_j[0], reason, verdict, in_runtimes)

    def _reason(
        self, batch: ArchitectureBatch, energy_j: Predictions
    ) -> tuple[Verdict, str | None]:
        kept = Verdict.KEPT, None
        n_complete = self.surrogates.n_complete
        least = self._n_missing
        if self.surrogates.n_prior_energy < least:
            return kept
        low_j = float(energy_j.low[0])
        most_j, most_s = self._goals.max_joules, self._goals.max_latency_s
        if most_j is not None and low_j > most_j:
            reason = f"at least {low_j:.3g} J predicted, budget {most_j:.3g} J"
            return Verdict.OVER_LIMIT, reason
        if most_s is not None and self.surrogates.predicts_latency and n_complete >= least:
            low_s = float(self._latency_s(batch).low[0])
            if low_s > most_s:
                reason = f"at least {low_s:.3g} s latency predicted, limit {most_s:.3g} s"
                return Verdict.OVER_LIMIT, reason
        if self.surrogates.n_prior_both < least:
            return kept
        quality = self.surrogates.quality(batch, self._config.confidence)
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
        n_complete = self.surrogates.n_complete
        least = self._n_missing
        if self.surrogates.n_prior_energy < least:
            return found
        energy_j = self._energy_j(batch)
        if self.surrogates.n_prior_both >= least and self._front:
            quality = self.surrogates.quality(batch, self._config.confidence)
            if quality is not None:
                likely = self._front_probabilities(batch, quality, energy_j)
                found[likely < 1 - self._config.confidence] = Verdict.DOMINATED
        most_j, most_s = self._goals.max_joules, self._goals.max_latency_s
        if most_j is not None:
            found[energy_j.low > most_j] = Verdict.OVER_LIMIT
        if most_s is not None and self.surrogates.predicts_latency and n_complete >= least:
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
        quality = self.surrogates.quality(batch, self._config.confidence)
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
        rivals = self._current_rivals()
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

    def _current_rivals(self) -> _Rivals:
        """Return what candidates are judged against, by the models as they are now."""
        if self._n_fits != self.surrogates.n_fits:
            self._n_fits = self.surrogates.n_fits
            self._reset_rivals()
        if self._rivals is None:
            self._rivals = self._fresh_rivals()
        return self._rivals

    def _reset_rivals(self) -> None:
        """Compare candidates with all trials, or recent ones and the front of many."""
        complete = recent(self.surrogates.complete)
        by_number = {r.number: r for r in (*self._goals.feasible(complete), *self._front)}
        self._measured, self._rivals, self._noise = list(by_number.values()), None, None
        self._smoothed.clear()
        self._pool_predicted = None

    def _fresh_rivals(self) -> _Rivals:
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
        if self._pool_predicted is None:
            self._pool_predicted = self._pool_losses()
        pool_mean, pool_label_sd = self._pool_predicted
        points = pool_mean + true_deviations(pool_label_sd, noise)
        front = NoisyFront(np.vstack([mean, points]), np.vstack([sd, np.zeros_like(points)]))
        return _Rivals(mean, sd, noise, front)

    def _smooth(self, trials: Sequence[Trial]) -> None:
        """Compute log losses without the errors of labels, with deviations, by trial."""
        if not trials:
            return
        batch = ArchitectureBatch.of([trial.architecture for trial in trials])
        confidence = self._config.confidence
        prediction = self.surrogates.predict(batch, confidence)
        assert prediction.quality is not None
        predicted, label_sd = log_predictions(prediction.quality, prediction.energy_j, confidence)
        labels = log_losses(np.array([trial.objectives for trial in trials]))
        mean, sd = smoothed(labels, label_deviations(trials), predicted, label_sd)
        # Trials whose joules were not measured have predictions only.
        is_label = np.array([[True, trial.reading is not None] for trial in trials])
        mean, sd = np.where(is_label, mean, predicted), np.where(is_label, sd, label_sd)
        for trial, row in zip(trials, np.stack([mean, sd], axis=1), strict=True):
            self._smoothed[trial.number] = row

    def _pool_losses(self) -> tuple[Array, Array]:
        """Return predicted log losses of the pool's members, and their deviations, ``(P, 2)``."""
        nothing = np.empty((0, 2)), np.empty((0, 2))
        if self._pool is None:
            return nothing
        confidence = self._config.confidence
        predicted = self.surrogates.predict(self._pool.batch, confidence)
        quality, energy_j = predicted.quality, predicted.energy_j
        if quality is None:
            return nothing
        usable = quality.in_range & energy_j.in_range
        if self._goals.max_latency_s is not None:
            usable &= self._latency_s(self._pool.batch).high <= self._goals.max_latency_s
        mean, sd = log_predictions(quality, energy_j, confidence)
        return mean[usable], sd[usable]

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
        return self.surrogates.energy_j(batch, self._config.confidence)

    def _latency_s(self, batch: ArchitectureBatch) -> Predictions:
        """Seconds per batch, at the configured confidence."""
        return self.surrogates.latency_s(batch, self._config.confidence)


def audit_summary(records: Sequence[Trial], goals: Goals | None = None) -> AuditSummary:
    """The gate's false-drop rate in the records of a search."""
    # The gate does not decide on finalists.
    complete = [r for r in records if r.state == "complete" and r.finalist_of is None]
    n_audited = sum(r.audit for r in complete)
    n_dropped = sum(r.state == "dropped" for r in records)
    n_false = sum(r.audit for r in (goals or Goals()).front(complete)) if n_audited else 0
    rate = Estimate.of_share(n_false, n_audited) if n_audited else None
    return AuditSummary(n_dropped, n_audited, n_false, rate)
