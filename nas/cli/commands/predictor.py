"""``nas predictor``: the energy predictor, one module for each action."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

HELP = "fit, use and evaluate the energy predictor"
# Each action is a module ``predictor_ACTION`` with the same members as a verb's.
ACTIONS = ("fit", "predict", "evaluate")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, help=f"one of {', '.join(ACTIONS)}"
    )
    for action in ACTIONS:
        module = _module(action)
        module.add_options(actions.add_parser(action, help=module.HELP))


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    return int(_module(arguments.action).run(arguments))


def _module(action: str) -> ModuleType:
    return importlib.import_module(f"nas.cli.commands.predictor_{action}")
