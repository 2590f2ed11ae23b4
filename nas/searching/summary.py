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

    def text(self) -> str:
        """Some lines for people."""
        from nas.cli.units import format_joules

        label = f"{self.meter}, estimate" if self.is_estimate else self.meter
        spent_j = self.train_energy_j + self.measure_energy_j
        lines = [
            f"trials: {self.complete} complete, {self.dropped} dropped by the gate before "
            f"training, {self.failed} failed"
            + (f", {self.in_flight} interrupted" if self.in_flight else ""),
            self._audit_text(),
            f"spent by the search: {format_joules(spent_j)} ({label}; "
            f"training {format_joules(self.train_energy_j)}, "
            f"measuring {format_joules(self.measure_energy_j)}), "
            f"{self.carbon_g:.2g} g CO2e at {self.carbon_g_per_kwh:g} g/kWh",
        ]
        if self.saving is not None:
            saving = self.saving
            lines.append(
                f"saving: trial {saving.better_trial} is at least as accurate as the baseline "
                f"(trial {saving.baseline_trial}) at {saving.ratio:.1f}x fewer joules; "
                f"that pays for the search after {saving.inferences_to_break_even:.2g} inferences"
            )
        return "\n".join(lines)

    def _audit_text(self) -> str:
        audit = self.audit
        if audit.false_drop_rate is None or audit.low is None or audit.high is None:
            return "gate audit: no dropped candidate was audited, so no false-drop rate"
        return (
            f"gate audit: {audit.n_false} of {audit.n_audited} audited candidates were on the "
            f"front after all, false-drop rate {audit.false_drop_rate:.0%} "
            f"(95% interval {audit.low:.0%} to {audit.high:.0%})"
        )


def summarise(run: Run) -> SearchSummary:
    """The account of ``run`` as it stands."""
    records = run.trials()
    train_j = sum(r.train_energy_j or 0.0 for r in records)
    measure_j = sum(r.measure_energy_j or 0.0 for r in records)
    trained = [r for r in records if r.state in ("complete", "failed")]
    readings = [r.reading for r in records if r.reading is not None]
    return SearchSummary(
        finished=len(trained) >= run.config.trials or run.stop_reason is not None,
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
