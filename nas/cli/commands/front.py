"""``nas front``: the Pareto front of a run, as a table, JSON, CSV or Markdown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nas.analysis.account import render_fidelity, render_spending
from nas.analysis.front_table import (
    PARETO_NOTE,
    condition_notes,
    described_member,
    front_columns,
)
from nas.cli.options.device_names import add_device_name, device_text, seen_on
from nas.cli.options.formats import add_formats, render_markdown
from nas.cli.options.formats import render_csv as render_rows
from nas.cli.options.front_query import Answer, add_questions, answer, named_baseline
from nas.cli.options.limits import BUDGET_HELP, add_limits, requested_limits
from nas.cli.options.storage import add_run, loaded
from nas.cli.output.tables import render_columns
from nas.core.units import format_bytes, format_milliseconds, parse_joules
from nas.tasks.base.metric import ACCURACY, get_metric

if TYPE_CHECKING:
    from nas.exporting.formats.registry import ExportableFront
    from nas.pareto.queries import Front
    from nas.store.run import Run

SCHEMA_VERSION = 1


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "front", help="show the Pareto front of a run, or its best member within a budget"
    )
    add_run(parser)
    add_device_name(parser)
    add_query(parser)
    add_questions(parser)
    add_formats(parser)
    parser.add_argument("--baseline", type=int, help="trial to compare savings with")
    parser.add_argument(
        "--carbon-g-per-kwh", type=float, help="grams of CO2e per kWh (default: the search's)"
    )


def add_query(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose members."""
    parser.add_argument("--max-joules", help=BUDGET_HELP)
    parser.add_argument(
        "--min-quality",
        metavar="SCORE",
        help="minimum quality on validation data in the metric's own unit: 84%%, 2.7 bits (at "
        "most) or 21 BLEU",
    )
    add_limits(parser)
    parser.add_argument(
        "--exportable",
        action="append",
        metavar="FORMAT",
        help="front of the trials that a format of nas export can represent, such as onnx "
        "(repeatable)",
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--recommended",
        action="store_true",
        help="the member with the fewest joules within one standard error of the best quality",
    )
    one.add_argument(
        "--knee",
        action="store_true",
        help="the member at the knee of the front; an error if it has none",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.analysis.summary import summarise

    found = seen_on(loaded(arguments), arguments.device)
    held = held_of(found, arguments)
    whole = limited_front(found, arguments) if held is None else held.front
    baseline = arguments.baseline
    if baseline is None and arguments.at_least_as_accurate_as is not None:
        baseline = named_baseline(found, arguments.at_least_as_accurate_as).number
    summary = summarise(found, baseline=baseline, carbon_g_per_kwh=arguments.carbon_g_per_kwh)
    # --knee and --recommended choose among the members that every other option leaves.
    found_answer = answer(found, query(whole, arguments), arguments, summary, held)
    chosen = found_answer.front
    if arguments.json:
        account = {"summary": summary.to_dict()}
        print(json.dumps(render_json(chosen) | found_answer.to_dict() | account, allow_nan=False))
    elif arguments.csv:
        print(render_csv(found_answer), end="")
    elif arguments.markdown:
        print(render_table(chosen, found_answer, markdown=True))
    else:
        print(render_table(chosen, found_answer))
        for line in found_answer.notes(summary):
            print(line)
        if len(whole):
            print()
            if summary.finalists:
                print(render_fidelity(summary))
            print(render_spending(summary))
    return 0


def limited_front(found: Run, arguments: argparse.Namespace) -> Front:
    """Return the front of the trials that satisfy the requested constraints.

    Raises:
        ValueError: no trial does, although the run has a front.
    """
    front = found.front(requested_limits(arguments))
    whole = front if len(front) else found.front()
    if len(whole) > len(front) == 0:
        extent: list[str] = []
        requested = []
        for name, field, text in _LIMITS:
            if (limit := getattr(arguments, name)) is not None:
                values = [v for m in whole if (v := getattr(m, field)) is not None]
                requested.append(f"{name} {limit}")
                unit = " parameters" if name == "max_params" else ""
                extent += [f"{text(min(values))} to {text(max(values))}{unit}"] if values else []
        raise ValueError(
            f"no complete trial satisfies {' and '.join(requested)}: the front has "
            f"{' and '.join(extent) or 'no such figure'}"
        )
    return front


def held_of(found: Run, arguments: argparse.Namespace) -> ExportableFront | None:
    """Return the front of the trials that ``--exportable`` allows, ``None`` without it.

    Raises:
        ValueError: there is no such format, or it can represent no trial.
    """
    from nas.exporting.formats.registry import exportable_front

    if arguments.exportable is None:
        return None
    names = [name.strip() for text in arguments.exportable for name in text.split(",")]
    return exportable_front(found, names, requested_limits(arguments))


def query(front: Front, arguments: argparse.Namespace) -> Front:
    """Return the members within the energy budget and with the minimum quality.

    Raises:
        ValueError: an option is out of range, or no member qualifies.
    """
    budget = arguments.max_joules
    budget = None if budget is None else parse_joules(budget, "max_joules")
    metric = get_metric(front.members[0].metric) if len(front) else ACCURACY
    least = arguments.min_quality
    least = None if least is None else metric.parse(least, "min_quality")
    if budget is None and least is None:
        return front
    # Raises, with the extent of the front, if no member qualifies.
    front.best(max_joules=budget, min_quality=least)
    return front.within(max_joules=budget, min_quality=least)


def render_table(front: Front, also: Answer | None = None, *, markdown: bool = False) -> str:
    """Render a table; test quality is the last standard column, never used to choose.

    The columns of ``also`` follow. A Markdown table has no notes below.
    """
    if not len(front):
        return "no front yet: no complete trial satisfies every constraint"
    columns = front_columns(front)
    columns += [] if also is None else [(head, cells, False) for head, cells in also.columns()]
    head = [name for name, _, _ in columns]
    rows = list(zip(*(cells for _, cells, _ in columns), strict=True))
    right = {i for i, (_, _, is_right) in enumerate(columns) if is_right}
    if markdown:
        return render_markdown(head, rows, right)
    first = described_member(front)
    metric = get_metric(first.metric)
    lines = [render_columns(head, rows, right)]
    lines.append(
        f"{metric.name} ± standard error on validation data; energy with 95% interval, "
        f"{first.workload} on {device_text(first.device, first.measured_on)}"
    )
    lines += condition_notes(front)
    lines.append(PARETO_NOTE)
    lines.append("* recorded, never used to choose")
    if any(m.inherited_quality is not None for m in front):
        lines.append("inherited: the quality with the supernet's weights, before fine-tuning")
    if any(m.weights == "inherited" for m in front):
        lines.append(
            "no finalist is trained yet: qualities are with the supernet's weights"
            + (
                ", and joules partly predicted"
                if any(m.joules == "predicted" for m in front)
                else ""
            )
        )
    return "\n".join(lines)


# Option, field of a member, and text of its values.
_LIMITS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("max_latency_ms", "latency_s", format_milliseconds),
    ("max_params", "params", lambda n: f"{n:,.0f}"),
    ("max_memory", "peak_memory_bytes", format_bytes),
)


def render_json(front: Front) -> dict[str, Any]:
    """Return the stable schema: ``{"schema": 1, "members": [...]}``, joules per ``unit``."""
    return {"schema": SCHEMA_VERSION, "members": front.to_rows()}


def render_csv(found: Answer) -> str:
    """Render one row per member, with the architecture as its short text."""
    rows = [
        {k: v for k, v in row.items() if k != "architecture"} | {"flags": " ".join(row["flags"])}
        for row in found.front.to_rows()
    ]
    return render_rows([row | more for row, more in zip(rows, found.flat(), strict=True)])
