"""Render the joules of architectures in several runtimes: one row for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.cli.output.checkpoint_report import describe_intervals, format_duration, format_ratio
from nas.cli.output.tables import print_result, render_columns
from nas.core.names import TORCH, printable
from nas.core.units import format_interval, meter_label

if TYPE_CHECKING:
    from nas.measuring.networks import NetworksEnergy


def report_networks(done: NetworksEnergy, *, as_json: bool) -> int:
    """Print the table; return 1 if a variant failed, else 0."""
    print_result(done.to_dict(), render_networks(done), as_json=as_json)
    return 1 if done.failed else 0


def render_networks(done: NetworksEnergy) -> str:
    """Render the rows, what failed, and what is left to measure."""
    from predictors.meters.flags import describe_flag

    pending = f", {done.missing} measurements left" if done.missing else ""
    failed = [printable(f"failed: {name}: {cause}") for name, cause in done.failed.items()]
    if failed:
        failed.append("--retry-failed retries them")
    if not done.rows:
        return "\n".join(["no measurement yet", *failed, f"records: {done.records}{pending}"])
    label = meter_label(done.meter, is_estimate=done.is_estimate)
    workloads = list(dict.fromkeys(row.workload for row in done.rows))
    units = {row.unit for row in done.rows}
    energy = f"energy ({label})" if len(units) > 1 else f"energy per {done.rows[0].unit} ({label})"
    columns: dict[str, list[str]] = {
        "runtime": [row.runtime for row in done.rows],
        energy: [format_interval(row.energy) for row in done.rows],
        f"to {TORCH}": [
            "1" if row.runtime == TORCH else format_ratio(row.ratio) for row in done.rows
        ],
        "a batch takes": [format_duration(row.latency_s) for row in done.rows],
        "architecture": [row.architecture for row in done.rows],
    }
    if len(workloads) > 1:
        columns["workload"] = [row.workload for row in done.rows]
    if len(units) > 1:
        columns["per"] = [row.unit for row in done.rows]
    flags = sorted({flag for row in done.rows for flag in row.flags})
    return "\n".join(
        [
            render_columns(list(columns), list(zip(*columns.values(), strict=True)), right=(3,)),
            f"{', '.join(workloads)} on {done.device}",
            describe_intervals(min(row.n_rounds for row in done.rows)),
            *(f"{flag}: {describe_flag(flag)}" for flag in flags),
            *failed,
            f"records: {done.records}{pending}",
        ]
    )
