"""``nas resume``: continue a search from the configuration in its run folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nas.cli.options.common import (
    add_json,
    add_moved_task,
    add_plugins,
    add_quiet,
    named_plugins,
)
from nas.cli.options.search_options import add_driver_options, driver_fields
from nas.cli.options.storage import add_storage, storage_of

HELP = "continue an interrupted search, or search further"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--trials", type=int, help="search further, up to this many trials")
    add_driver_options(parser, resumes=True)
    add_moved_task(parser)
    add_plugins(parser)
    add_storage(
        parser,
        "where the study is, with the password if it has one (a run folder stores none), or "
        "where the files are",
    )
    add_quiet(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    import nas
    from nas.cli.commands.search import report
    from nas.cli.output.progress import SearchProgress

    named_plugins(arguments)
    config = nas.load(arguments.run).config
    if not arguments.quiet:
        print(
            f"resuming {arguments.run}: {config.space.name} on "
            f"{arguments.task or config.task}, {config.device}",
            file=sys.stderr,
        )
    with SearchProgress(quiet=arguments.quiet) as progress:
        done = nas.resume(
            arguments.run,
            trials=arguments.trials,
            refine=arguments.refine,
            **(driver_fields(arguments) | storage_of(arguments.storage)),
            task=arguments.task,
            listener=progress,
        )
    return report(done, as_json=arguments.json)
