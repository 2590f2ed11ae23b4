"""The gate: drop a candidate before it costs training, with a stated confidence.

Accuracy and joules of a candidate are predicted with intervals. It is dropped when it is less
likely to be on the front than ``1 - confidence``, or even its optimistic joules or latency break a
limit.
The front is that of what was measured and of *rivals*: members of the space that the search has
not evaluated, at pessimistic predictions or an earlier run's figures, since a search that may
still find those should not train what they beat. An audit evaluates a stated share of the dropped
all the same; ``audit_summary`` turns it into a false-drop rate.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

from nas.pareto.dominance import non_dominated_mask
from nas.records.config import GateConfig
from nas.records.goals import Goals
from nas.records.trial import TrialRecord
from nas.searching.gating.learning_curves import extrapolate
from nas.searching.gating.prior_knowledge import Knowledge, KnownAccuracy
from nas.searching.gating.quality_surrogate import AccuracySurrogate
from predictors.energy.models import EnergyPredictor, Observation
from predictors.energy.regressor import Interval
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector
from search_spaces.space.sampling import sample_positions
from search_spaces.workload import Workload

# Keeps logarithms finite where nothing was wrong.
_LEAST_ERROR = 1e-12
_ONE_DEVIATION = 0.683
# Trials that models are fitted to at most: half of them the newest, which are most like what is
# proposed, the others evenly from all before.
_MOST_FITTED = 2000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of one candidate; ``reason`` is ``None`` where it may pass."""

    predicted_energy_j: float
    predicted_low_j: float
    predicted_high_j: float
    reason: str | None
    audit: bool = False


@dataclass(frozen=True)
class Rivals:
    """Members of a space that may yet be found: as arrays, and one by one by ``member``."""

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
    ) -> Rivals:
        """Up to ``n`` different members, uniformly sampled, less those not in ``allows``."""
        drawn = sample_positions(space, n, np.random.default_rng([seed, n]))
        positions = np.unique(drawn, axis=0)
        batch = ArchitectureBatch.from_positions(positions, space)
        if allows is not None:
            positions = positions[allows(batch)]
            batch = ArchitectureBatch.from_positions(positions, space)
        return cls(batch, lambda index: from_vector(positions[index], space))


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """Of ``n_dropped + n_audited`` candidates the gate rejected, how many it should not have.

    ``false_drop_rate`` is the share of audited candidates that are on the front, with its exact
    95% binomial interval (Clopper & Pearson 1934); ``None`` where none was audited.
    """

    n_dropped: int
    n_audited: int
    n_false: int
    false_drop_rate: float | None
    low: float | None
    high: float | None


class Gate:
    """Judges candidates from what the search has measured so far."""

    def __init__(
        self,
        workload: Workload,
        config: GateConfig,
        *,
        goals: Goals | None = None,
        seed: int,
        knowledge: Knowledge | None = None,
        rivals: Rivals | None = None,
    ) -> None:
        """Start with nothing measured.

        ``goals`` are accuracy and joules without a limit by default. ``knowledge`` is what is
        known from before this search, such as an earlier run's figures; ``rivals`` members of the
        space that nobody has evaluated, none by default.
        """
        self._workload = workload
        self._config = config
        self._goals = goals or Goals()
        self._seed = seed
        self._knowledge = knowledge or Knowledge()
        self._predictor = self._knowledge.predictor((), seed=seed)
        self._accuracy = AccuracySurrogate(workload)
        # Seconds follow from counts as joules do, and the same regressor learns them.
        self._latency: EnergyPredictor | None = None
        self._rivals = rivals
        self._front: list[TrialRecord] = []
        self._rival_points = np.empty((0, 2))
        self._n_complete = 0
        self._n_fitted = 0
        self._learn_accuracies(())

    @property
    def front_numbers(self) -> frozenset[int]:
        """Numbers of the trials on the front of what was measured."""
        return frozenset(member.number for member in self._front)

    def refit(self, records: Sequence[TrialRecord]) -> None:
        """Learn from every complete trial among ``records``, and from accuracies of stopped ones.

        The front is always that of all of them; the models are fitted anew when there is a tenth
        more to learn from.
        """
        complete = [r for r in records if r.state == "complete"]
        self._n_complete = len(complete)
        self._front = self._goals.front(complete)
        if self._is_due:
            self._fit(complete, records)

    def ended(self, record: TrialRecord, records: Callable[[], Sequence[TrialRecord]]) -> None:
        """Learn from one more complete trial.

        As ``refit`` of ``records``, of which it is one; they are asked for only where models are
        fitted anew.
        """
        self._n_complete += 1
        # Who is dominated once stays so.
        self._front = self._goals.front([*self._front, record])
        if self._is_due:
            known = records()
            self._fit([r for r in known if r.state == "complete"], known)

    @property
    def _is_due(self) -> bool:
        known = self._n_fitted + self._knowledge.n_both
        return self._n_complete - self._n_fitted >= max(1, known // 10)

    def _fit(self, complete: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> None:
        self._n_fitted = len(complete)
        complete, records = _recent(complete), _recent(records)
        observations = [
            Observation.from_reading(r.architecture, self._workload, r.reading)
            for r in complete
            if r.reading is not None
        ]
        self._predictor = self._knowledge.predictor(observations, seed=self._seed)
        if self._goals.needs_latency:
            self._latency = EnergyPredictor.fit(
                [self._latency_of(r) for r in complete], seed=self._seed
            )
        self._learn_accuracies(
            [
                KnownAccuracy(r.architecture, r.objectives[0], r.accuracy_se or 0.0)
                for r in complete
            ]
            # Stopped trials: what they would have come to, as far as that can be told.
            + [
                KnownAccuracy(e.record.architecture, e.accuracy, e.standard_error)
                for e in extrapolate(records)
            ]
        )

    def _learn_accuracies(self, own: Sequence[KnownAccuracy]) -> None:
        rows = [*self._knowledge.accuracies, *own]
        self._accuracy.fit(
            [row.architecture for row in rows],
            [row.accuracy for row in rows],
            [row.standard_error for row in rows],
        )
        # Of earlier trials only accuracy and joules are known: they may break a limit here.
        rivals = () if self._goals.narrows else self._knowledge.rivals
        before = np.array(rivals).reshape(-1, 2)
        self._rival_points = before
        if self._rivals is None:
            return
        # The front of many predictions flatters itself: rivals are taken a deviation worse.
        accuracy = self._accuracy.predict(self._rivals.batch, _ONE_DEVIATION)
        if accuracy is not None:
            energy = self._predictor.predict(self._rivals.batch, self._workload, _ONE_DEVIATION)
            known = accuracy.in_range & energy.in_range
            if self._goals.max_latency_s is not None:
                latency_s = self._latency_s(self._rivals.batch)
                known &= latency_s.high <= self._goals.max_latency_s
            predicted = np.column_stack([accuracy.low, energy.high_j])[known]
            self._rival_points = np.vstack([before, predicted])

    def energies_j(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Joules per sample as predicted now, ``(N,)``."""
        found = self._predictor.predict(
            list(architectures), self._workload, self._config.confidence
        )
        return np.asarray(found.mean_j, dtype=np.float64)

    def judge(self, architecture: Architecture) -> Verdict:
        """Whether ``architecture`` is worth training."""
        found = self._predictor.predict([architecture], self._workload, self._config.confidence)
        energy_j = Interval(found.mean_j, found.low_j, found.high_j, found.in_range)
        reason = self._reason(architecture, energy_j)
        audit = reason is not None and self._is_audited(architecture)
        return Verdict(
            float(found.mean_j[0]), float(found.low_j[0]), float(found.high_j[0]), reason, audit
        )

    def _reason(self, architecture: Architecture, energy_j: Interval) -> str | None:
        least = self._config.startup_trials - self._n_complete
        if self._knowledge.n_energy < least:
            return None
        low_j = float(energy_j.low[0])
        most_j, most_s = self._goals.max_joules, self._goals.max_latency_s
        if most_j is not None and low_j > most_j:
            return f"at least {low_j:.3g} J predicted, budget {most_j:.3g} J"
        batch = ArchitectureBatch.of([architecture])
        if most_s is not None and self._latency is not None and self._n_complete >= least:
            low_s = float(self._latency_s(batch).low[0])
            if low_s > most_s:
                return f"at least {low_s:.3g} s latency predicted, limit {most_s:.3g} s"
        if self._knowledge.n_both < least:
            return None
        accuracy = self._accuracy.predict(batch, self._config.confidence)
        if accuracy is None or not self._front:
            return None
        chance = float(self._chances(batch, accuracy, energy_j)[0])
        if chance >= 1 - self._config.confidence:
            return None
        return (
            f"{chance:.1%} likely to be on the front: "
            f"{float(accuracy.mean[0]):.3f} accuracy and {float(energy_j.mean[0]):.3g} J predicted"
        )

    def chances(self, architectures: Sequence[Architecture]) -> NDArray[np.float64] | None:
        """Probabilities of being on the front, ``(N,)``; ``None`` where nothing is known yet."""
        return self._chances_of(ArchitectureBatch.of(architectures))

    def suggest(self, seen: Container[str]) -> Architecture | None:
        """The rival most likely to be on the front, of those whose hash is not in ``seen``.

        ``None`` where there is none or nothing can be predicted yet.
        """
        chances = None if self._rivals is None else self._chances_of(self._rivals.batch)
        if self._rivals is None or chances is None:
            return None
        for index in np.argsort(-chances, kind="stable"):
            found = self._rivals.member(int(index))
            if found.hash not in seen:
                return found
        return None

    def _chances_of(self, batch: ArchitectureBatch) -> NDArray[np.float64] | None:
        confidence = self._config.confidence
        accuracy = self._accuracy.predict(batch, confidence)
        if accuracy is None or not self._front:
            return None
        found = self._predictor.predict(batch, self._workload, confidence)
        energy_j = Interval(found.mean_j, found.low_j, found.high_j, found.in_range)
        return self._chances(batch, accuracy, energy_j)

    def _chances(
        self, batch: ArchitectureBatch, accuracy: Interval, energy_j: Interval
    ) -> NDArray[np.float64]:
        """Probabilities of being on the front; intervals at the configured confidence."""
        z = float(norm.ppf(0.5 + self._config.confidence / 2))
        measured = np.array([member.objectives for member in self._front])
        low_error, high_error = (
            np.maximum(1 - a, _LEAST_ERROR) for a in (accuracy.high, accuracy.low)
        )
        believed = {
            "log_error": np.log(np.maximum(1 - accuracy.mean, _LEAST_ERROR)),
            "log_error_sd": np.log(high_error / low_error) / (2 * z),
            "log_energy": np.log(energy_j.mean),
            "log_energy_sd": np.log(energy_j.high / energy_j.low) / (2 * z),
        }
        if not self._goals.costs:
            return front_probability(np.vstack([measured, self._rival_points]), **believed)
        found = np.ones(len(batch))
        # Only members that are no worse in every further objective can dominate. Rivals, of
        # whose costs no more than a prediction is known, are left out.
        for index, may_dominate in enumerate(self._no_worse(batch)):
            if may_dominate.any():
                one = {name: values[index : index + 1] for name, values in believed.items()}
                found[index] = front_probability(measured[may_dominate], **one)[0]
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

    def _latency_of(self, record: TrialRecord) -> Observation:
        """Seconds a unit (sample or token) of a complete trial, in place of joules."""
        reading = record.reading
        assert reading is not None
        return Observation(
            record.architecture,
            self._workload,
            reading.latency_s / self._workload.n_units,
            reading.half_width / 1.96,
        )

    def _latency_s(self, batch: ArchitectureBatch) -> Interval:
        """Seconds a batch, with the configured confidence."""
        if self._latency is None:
            unknown = np.zeros(len(batch))
            return Interval(unknown, unknown, unknown + np.inf, unknown.astype(bool))
        found = self._latency.predict(batch, self._workload, self._config.confidence)
        size = self._workload.n_units
        return Interval(
            found.mean_j * size, found.low_j * size, found.high_j * size, found.in_range
        )

    def _is_audited(self, architecture: Architecture) -> bool:
        # Drawn from seed and hash, so that a resumed search audits the same candidates.
        rng = np.random.default_rng([self._seed, int(architecture.hash, 16)])
        return bool(rng.random() < self._config.audit_share)


def _recent(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that models are fitted to, in their order."""
    if len(records) <= _MOST_FITTED:
        return list(records)
    newest = _MOST_FITTED // 2
    before = np.linspace(0, len(records) - newest - 1, _MOST_FITTED - newest).astype(int)
    return [records[int(index)] for index in before] + list(records[-newest:])


def front_probability(
    front: NDArray[np.float64],
    *,
    log_error: NDArray[np.float64],
    log_error_sd: NDArray[np.float64],
    log_energy: NDArray[np.float64],
    log_energy_sd: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How probably each candidate is dominated by no member of ``front``, shape ``(N,)``.

    ``front`` has a row ``(accuracy, joules)`` for each member, dominated ones allowed. The
    candidates' error rates and joules, of shape ``(N,)``, are independent and log-normal.
    Between the joules of two neighbouring members a candidate has to be more accurate than every
    cheaper one.
    """
    ordered = front[non_dominated_mask(front, (True, False))]
    ordered = ordered[np.argsort(ordered[:, 1])]
    spread = np.maximum(log_energy_sd, 1e-9)[:, None]
    below = norm.cdf((np.log(ordered[:, 1]) - log_energy[:, None]) / spread)
    share = np.diff(np.column_stack([below, np.ones(len(below))]), axis=1)
    error = np.log(np.maximum(1 - ordered[:, 0], _LEAST_ERROR))
    better = norm.cdf((error - log_error[:, None]) / np.maximum(log_error_sd, 1e-9)[:, None])
    found: NDArray[np.float64] = below[:, 0] + (share * better).sum(axis=1)
    return found


def audit_summary(records: Sequence[TrialRecord], goals: Goals | None = None) -> AuditSummary:
    """The gate's false-drop rate over a search's records."""
    # Finalists were never judged.
    complete = [r for r in records if r.state == "complete" and r.finalist_of is None]
    audited = [r for r in complete if r.audit]
    n_dropped = sum(r.state == "dropped" for r in records)
    if not audited:
        return AuditSummary(n_dropped, 0, 0, None, None, None)
    n_false = sum(r.audit for r in (goals or Goals()).front(complete))
    n = len(audited)
    low = 0.0 if n_false == 0 else float(beta.ppf(0.025, n_false, n - n_false + 1))
    high = 1.0 if n_false == n else float(beta.ppf(0.975, n_false + 1, n - n_false))
    return AuditSummary(n_dropped, n, n_false, n_false / n, low, high)
