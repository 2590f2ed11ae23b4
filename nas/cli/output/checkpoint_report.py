"""Render the joules of a checkpoint: one row for each phase, runtime and precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.cli.output.tables import print_result, render_columns
from nas.core.names import TORCH, printable
from nas.core.units import format_bytes, format_interval, format_milliseconds, meter_label

if TYPE_CHECKING:
    from nas.core.estimate import Estimate
    from nas.measuring.measure import CheckpointEnergy

# The row that ratios are to.
_BASELINE = (TORCH, "fp32")


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
    has_runtimes = any(row.runtime != TORCH for row in done.rows)
    baseline = f"to {TORCH} fp32" if has_runtimes else "to fp32"
    columns: dict[str, list[str]] = {
        **({"runtime": [row.runtime for row in done.rows]} if has_runtimes else {}),
        "precision": [row.precision for row in done.rows],
        "per": [row.unit for row in done.rows],
        f"energy ({label})": [format_interval(row.energy) for row in done.rows],
        baseline: [
            format_ratio(row.ratio) or ("1" if (row.runtime, row.precision) == _BASELINE else "")
            for row in done.rows
        ],
        "a batch takes": [format_duration(row.latency_s) for row in done.rows],
        "weights": [
            "" if row.weight_bytes is None else format_bytes(row.weight_bytes) for row in done.rows
        ],
    }
    workloads = ", ".join(dict.fromkeys(row.workload for row in done.rows))
    flags = sorted({flag for row in done.rows for flag in row.flags})
    return "\n".join(
        [
            render_columns(
                list(columns),
                list(zip(*columns.values(), strict=True)),
                right=(len(columns) - 2, len(columns) - 1),
            ),
            f"{done.checkpoint}: {workloads} on {done.device}",
            describe_intervals(min(row.n_rounds for row in done.rows)),
            *(f"{flag}: {describe_flag(flag)}" for flag in flags),
            *failed,
            f"records: {done.records}{pending}",
        ]
    )


def describe_intervals(n_rounds: int) -> str:
    """Return a line that says what the intervals of so many rounds are over."""
    if n_rounds == 1:
        return "95% intervals of one process each: another process may differ by more (--rounds)"
    return f"95% intervals over {n_rounds} rounds of fresh processes, side by side in each"


def format_duration(duration_s: float) -> str:
    """Return seconds, or milliseconds below one."""
    return f"{duration_s:.3g} s" if duration_s >= 1 else format_milliseconds(duration_s)


def format_ratio(ratio: Estimate | None) -> str:
    """Return a ratio with its interval; empty for ``None``."""
    if ratio is None:
        return ""
    low, mean, high = (f"{value:.3g}" for value in ratio.range)
    return f"{mean} [{low}, {high}]"
