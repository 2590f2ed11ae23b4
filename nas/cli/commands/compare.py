"""``nas compare``: the fronts of two runs, or of one run on two devices, side by side."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from nas.cli.options.device_names import device_text, seen_on
from nas.cli.options.formats import add_formats, render_csv, render_markdown
from nas.cli.options.storage import loaded_pair
from nas.cli.output.account import corner_text, meter_label
from nas.cli.output.tables import render_columns
from nas.core.units import format_interval
from nas.tasks.base.metric import ACCURACY, get_metric

if TYPE_CHECKING:
    from nas.analysis.compare_runs import RunsCompared

SCHEMA_VERSION = 1
_RIGHT = (1,)
_CSV_FIELDS = (
    *("trial", "quality", "quality_se", "energy_j", "energy_low_j", "energy_high_j", "unit"),
    *("meter", "is_estimate", "device", "measured_on", "workload", "architecture_text"),
)


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare", help="compare the fronts of two runs of one task, or of a run on two devices"
    )
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
        raise ValueError("name RUN_B, or two devices with --device, to compare a run on them")
    runs = (arguments.run_a, arguments.run_b or arguments.run_a)
    read = loaded_pair(runs, arguments.storage)
    a, b = (seen_on(run, name) for run, name in zip(read, (names[0], names[-1]), strict=True))
    found = compare_runs(a, b)
    if arguments.json:
        print(json.dumps({"schema": SCHEMA_VERSION} | found.to_dict(), allow_nan=False))
    elif arguments.csv:
        print(render_csv(_flat(found)), end="")
    elif arguments.markdown:
        print(render_markdown(_head(found), _rows(found), _RIGHT))
    else:
        print(render(found))
    return 0


def render(found: RunsCompared) -> str:
    """Render the members of both fronts, then the figures."""
    members = [member for side in found.sides for member in side.members]
    metric = get_metric(members[0].metric) if members else ACCURACY
    corner = corner_text(found.objectives, found.reference, metric)
    why = "as set" if found.given else "a tenth of the joint extent beyond the worst of both"
    lines = [render_columns(_head(found), _rows(found), _RIGHT), ""]
    for side in found.sides:
        label = meter_label(side.meter, is_estimate=side.is_estimate)
        lines.append(
            f"{side.label}: {side.run}, {side.workload} on "
            f"{device_text(side.device, side.measured_on)} ({label}): "
            f"{len(side.members)} members, {len(side.dominated)} dominated by the other front"
        )
    for side, other in (found.sides, found.sides[::-1]):
        lines.append(
            f"hypervolume of {side.label}: {side.hypervolume:.4f}; it covers {side.covers:.0%} "
            f"of {other.label}"
        )
    lines.append(f"hypervolume: quality x decades, reference point {corner} ({why})")
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def _head(found: RunsCompared) -> tuple[str, ...]:
    units = {member.unit for side in found.sides for member in side.members}
    energy = f"energy per {units.pop()}" if len(units) == 1 else "energy"
    return ("run", "trial", "quality", energy, "architecture", "dominated by")


def _rows(found: RunsCompared) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for side, other in (found.sides, found.sides[::-1]):
        for m in side.members:
            by = side.dominated.get(m.trial, ())
            rows.append(
                (
                    side.label,
                    str(m.trial),
                    get_metric(m.metric).text(m.quality, m.quality_se),
                    format_interval(m.energy),
                    m.architecture_text,
                    " ".join(f"{other.label}{trial}" for trial in by),
                )
            )
    return rows


def _flat(found: RunsCompared) -> list[dict[str, Any]]:
    return [
        {"run": side.run, "label": side.label}
        | {name: getattr(m, name) for name in _CSV_FIELDS}
        | {"dominated_by": " ".join(map(str, side.dominated.get(m.trial, ())))}
        for side in found.sides
        for m in side.members
    ]
