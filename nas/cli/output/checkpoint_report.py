"""Render the joules of a checkpoint: one row for each phase and precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.cli.output.tables import print_result, render_columns
from nas.core.names import printable
from nas.core.units import format_bytes, format_interval, format_milliseconds, meter_label

if TYPE_CHECKING:
    from nas.core.estimate import Estimate
    from nas.measuring.measure import CheckpointEnergy


def report_checkpoint(done: CheckpointEnergy, *, as_json: bool) -> int:
    """Print the table; return 1 if a variant failed, else 0."""
    print_result(done.to_dict(), render_checkpoint(done), as_json=as_json)
    return 1 if done.failed else 0


def render_checkpoint(done: CheckpointEnergy) -> str:
    """Render the rows, what failed, and what is left to measure."""
    from predictors.meters.flags import describe_flag

    pending = f", {done.missing} measurements left" if done.missing else ""
    failed = [printable(f"failed: {name}: {cause}") for name, cause in done.failed.items()]
    if failed:
        failed.append("--retry-failed retries them")
    if not done.rows:
        return "\n".join(["no measurement yet", *failed, f"records: {done.records}{pending}"])
    label = meter_label(done.meter, is_estimate=done.is_estimate)
    head = ("precision", "per", f"energy ({label})", "to fp32", "a batch takes", "weights")
    rows = [
        (
            row.precision,
            row.unit,
            format_interval(row.energy),
            _ratio(row.ratio) or ("1" if row.precision == "fp32" else ""),
            _duration(row.latency_s),
            format_bytes(row.weight_bytes),
        )
        for row in done.rows
    ]
    workloads = ", ".join(dict.fromkeys(row.workload for row in done.rows))
    flags = sorted({flag for row in done.rows for flag in row.flags})
    return "\n".join(
        [
            render_columns(head, rows, right=(4, 5)),
            f"{done.checkpoint}: {workloads} on {done.device}",
            _intervals(min(row.n_rounds for row in done.rows)),
            *(f"{flag}: {describe_flag(flag)}" for flag in flags),
            *failed,
            f"records: {done.records}{pending}",
        ]
    )


def _intervals(n_rounds: int) -> str:
    if n_rounds == 1:
        return "95% intervals of one process each: another process may differ by more (--rounds)"
    return f"95% intervals over {n_rounds} rounds of fresh processes, side by side in each"


def _duration(duration_s: float) -> str:
    return f"{duration_s:.3g} s" if duration_s >= 1 else format_milliseconds(duration_s)


def _ratio(ratio: Estimate | None) -> str:
    if ratio is None:
        return ""
    low, mean, high = (f"{value:.3g}" for value in ratio.range)
    return f"{mean} [{low}, {high}]"
