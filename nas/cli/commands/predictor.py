"""``nas predictor``: how good the energy predictor is; one module for each thing it does."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

# Each is a module ``nas.cli.predictor_ACTION`` with ``add_parser`` and ``run``.
ACTIONS = ("fit", "predict", "evaluate")


def add_parser(subparsers: Any) -> None:
    """Add the verb and what it can do."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "predictor", help="fit, use and judge the energy predictor"
    )
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, help="what to do"
    )
    for action in ACTIONS:
        importlib.import_module(f"nas.cli.commands.predictor_{action}").add_parser(actions)


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    return int(
        importlib.import_module(f"nas.cli.commands.predictor_{arguments.action}").run(arguments)
    )
