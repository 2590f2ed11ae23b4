"""Render the results of ``nas measure``: records, drift, failures and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.output.tables import print_result, render_columns
from nas.core.units import format_interval, format_joules, format_milliseconds, meter_label

if TYPE_CHECKING:
    from predictors.campaign.active import ActiveResult
    from predictors.campaign.failures import Failure
    from predictors.campaign.plan import Plan, PlanItem
    from predictors.measurement.compare import Comparison
    from predictors.measurement.drift import DriftReport
    from predictors.measurement.records import EnergyRecord


def report(
    plan: Plan,
    items: Sequence[PlanItem],
    path: Path,
    *,
    as_json: bool,
    more: Mapping[str, Any] | None = None,
) -> int:
    """Print the results of ``items`` in their order; ``more`` joins the JSON.

    Returns:
        1 if an item failed, else 0.
    """
    from predictors.campaign.failures import read_failures
    from predictors.measurement.drift import correct_drift
    from predictors.measurement.records import read_records

    keys = {plan.key(item): item for item in items}
    records = read_records(path).records if path.exists() else ()
    sessions = {record.session for record in records if record.item in keys}
    corrected, drifts = correct_drift([r for r in records if r.session in sessions])
    by_key = {record.item: record for record in corrected}
    measured = [by_key[key] for key in keys if key in by_key]
    other_limits = under_other_limits(measured, records)
    failures = read_failures(path)
    failed = {key: failures[key] for key in keys if key in failures and key not in by_key}
    missing = len(keys) - len(measured) - len(failed)
    data = {
        "records": str(path),
        "measured": [record.to_dict() for record in measured],
        "failed": [
            {
                "architecture": keys[key].architecture.to_dict(),
                "workload": keys[key].workload.key,
                "cause": failure.cause,
            }
            for key, failure in failed.items()
        ],
        "missing": missing,
        "under_other_limits": [record.to_dict() for record in other_limits],
        "drift": [asdict(drift) for drift in drifts],
        **(more or {}),
    }
    pending = f", {missing} items not measured yet" if missing else ""
    lines = [
        render_records([*measured, *other_limits]),
        *map(render_drift, drifts),
        *_failures(failed, keys),
        f"records: {path}{pending}",
    ]
    print_result(data, "\n".join(lines), as_json=as_json)
    return 1 if failed else 0


def under_other_limits(
    measured: Sequence[EnergyRecord], records: Sequence[EnergyRecord]
) -> list[EnergyRecord]:
    """Return those of ``records`` that differ from one of ``measured`` only in power limits."""

    def conditions(record: EnergyRecord) -> tuple[str, ...]:
        reading = record.reading
        return (
            record.architecture.hash,
            record.workload.key,
            reading.place,
            reading.source,
            reading.protocol_hash,
        )

    limits = {conditions(record): record.reading.limits for record in measured}
    return [
        record
        for record in records
        if record.role == "candidate"
        and conditions(record) in limits
        and record.reading.limits != limits[conditions(record)]
    ]


def _failures(failed: Mapping[str, Failure], keys: Mapping[str, PlanItem]) -> list[str]:
    lines = [
        f"failed: {keys[key].architecture.describe()}: {failure.cause}"
        for key, failure in failed.items()
    ]
    return [*lines, "--retry-failed retries them"] if lines else []


def render_drift(drift: DriftReport) -> str:
    """Render the drift of the reference and its correction."""
    if drift.is_applied:
        residual = "" if drift.residual is None else f", which leaves {drift.residual:.1%}"
        correction = f"joules above are corrected for it{residual}"
    elif drift.is_irregular:
        correction = "no trend, so nothing is corrected (is the machine busy?)"
    else:
        correction = "within its own intervals, so nothing is corrected"
    return (
        f"drift: the reference on {drift.workload} moved by {drift.span:.1%} over "
        f"{drift.n_references} measurements; {correction}"
    )


def render_active(done: ActiveResult) -> str:
    """Render the number measured and the predictor's interval width."""
    from predictors.campaign.active import CONFIDENCE

    lines = [f"active: {done.n_measured} of {done.n_requested} measured"]
    if done.is_exhausted:
        lines[0] += ", and no other candidate of the space is left"
    if done.width is not None:
        first = next((b.width for b in done.batches if b.width is not None), None)
        before = "" if first is None else f", ±{first:.1%} before"
        lines.append(
            f"prediction intervals near the front are ±{done.width:.1%} on average "
            f"({CONFIDENCE:.0%} intervals{before}); {done.basis}"
        )
    return "\n".join(lines)


def render_records(records: Sequence[EnergyRecord]) -> str:
    """Render drift-corrected records: gross joules and, if idle was measured, net joules."""
    if not records:
        return "no measurement yet"
    from predictors.meters.flags import describe_flag

    first = records[0].reading
    label = meter_label(first.meter, is_estimate=first.is_estimate)
    workloads = {record.reading.workload for record in records}
    units = {record.reading.unit for record in records}
    limits = {record.reading.limits_text for record in records}
    columns: dict[str, list[str]] = {
        f"energy ({label})" if len(units) > 1 else f"energy per {first.unit} ({label})": [
            format_interval(r.reading.estimate) for r in records
        ],
        "net": [
            "" if r.reading.net_energy_j is None else format_joules(r.reading.net_energy_j)
            for r in records
        ],
        "latency": [format_milliseconds(r.reading.latency_s) for r in records],
        "architecture": [r.architecture.describe() for r in records],
    }
    if len(workloads) > 1:
        columns["workload"] = [r.reading.workload for r in records]
    if len(units) > 1:
        columns["per"] = [r.reading.unit for r in records]
    if len(limits) > 1:
        columns["limits"] = [r.reading.limits_text or "unknown" for r in records]
    flags = [dict.fromkeys((*r.flags, *r.reading.caveats)) for r in records]
    columns["flags"] = [", ".join(each) for each in flags]
    device = f"on {first.device}" if len(workloads) > 1 else f"{first.workload} on {first.device}"
    (only,) = limits if len(limits) == 1 else ("",)
    under = f", limited to {only}" if only else ""
    notes = [f"{flag}: {describe_flag(flag)}" for flag in sorted({f for e in flags for f in e})]
    table = render_columns(list(columns), list(zip(*columns.values(), strict=True)))
    return "\n".join([table, f"energy with 95% interval, {device}{under}", *notes])


def render_comparison(done: Comparison) -> str:
    """Render the ratio with its interval, and both models' joules."""
    label = meter_label(done.meter, is_estimate=done.is_estimate)
    mark = "" if done.converged else ", not converged"
    flags = f"\nflags: {', '.join(done.flags)}" if done.flags else ""
    low, ratio, high = done.ratio.range
    return (
        f"A takes {ratio:.3f}x [{low:.3f}, {high:.3f}] the joules of B "
        f"({done.n_pairs} pairs of fresh processes{mark})\n"
        f"A {format_joules(done.energy_a_j)}, B {format_joules(done.energy_b_j)} per {done.unit} "
        f"({label}, {done.workload} on {done.device}){flags}"
    )
