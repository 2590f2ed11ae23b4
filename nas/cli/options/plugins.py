"""``--plugin FILE``: tasks and model families of the user."""

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
        help="run this Python file, which adds tasks or model families (repeatable)",
    )


def named_plugins(arguments: argparse.Namespace) -> tuple[Plugin, ...]:
    """Load the named plug-ins into this process.

    Raises:
        ValueError: a file cannot be read or is not a plug-in.
    """
    from search_spaces.plugins import name_plugin

    return tuple(name_plugin(path) for path in arguments.plugin)
