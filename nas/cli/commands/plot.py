"""``nas plot``: pictures of a run, at the width of a paper's column."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nas.cli.options.common import add_json
from nas.cli.options.storage import add_run, loaded
from nas.cli.output.tables import print_result

HELP = "plot a run: front, progress, predictions, importance of genes, architecture"
WHAT = ("front", "progress", "predictions", "importance", "architecture")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_run(parser)
    parser.add_argument(
        "--what",
        choices=WHAT,
        help="one picture (default: every picture that the run has data for)",
    )
    parser.add_argument(
        "--trial",
        type=int,
        help="trial whose architecture is drawn (default: the recommended member)",
    )
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        help="image file (.png, .svg, .pdf), or a folder for PNG files",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.core.user_folders import use_private_plot_cache

    # Must precede the import of Matplotlib.
    use_private_plot_cache()
    from nas.charts.matplotlib_figure import check_ending, save
    from nas.charts.of_run import charts_of

    source = loaded(arguments)
    to: Path = arguments.to
    one_file = to.suffix != ""
    if one_file and arguments.what is None:
        raise ValueError(f"to must be a folder where --what is left out, got {to}")
    if one_file:
        check_ending(to)
    if arguments.trial is not None and arguments.what not in (None, "architecture"):
        raise ValueError(f"trial must be left out with --what {arguments.what}")
    names = WHAT if arguments.what is None else (arguments.what,)
    if not one_file:
        try:
            to.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"plot {to} must be writable: {error.strerror}") from None
    drawn: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in names:
        path = to if one_file else to / f"{name}.png"
        try:
            save(charts_of(source, name, arguments.trial), path)
        except ValueError as error:
            # Without --what, report the pictures that the run has no data for, and draw the rest.
            if len(names) == 1:
                raise
            missing[name] = str(error)
            continue
        drawn[name] = str(path)
    for name, problem in missing.items():
        print(f"not drawn, {name}: {problem}", file=sys.stderr)
    if not drawn:
        raise ValueError(f"run {arguments.run} must have a complete trial to draw, and has none")
    print_result(
        {"drawn": drawn, "missing": missing}, "\n".join(drawn.values()), as_json=arguments.json
    )
    return 0
