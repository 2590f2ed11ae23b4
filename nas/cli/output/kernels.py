"""``nas doctor --kernels``: probe which compression is real on a device, and render it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nas.cli.output.tables import render_columns

if TYPE_CHECKING:
    from search_spaces.compression.realness import RealnessReport, Row, Shape


def probe_kernels(device: str, *, quiet: bool) -> RealnessReport:
    """Probe every choice and shape on ``device``, with joules if a real meter covers it."""
    from functools import partial

    from nas.core.user_folders import cache_folder
    from predictors.measurement.exclusive import DeviceLock
    from predictors.measurement.per_call import joules_per_call, real_meter
    from search_spaces.compression.probing import probe

    def on_shape(shape: Shape, done: int, total: int) -> None:
        if not quiet:
            print(f"probing kernels at {shape} ({done + 1} of {total})", file=sys.stderr)

    meter = real_meter(device)
    joules = None if meter is None else partial(joules_per_call, meter, device)
    lock = DeviceLock(None, device)
    try:
        return probe(
            device,
            cache_dir=cache_folder(),
            joules=joules,
            on_shape=on_shape,
            beside=lock.shared,
            alone=lock.exclusive,
        )
    finally:
        if meter is not None:
            meter.close()


def render_kernels(report: RealnessReport) -> str:
    """Render a row per choice that ran, then choices that did not, then the defaults."""
    from search_spaces.compression.realness import real_choices

    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    has_joules = any(row.joules_to_bf16 is not None for row in report.rows)
    head = ["shape", "choice", "verdict", "time/fp32", "time/bf16"]
    head += ["joules/bf16"] if has_joules else []
    head += ["main product"]
    rows = [
        (
            str(row.shape),
            row.choice,
            row.status,
            _times(row.time_to_fp32),
            _times(row.time_to_bf16),
            *((_times(row.joules_to_bf16),) if has_joules else ()),
            row.kernel or "",
        )
        for row in report.rows
        if row.time_to_fp32 is not None
    ]
    lines = [
        f"kernels on {report.device} ({report.device_name}; {versions}):",
        render_columns(tuple(head), rows, right={3, 4, 5} if has_joules else {3, 4}),
    ]
    lines += _not_run(report)
    precisions, sparsities = real_choices(report)
    lines.append(f"choices by default: {', '.join(precisions)}; {', '.join(sparsities)}")
    lines.append(
        "real: its own kernel ran and was no slower; harmful: it was slower or gained nothing; "
        "simulated: it runs, saves nothing, and is never credited"
    )
    if not has_joules:
        lines.append("joules: not shown, because no real meter covers this device")
    return "\n".join(lines)


def _not_run(report: RealnessReport) -> list[str]:
    by_choice: dict[str, Row] = {}
    for row in report.rows:
        if row.status in ("simulated", "absent"):
            by_choice.setdefault(row.choice, row)
    return [f"{row.status}: {choice} ({row.reason})" for choice, row in by_choice.items()]


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"
