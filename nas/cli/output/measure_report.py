"""Render the results of ``nas measure``: records, drift, failures and comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.output.account import meter_label
from nas.cli.output.tables import render_columns
from nas.core.units import format_interval, format_joules, format_milliseconds

if TYPE_CHECKING:
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
    every = read_records(path).records if path.exists() else ()
    sessions = {record.session for record in every if record.item in keys}
    corrected, drifts = correct_drift([r for r in every if r.session in sessions])
    by_key = {record.item: record for record in corrected}
    found = [by_key[key] for key in keys if key in by_key]
    elsewhere = under_other_limits(found, every)
    failures = read_failures(path)
    failed = {key: failures[key] for key in keys if key in failures and key not in by_key}
    missing = len(keys) - len(found) - len(failed)
    if as_json:
        result = {
            "records": str(path),
            "measured": [record.to_dict() for record in found],
            "failed": [
                {
                    "architecture": keys[key].architecture.to_dict(),
                    "workload": keys[key].workload.key,
                    "cause": failure.cause,
                }
                for key, failure in failed.items()
            ],
            "missing": missing,
            "under_other_limits": [record.to_dict() for record in elsewhere],
            "drift": [asdict(drift) for drift in drifts],
            **(more or {}),
        }
        print(json.dumps(result, allow_nan=False))
    else:
        print(render_records([*found, *elsewhere]))
        for line in [*map(render_drift, drifts), *_failures(failed, keys)]:
            print(line)
        left = f", {missing} items not measured yet" if missing else ""
        print(f"records: {path}{left}")
    return 1 if failed else 0


def under_other_limits(
    found: Sequence[EnergyRecord], every: Sequence[EnergyRecord]
) -> list[EnergyRecord]:
    """Return records of the same models that differ from ``found`` only in power limits."""

    def alike(record: EnergyRecord) -> tuple[str, ...]:
        reading = record.reading
        return (
            record.architecture.hash,
            record.workload.key,
            reading.device,
            reading.source,
            reading.protocol_hash,
        )

    limits = {alike(record): record.reading.limits for record in found}
    return [
        record
        for record in every
        if record.role == "candidate"
        and alike(record) in limits
        and record.reading.limits != limits[alike(record)]
    ]


def _failures(failed: Mapping[str, Failure], keys: Mapping[str, PlanItem]) -> list[str]:
    lines = [
        f"failed: {keys[key].architecture.describe()}: {failure.cause}"
        for key, failure in failed.items()
    ]
    return [*lines, "--retry-failed retries them"] if lines else []


def render_drift(found: DriftReport) -> str:
    """Render the drift of the reference and its correction."""
    if found.is_applied:
        left = "" if found.residual is None else f", which leaves {found.residual:.1%}"
        done = f"joules above are corrected for it{left}"
    elif found.is_irregular:
        done = "no trend, so nothing is corrected (is the machine busy?)"
    else:
        done = "within its own intervals, so nothing is corrected"
    return (
        f"drift: the reference on {found.workload} moved by {found.span:.1%} over "
        f"{found.n_references} measurements; {done}"
    )


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
    rows = []
    for record in records:
        reading = record.reading
        net_j = reading.net_energy_j
        rows.append(
            (
                format_interval(reading.estimate),
                "" if net_j is None else format_joules(net_j),
                format_milliseconds(reading.latency_s),
                record.architecture.describe(),
                *([reading.workload] if len(workloads) > 1 else []),
                *([reading.unit] if len(units) > 1 else []),
                *([reading.limits_text or "unknown"] if len(limits) > 1 else []),
                ", ".join(dict.fromkeys((*record.flags, *reading.caveats))),
            )
        )
    head = (
        f"energy ({label})" if len(units) > 1 else f"energy per {first.unit} ({label})",
        "net",
        "latency",
        "architecture",
        *(["workload"] if len(workloads) > 1 else []),
        *(["per"] if len(units) > 1 else []),
        *(["limits"] if len(limits) > 1 else []),
        "flags",
    )
    where = f"on {first.device}" if len(workloads) > 1 else f"{first.workload} on {first.device}"
    (only,) = limits if len(limits) == 1 else ("",)
    under = f", limited to {only}" if only else ""
    flags = sorted({flag for r in records for flag in (*r.flags, *r.reading.caveats)})
    notes = [f"{flag}: {describe_flag(flag)}" for flag in flags]
    return "\n".join(
        [render_columns(head, rows), f"energy with 95% interval, {where}{under}", *notes]
    )


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
