"""What a search cost and what it saves: counts, the gate's audit, joules, carbon, break-even."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nas.searching.gate import AuditSummary, audit_summary
from nas.searching.run import Run
from nas.searching.trial import TrialRecord

_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Saving:
    """The front's answer to a baseline: the fewest joules at no less accuracy.

    ``inferences_to_break_even`` is how many samples pay back the search's own joules.
    """

    baseline_trial: int
    baseline_energy_j: float
    better_trial: int
    better_energy_j: float
    inferences_to_break_even: float

    @property
    def ratio(self) -> float:
        """How many times fewer joules per sample."""
        return self.baseline_energy_j / self.better_energy_j


@dataclass(frozen=True, slots=True)
class SearchSummary:
    """The account of one search. Energies are in joules, carbon in grams of CO2 equivalent."""

    finished: bool
    stop_reason: str | None
    complete: int
    dropped: int
    failed: int
    in_flight: int
    audit: AuditSummary
    train_energy_j: float
    measure_energy_j: float
    carbon_g: float
    carbon_g_per_kwh: float
    meter: str
    is_estimate: bool
    saving: Saving | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def summarise(run: Run) -> SearchSummary:
    """The account of ``run`` as it stands."""
    records = run.trials()
    train_j = sum(r.train_energy_j or 0.0 for r in records)
    measure_j = sum(r.measure_energy_j or 0.0 for r in records)
    trained = [r for r in records if r.state in ("complete", "failed")]
    readings = [r.reading for r in records if r.reading is not None]
    return SearchSummary(
        finished=len(trained) >= run.config.trials or run.stop_reason is not None,
        stop_reason=run.stop_reason,
        complete=sum(r.state == "complete" for r in records),
        dropped=sum(r.state == "dropped" for r in records),
        failed=sum(r.state == "failed" for r in records),
        in_flight=sum(r.state == "running" for r in records),
        audit=audit_summary(records),
        train_energy_j=train_j,
        measure_energy_j=measure_j,
        carbon_g=(train_j + measure_j) / _JOULES_PER_KWH * run.config.carbon_g_per_kwh,
        carbon_g_per_kwh=run.config.carbon_g_per_kwh,
        meter=run.meter,
        is_estimate=any(reading.is_estimate for reading in readings),
        saving=_saving(records, train_j + measure_j),
    )


def _saving(records: Sequence[TrialRecord], spent_j: float) -> Saving | None:
    complete = [r for r in records if r.state == "complete"]
    for baseline in complete:
        if not baseline.baseline or baseline.accuracy is None or baseline.energy_j is None:
            continue
        rivals = [
            (r.energy_j, r.number)
            for r in complete
            if r.energy_j is not None
            and r.accuracy is not None
            and r.accuracy >= baseline.accuracy
            and r.energy_j < baseline.energy_j
        ]
        if rivals:
            energy_j, number = min(rivals)
            return Saving(
                baseline_trial=baseline.number,
                baseline_energy_j=baseline.energy_j,
                better_trial=number,
                better_energy_j=energy_j,
                inferences_to_break_even=spent_j / (baseline.energy_j - energy_j),
            )
    return None
