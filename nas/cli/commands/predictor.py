"""``nas predictor``: the energy predictor, one module for each action."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

# Each is a module ``predictor_ACTION`` of this package with ``add_parser`` and ``run``.
ACTIONS = ("fit", "predict", "evaluate")


def add_parser(subparsers: Any) -> None:
    """Add the verb and its actions."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "predictor", help="fit, use and evaluate the energy predictor"
    )
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, help="one of fit, predict, evaluate"
    )
    for action in ACTIONS:
        importlib.import_module(f"nas.cli.commands.predictor_{action}").add_parser(actions)


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    return int(
        importlib.import_module(f"nas.cli.commands.predictor_{arguments.action}").run(arguments)
    )
