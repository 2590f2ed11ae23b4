"""``nas check-data``: report every fault of a task's data before training."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nas.cli.options.common import add_json, add_plugins, named_plugins
from nas.cli.output.tables import print_result

if TYPE_CHECKING:
    from nas.tasks.base.checks import Check

HELP = "report every fault of a task's data"
_MOST_CLASSES = 8


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("task", help="task name or YAML file")
    add_plugins(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; return 2 for errors, 0 for at most warnings."""
    from nas.tasks.base.checks import check_data, failed
    from nas.tasks.registry import get_task

    named_plugins(arguments)
    try:
        check = check_data(get_task(arguments.task))
    except ValueError as error:
        check = failed(arguments.task, error)
    print_result(check.to_dict(), _text(check), as_json=arguments.json)
    return 2 if check.errors else 0


def _text(check: Check) -> str:
    lines = [f"error: {line}" for line in check.errors]
    lines += [f"warning: {line}" for line in check.warnings]
    for name, split in check.splits.items():
        line = f"{name:<11}{split['samples']:>8,} samples"
        if "classes" in split:
            counts = [f"{label} {n:,}" for label, n in split["classes"].items()]
            shown, n_more = ", ".join(counts[:_MOST_CLASSES]), len(counts) - _MOST_CLASSES
            more = f" and {n_more} more" if n_more > 0 else ""
            line += (
                f"; most often {split['majority']}, {split['majority_share']:.1%} "
                f"± {split['majority_share_se']:.1%}; {shown}{more}"
            )
        lines.append(line)
    lines.append(f"{check.name}: {check.n_errors} errors, {len(check.warnings)} warnings")
    return "\n".join(lines)
