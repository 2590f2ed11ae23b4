"""``nas front``: the Pareto front of a run, as a table, JSON, CSV or Markdown."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas.analysis.account import render_fidelity, render_spending
from nas.analysis.front_table import (
    BEFORE_NOTE,
    PARETO_NOTE,
    condition_notes,
    described_member,
    front_columns,
    is_mixed,
    place_text,
    runtime_notes,
)
from nas.cli.options.common import add_device_name, add_formats
from nas.cli.options.front_query import (
    Answer,
    add_query,
    add_questions,
    answer,
    named_baseline,
    queried_front,
)
from nas.cli.options.storage import add_run, loaded
from nas.cli.output.tables import Table, print_table, render_columns
from nas.tasks.base.metric import get_metric

if TYPE_CHECKING:
    from nas.analysis.summary import SearchSummary
    from nas.pareto.queries import Front

HELP = "show the Pareto front of a run, or its best member within a budget"
SCHEMA_VERSION = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_run(parser)
    add_device_name(parser)
    add_query(parser)
    add_questions(parser)
    add_formats(parser)
    parser.add_argument("--baseline", type=int, help="trial to compare savings with")
    parser.add_argument(
        "--carbon-g-per-kwh", type=float, help="grams of CO2e per kWh (default: the search's)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.analysis.summary import summarise

    source = loaded(arguments)
    front, exportable = queried_front(source, arguments)
    baseline = arguments.baseline
    if baseline is None and arguments.at_least_as_accurate_as is not None:
        baseline = named_baseline(source, arguments.at_least_as_accurate_as).number
    summary = summarise(source, baseline=baseline, carbon_g_per_kwh=arguments.carbon_g_per_kwh)
    answered = replace(answer(source, front, arguments, summary), exportable=exportable)
    print_table(
        arguments,
        render_json(answered.front) | answered.to_dict() | {"summary": summary.to_dict()},
        _csv_rows(answered),
        _table(answered.front, answered) if len(answered.front) else None,
        _text(answered, summary),
    )
    return 0


def _text(answered: Answer, summary: SearchSummary) -> str:
    lines = [render_table(answered.front, answered), *answered.notes(summary)]
    if len(answered.front):
        lines.append("")
        if summary.finalists:
            lines.append(render_fidelity(summary))
        metric = get_metric(answered.front.members[0].metric)
        lines.append(render_spending(summary, metric))
    return "\n".join(lines)


def _table(front: Front, answered: Answer | None = None) -> Table:
    """Return the columns of a front with members, then those of ``answered``."""
    columns = [*front_columns(front), *([] if answered is None else answered.columns())]
    return Table(
        head=[head for head, _, _ in columns],
        rows=list(zip(*(cells for _, cells, _ in columns), strict=True)),
        right={i for i, (_, _, is_right) in enumerate(columns) if is_right},
    )


def render_table(front: Front, answered: Answer | None = None) -> str:
    """Render a table with notes; test quality is the last standard column, never used to choose.

    The columns of ``answered`` follow.
    """
    if not len(front):
        return "no front yet: no complete trial satisfies every constraint"
    first = described_member(front)
    lines = [
        render_columns(*_table(front, answered)),
        f"{get_metric(first.metric).name} ± standard error on validation data; energy with 95% "
        f"interval, {first.workload} on {place_text(front)}",
        *condition_notes(front),
        *runtime_notes(front),
        PARETO_NOTE,
        "* recorded, never used to choose",
    ]
    if is_mixed(front):
        lines.append(
            "loadable: a stock class of transformers supports it (nas export --exportable "
            "huggingface)"
        )
    if any(m.inherited_quality is not None for m in front):
        lines.append(BEFORE_NOTE)
    if any(m.weights == "inherited" for m in front):
        is_predicted = any(m.joules == "predicted" for m in front)
        lines.append(
            "no finalist is trained yet: qualities are with the supernet's weights"
            f"{', and joules partly predicted' if is_predicted else ''}"
        )
    return "\n".join(lines)


def render_json(front: Front) -> dict[str, Any]:
    """Return the stable schema: ``{"schema": 1, "members": [...]}``, joules per ``unit``."""
    return {"schema": SCHEMA_VERSION, "members": front.to_rows()}


def _csv_rows(answered: Answer) -> list[dict[str, Any]]:
    """Return one row per member, with the architecture as its short text."""
    return [
        {name: value for name, value in row.items() if name != "architecture"}
        | {
            "flags": " ".join(row["flags"]),
            "other_runtimes_j": " ".join(f"{n}={j}" for n, j in row["other_runtimes_j"].items()),
        }
        | fields
        for row, fields in zip(answered.front.to_rows(), answered.csv_fields(), strict=True)
    ]
