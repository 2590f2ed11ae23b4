"""The gate: drop a candidate before it costs training, with a stated confidence.

A candidate is dropped when even the optimistic ends of its intervals (more accurate, fewer
joules) break the budget or are dominated by a measured member of the front. An audit evaluates a
stated share of those all the same; ``audit_summary`` turns it into a false-drop rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from nas.pareto.dominance import non_dominated_mask
from nas.searching.accuracy import AccuracySurrogate
from nas.searching.config import GateConfig
from nas.searching.trial import TrialRecord
from predictors.learned.models import EnergyPredictor, Observation
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of one candidate; ``reason`` is ``None`` where it may pass."""

    predicted_energy_j: float
    predicted_low_j: float
    predicted_high_j: float
    reason: str | None
    audit: bool = False


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
        max_joules: float | None,
        seed: int,
        prior: Sequence[Observation] = (),
    ) -> None:
        """``prior`` are observations from before this search, such as an earlier run's."""
        self._workload = workload
        self._config = config
        self._max_joules = max_joules
        self._seed = seed
        self._prior = list(prior)
        self._predictor = EnergyPredictor.fit(self._prior, seed=seed)
        self._accuracy = AccuracySurrogate(workload)
        self._front: list[TrialRecord] = []
        self._n_complete = 0

    def refit(self, records: Sequence[TrialRecord]) -> None:
        """Learn from every complete trial among ``records``."""
        complete = [r for r in records if r.state == "complete"]
        self._n_complete = len(complete)
        observations = [
            Observation.from_reading(r.architecture, self._workload, r.reading)
            for r in complete
            if r.reading is not None
        ]
        self._predictor = EnergyPredictor.fit([*self._prior, *observations], seed=self._seed)
        self._accuracy.fit([r.architecture for r in complete], [r.objectives[0] for r in complete])
        mask = non_dominated_mask([r.objectives for r in complete], (True, False))
        self._front = [r for r, on_front in zip(complete, mask, strict=True) if on_front]

    def judge(self, architecture: Architecture) -> Verdict:
        """Whether ``architecture`` is worth training."""
        confidence = self._config.confidence
        prediction = self._predictor.predict([architecture], self._workload, confidence)
        mean, low, high = (
            float(prediction.mean_j[0]),
            float(prediction.low_j[0]),
            float(prediction.high_j[0]),
        )
        reason = self._reason(architecture, low)
        audit = reason is not None and self._is_audited(architecture)
        return Verdict(mean, low, high, reason, audit)

    def _reason(self, architecture: Architecture, low_j: float) -> str | None:
        if self._n_complete < self._config.startup_trials:
            return None
        if self._max_joules is not None and low_j > self._max_joules:
            return f"at least {low_j:.3g} J predicted, budget {self._max_joules:.3g} J"
        accuracy = self._accuracy.optimistic(architecture, self._config.confidence)
        for member in self._front:
            front_accuracy, front_energy_j = member.objectives
            if front_accuracy >= accuracy and front_energy_j <= low_j:
                return (
                    f"at best {accuracy:.3f} accuracy and {low_j:.3g} J predicted, "
                    f"dominated by trial {member.number}"
                )
        return None

    def _is_audited(self, architecture: Architecture) -> bool:
        # Drawn from seed and hash, so that a resumed search audits the same candidates.
        rng = np.random.default_rng([self._seed, int(architecture.hash, 16)])
        return bool(rng.random() < self._config.audit_share)


def audit_summary(records: Sequence[TrialRecord]) -> AuditSummary:
    """The gate's false-drop rate over a search's records."""
    complete = [r for r in records if r.state == "complete"]
    audited = [r for r in complete if r.audit]
    n_dropped = sum(r.state == "dropped" for r in records)
    if not audited:
        return AuditSummary(n_dropped, 0, 0, None, None, None)
    mask = non_dominated_mask([r.objectives for r in complete], (True, False))
    n_false = sum(bool(m) and r.audit for r, m in zip(complete, mask, strict=True))
    n = len(audited)
    low = 0.0 if n_false == 0 else float(beta.ppf(0.025, n_false, n - n_false + 1))
    high = 1.0 if n_false == n else float(beta.ppf(0.975, n_false + 1, n - n_false))
    return AuditSummary(n_dropped, n, n_false, n_false / n, low, high)
