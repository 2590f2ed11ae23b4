"""``nas check-data``: report every fault of a task's data before training."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from nas.cli.options.common import add_json
from nas.cli.options.plugins import add_plugins, named_plugins

if TYPE_CHECKING:
    from nas.tasks.base.checks import Check

_BAD_INPUT = 2
_MOST_CLASSES = 8


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "check-data", help="report every fault of a task's data"
    )
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
    if arguments.json:
        print(json.dumps(check.to_dict(), allow_nan=False))
    else:
        print(_text(check))
    return _BAD_INPUT if check.errors else 0


def _text(check: Check) -> str:
    lines = [f"error: {line}" for line in check.errors]
    lines += [f"warning: {line}" for line in check.warnings]
    for name, split in check.splits.items():
        line = f"{name:<11}{split['samples']:>8,} samples"
        if "classes" in split:
            counts = list(split["classes"].items())
            shown = ", ".join(f"{label} {n:,}" for label, n in counts[:_MOST_CLASSES])
            more = (
                f" and {len(counts) - _MOST_CLASSES} more" if len(counts) > _MOST_CLASSES else ""
            )
            line += (
                f"; most often {split['majority']}, {split['majority_share']:.1%} "
                f"± {split['majority_share_se']:.1%}; {shown}{more}"
            )
        lines.append(line)
    n_warnings = len(check.warnings)
    lines.append(f"{check.name}: {check.n_errors} errors, {n_warnings} warnings")
    return "\n".join(lines)
