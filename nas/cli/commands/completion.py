"""``nas completion``: print the script that completes ``nas`` in a shell."""

from __future__ import annotations

import argparse

from nas.cli.options.common import add_json
from nas.cli.output.tables import print_result
from nas.cli.shell.completion import SHELLS, render

HELP = "print a script that completes nas in a shell"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read it")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.cli.main import build_parser

    script = render(build_parser(), arguments.shell)
    data = {"shell": arguments.shell, "script": script}
    print_result(data, script.removesuffix("\n"), as_json=arguments.json)
    return 0
