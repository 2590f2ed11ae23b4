"""``nas resume``: go on with a search; its run folder knows all that was asked of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from nas.cli.options.common import add_json, add_moved_task, add_quiet, seconds
from nas.cli.options.plugins import add_plugins, named_plugins
from nas.cli.options.storage import add_storage, storage_of


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "resume", help="go on with a search that was ended, or search further"
    )
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--trials", type=int, help="search on to so many trials")
    parser.add_argument(
        "--refine", type=int, metavar="N", help="evaluate again what is unsure, up to N times"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="trials at a time; 0: in this process, without Ray (default: as before)",
    )
    add_moved_task(parser)
    add_plugins(parser)
    parser.add_argument(
        "--address",
        help="a running Ray cluster, or local for one of its own (default: as before)",
    )
    parser.add_argument(
        "--trial-timeout-s",
        type=seconds,
        metavar="S",
        help="as in nas search (default: as before)",
    )
    parser.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="SHARE",
        help="of a GPU, what each trial takes (default: as before)",
    )
    parser.add_argument(
        "--log", metavar="TO", help="log trials to tensorboard as well (default: as before)"
    )
    add_storage(
        parser,
        "where the study is now, or its URL with the password, which no run folder keeps; or "
        "where its files are now",
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
            f"going on with {arguments.run}: {config.space.name} on "
            f"{arguments.task or config.task}, "
            f"{config.device}",
            file=sys.stderr,
        )
    with SearchProgress(quiet=arguments.quiet) as progress:
        done = nas.resume(
            arguments.run,
            trials=arguments.trials,
            refine=arguments.refine,
            workers=arguments.workers,
            address=arguments.address,
            trial_timeout_s=arguments.trial_timeout_s,
            log=arguments.log,
            gpus_per_trial=arguments.gpus_per_trial,
            **storage_of(arguments.storage),
            task=arguments.task,
            listener=progress,
        )
    return report(done, as_json=arguments.json)
