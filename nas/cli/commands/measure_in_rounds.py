"""``nas measure`` in rounds: a checkpoint in each form (``--from``), networks in ``--runtime``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.options.checkpoint import checkpoint_of, sizes_of
from nas.cli.output.checkpoint_report import report_checkpoint
from nas.cli.output.progress import MeasureProgress
from nas.cli.output.runtime_report import report_networks
from nas.core.names import printable

if TYPE_CHECKING:
    from predictors.campaign.active import Bench
    from predictors.campaign.plan import PlanItem


def measure_checkpoint(arguments: argparse.Namespace, bench: Bench, batch_size: int | None) -> int:
    """Measure what is not in the records yet, and print the table of precisions."""
    from nas.cli.options.architecture_files import read_complete_records
    from nas.measuring.measure import DEFAULT_ROUNDS, Forms, plan_measurement, run_plan

    def say(line: str) -> None:
        if not arguments.quiet:
            print(printable(line), file=sys.stderr)

    path: Path = arguments.to or Path("measurements.jsonl")
    n_rounds = DEFAULT_ROUNDS if arguments.rounds is None else arguments.rounds
    plan = plan_measurement(
        checkpoint_of(arguments),
        bench,
        path,
        sizes=sizes_of(arguments, batch_size, arguments.workload),
        forms=Forms(tuple(arguments.precision or ()), tuple(arguments.runtime or ())),
        n_rounds=n_rounds,
        say=say,
    )
    if path.exists():
        read_complete_records(path)
    for note in plan.notes:
        say(f"note: {note}")
    with MeasureProgress(quiet=arguments.quiet) as progress:
        done = run_plan(
            plan,
            budget_s=arguments.budget_s,
            retry_failed=arguments.retry_failed,
            listener=progress,
        )
    return report_checkpoint(done, as_json=arguments.json)


def measure_runtimes(
    arguments: argparse.Namespace, bench: Bench, items: Sequence[PlanItem], path: Path
) -> int:
    """Measure what is not in the records yet, and print the table of runtimes."""
    from nas.measuring.measure import DEFAULT_ROUNDS
    from nas.measuring.networks import measure_networks, plan_networks
    from search_spaces.runtimes.registry import parse_runtimes

    plan = plan_networks(
        items,
        bench,
        path,
        parse_runtimes(arguments.runtime),
        n_rounds=DEFAULT_ROUNDS if arguments.rounds is None else arguments.rounds,
    )
    for line in plan.left_out:
        if not arguments.quiet:
            print(printable(f"note: left out: {line}"), file=sys.stderr)
    with MeasureProgress(quiet=arguments.quiet) as progress:
        done = measure_networks(
            plan,
            budget_s=arguments.budget_s,
            retry_failed=arguments.retry_failed,
            listener=progress,
        )
    return report_networks(done, as_json=arguments.json)
