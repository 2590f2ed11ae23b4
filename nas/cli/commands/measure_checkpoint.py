"""``nas measure --from``: measure the joules of a pretrained checkpoint in each precision."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.options.checkpoint import checkpoint_of, sizes_of
from nas.cli.output.checkpoint_report import report_checkpoint
from nas.cli.output.progress import MeasureProgress
from nas.core.names import printable

if TYPE_CHECKING:
    from predictors.campaign.active import Bench


def measure_checkpoint(arguments: argparse.Namespace, bench: Bench, batch_size: int | None) -> int:
    """Measure what is not in the records yet, and print the table of precisions."""
    from nas.cli.options.architecture_files import read_complete_records
    from nas.measuring.measure import DEFAULT_ROUNDS, plan_measurement, run_plan

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
        precisions=tuple(arguments.precision or ()),
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
