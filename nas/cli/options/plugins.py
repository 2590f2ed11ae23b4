"""``--plugin FILE``, which several verbs take: what a file of the user's own adds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces.plugins import Plugin


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="run this Python file of yours, which adds tasks or families of networks (may be "
        "given several times)",
    )


def named_plugins(arguments: argparse.Namespace) -> tuple[Plugin, ...]:
    """Load the files that are named; from now on they are known to this machine.

    Raises:
        ValueError: one cannot be read, or is no plug-in.
    """
    from search_spaces.plugins import name_plugin

    return tuple(name_plugin(path) for path in arguments.plugin)
