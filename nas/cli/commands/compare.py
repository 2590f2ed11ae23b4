"""``nas compare``: compare the fronts of two runs, or of one run on two devices."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nas.analysis.account import reference_text
from nas.analysis.front_table import device_text
from nas.cli.options.common import add_formats
from nas.cli.options.storage import loaded_pair, on_device
from nas.cli.output.tables import Table, print_table, render_columns
from nas.core.units import format_interval, meter_label
from nas.tasks.base.metric import get_metric

if TYPE_CHECKING:
    from nas.analysis.compare_runs import ComparedRun, RunsCompared

HELP = "compare the fronts of two runs of one task, or of a run on two devices"
SCHEMA_VERSION = 1
_CSV_FIELDS = (
    *("trial", "quality", "quality_se", "energy_j", "energy_low_j", "energy_high_j", "unit"),
    *("meter", "is_estimate", "device", "measured_on", "workload", "architecture_text"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("run_a", metavar="RUN_A", help="run folder")
    parser.add_argument(
        "run_b", metavar="RUN_B", nargs="?", help="another run folder (default: RUN_A)"
    )
    parser.add_argument(
        "--device",
        action="append",
        metavar="NAME",
        help="use the joules of this device, named by nas search --measure-on; given twice: the "
        "first for RUN_A, the second for RUN_B",
    )
    parser.add_argument(
        "--storage",
        action="append",
        metavar="URL",
        help="where a run's study or files are; given twice: the first for RUN_A, the second for "
        "RUN_B",
    )
    add_formats(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.analysis.compare_runs import compare_runs

    names = arguments.device or [None]
    if len(names) > 2:
        raise ValueError(f"device must be given once or twice, got {', '.join(names)}")
    if arguments.run_b is None and len(set(names)) < 2:
        raise ValueError("RUN_B must be given, or --device twice for one run on two devices")
    runs = loaded_pair((arguments.run_a, arguments.run_b or arguments.run_a), arguments.storage)
    compared = compare_runs(on_device(runs[0], names[0]), on_device(runs[1], names[-1]))
    data = {"schema": SCHEMA_VERSION} | compared.to_dict()
    print_table(arguments, data, _csv_rows(compared), _table(compared), render(compared))
    return 0


def render(compared: RunsCompared) -> str:
    """Render the members of both fronts, then the hypervolumes."""
    metric = get_metric(compared.runs[0].members[0].metric)
    reference = reference_text(compared.objectives, compared.reference, metric)
    why = (
        "as set"
        if compared.reference_is_set
        else "beyond the worst of both fronts by a tenth of their joint range"
    )
    lines = [render_columns(*_table(compared)), ""]
    for side in compared.runs:
        label = meter_label(side.meter, is_estimate=side.is_estimate)
        lines.append(
            f"{side.label}: {side.run}, {side.workload} on "
            f"{device_text(side.device, side.measured_on)} ({label}): "
            f"{len(side.members)} members, {len(side.dominated)} dominated by the other front"
        )
    for side, other in _both_ways(compared):
        lines.append(
            f"hypervolume of {side.label}: {side.hypervolume:.4f}; it covers {side.covers:.0%} "
            f"of {other.label}"
        )
    lines.append(f"hypervolume: quality x decades, reference point {reference} ({why})")
    return "\n".join([*lines, *(f"note: {note}" for note in compared.notes)])


def _both_ways(compared: RunsCompared) -> tuple[tuple[ComparedRun, ComparedRun], ...]:
    return compared.runs, compared.runs[::-1]


def _table(compared: RunsCompared) -> Table:
    units = {member.unit for side in compared.runs for member in side.members}
    energy = f"energy per {units.pop()}" if len(units) == 1 else "energy"
    rows = [
        (
            side.label,
            str(m.trial),
            get_metric(m.metric).text(m.quality, m.quality_se),
            format_interval(m.energy),
            m.architecture_text,
            " ".join(f"{other.label}{trial}" for trial in side.dominated.get(m.trial, ())),
        )
        for side, other in _both_ways(compared)
        for m in side.members
    ]
    return Table(("run", "trial", "quality", energy, "architecture", "dominated by"), rows, {1})


def _csv_rows(compared: RunsCompared) -> list[dict[str, Any]]:
    return [
        {"run": side.run, "label": side.label}
        | {name: getattr(m, name) for name in _CSV_FIELDS}
        | {"dominated_by": " ".join(map(str, side.dominated.get(m.trial, ())))}
        for side in compared.runs
        for m in side.members
    ]
