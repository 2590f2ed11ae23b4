"""The gate: drop a candidate before it costs training, at a stated confidence.

Quality and joules of a candidate are predicted with intervals. The candidate is dropped if
P(Pareto) is below ``1 - confidence``, or if even its optimistic joules or latency break a limit.
The front consists of measured trials and of predicted points: unevaluated members of the space
(``CandidatePool``) at pessimistic predictions, and the warm start's trials. A search that may
still evaluate those should not train what they dominate. An audit evaluates candidates that were
pruned (``pruning``); ``audit_summary`` estimates the false-drop rate from it.
"""

from __future__ import annotations

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
from nas.searching.gating.pruning import Pruning, Verdict
from nas.searching.gating.surrogates import ArchitectureSurrogates
from predictors.energy.regressor import Predictions
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector
from search_spaces.space.sampling import sample_positions

Array = NDArray[np.float64]

# Keeps the logarithm of an error rate finite at a quality of 1.
_LEAST_ERROR = 1e-12
_ONE_DEVIATION = 0.683


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
        self._points = np.empty((0, 2))
        self._points_of_fit = -1

    @property
    def front_numbers(self) -> frozenset[int]:
        """Numbers of the trials on the measured front."""
        return frozenset(member.number for member in self._front)

    def refit(self, records: Sequence[Trial]) -> None:
        """Learn from all trials; models are refitted once a tenth more are complete."""
        self.surrogates.refit(records)
        self._front = self._goals.front([r for r in records if r.state == "complete"])

    def add(self, record: Trial, records: Callable[[], Sequence[Trial]]) -> None:
        """Add one complete trial, as ``refit`` of ``records``, of which it is one.

        ``records`` is called only when the models are fitted again.
        """
        self.surrogates.add(record, records)
        # A dominated trial stays dominated, so the front suffices.
        self._front = self._goals.front([*self._front, record])

    @property
    def _predicted_points(self) -> Array:
        """Pairs of quality and joules, ``(P, 2)``, that unevaluated candidates are judged by."""
        if self._points_of_fit != self.surrogates.n_fits:
            self._points_of_fit = self.surrogates.n_fits
            self._points = self._predict_points()
        return self._points

    def _predict_points(self) -> Array:
        # Prior trials have quality and joules only: they may break a limit of this search.
        prior = () if self._goals.narrows else self.surrogates.warm_start.points
        points = np.array(prior).reshape(-1, 2)
        if self._pool is None:
            return points
        # The front of many predictions is optimistic, so each is taken one deviation worse.
        predicted = self.surrogates.predict(self._pool.batch, _ONE_DEVIATION)
        quality, energy_j = predicted.quality, predicted.energy_j
        if quality is None:
            return points
        usable = quality.in_range & energy_j.in_range
        if self._goals.max_latency_s is not None:
            usable &= self._latency_s(self._pool.batch).high <= self._goals.max_latency_s
        return np.vstack([points, np.column_stack([quality.low, energy_j.high])[usable]])

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
        n_complete = self.surrogates.n_complete
        least = self._config.startup_trials - n_complete
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
        least = self._config.startup_trials - n_complete
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
        return self.surrogates.energy_j(batch, self._config.confidence)

    def _latency_s(self, batch: ArchitectureBatch) -> Predictions:
        """Seconds per batch, at the configured confidence."""
        return self.surrogates.latency_s(batch, self._config.confidence)


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
