"""``nas completion``: print the script that completes ``nas`` in a shell."""

from __future__ import annotations

import argparse
import json
from typing import Any

from nas.cli.options.common import add_json
from nas.cli.shell.completion import SHELLS, render


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "completion", help="print a script that completes nas in a shell"
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read it")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.cli.main import build_parser

    script = render(build_parser(), arguments.shell)
    if arguments.json:
        print(json.dumps({"shell": arguments.shell, "script": script}, allow_nan=False))
    else:
        print(script, end="")
    return 0
