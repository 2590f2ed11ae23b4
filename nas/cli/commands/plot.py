"""``nas plot``: draw charts of a run or a checkpoint, as wide as a paper's column."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.options.checkpoint import add_from, checkpoint_of
from nas.cli.options.common import add_json
from nas.cli.options.storage import add_run, loaded
from nas.cli.output.tables import print_result

if TYPE_CHECKING:
    from nas.charts.chart import Chart

HELP = (
    "plot a run or a checkpoint: front, progress, predictions, importance of genes, architecture, "
    "examples of found boxes"
)
WHAT = ("front", "progress", "predictions", "importance", "architecture")
# Charts of some kinds of tasks only.
_OF_KINDS = ("examples",)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_run(parser, is_optional=True)
    add_from(
        parser,
        "draw the architecture of a pretrained checkpoint instead of a run: a Hugging Face "
        "folder, a GGUF file, or a hub name",
    )
    parser.add_argument(
        "--what",
        choices=(*WHAT, *_OF_KINDS),
        help="one chart (default: every chart that the run has data for)",
    )
    parser.add_argument(
        "--trial",
        type=int,
        help="trial whose architecture or examples are drawn (default: the recommended member)",
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

    _check_source(arguments)
    to: Path = arguments.to
    one_file = to.suffix != ""
    if one_file and arguments.what is None and arguments.checkpoint is None:
        raise ValueError(f"to must be a folder without --what, got {to}")
    if one_file:
        check_ending(to)
    if arguments.trial is not None and arguments.what not in (None, "architecture", *_OF_KINDS):
        raise ValueError(f"trial must be left out with --what {arguments.what}")
    charts, names = _charts(arguments)
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
            save(charts(name), path)
        except ValueError as error:
            # Without --what, report the charts that the run has no data for, and draw the others.
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


def _check_source(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` unless there is a run or a checkpoint, without options of the other."""
    if (arguments.run is None) == (arguments.checkpoint is None):
        raise ValueError("either a run or --from DIR must be given")
    if arguments.checkpoint is None:
        return
    if arguments.what not in (None, "architecture"):
        raise ValueError(f"--from draws only the architecture: leave out --what {arguments.what}")
    for option, value in (("--trial", arguments.trial), ("--storage", arguments.storage)):
        if value is not None:
            raise ValueError(f"{option} applies to a run: leave it out with --from")


def _charts(
    arguments: argparse.Namespace,
) -> tuple[Callable[[str], tuple[Chart, ...]], tuple[str, ...]]:
    """Return the function that makes the charts of a name, and the names."""
    if arguments.checkpoint is not None:
        from nas.charts.architecture import architecture_chart

        loaded_from = checkpoint_of(arguments)
        architecture, workload = loaded_from.architecture, loaded_from.workload
        title = f"{workload.name}: {architecture.describe()}"
        chart = architecture_chart(architecture, workload, title, "cpu")
        return (lambda name: (chart,)), ("architecture",)
    from nas.charts.of_run import charts_of

    source = loaded(arguments)
    names: tuple[str, ...] = (arguments.what,)
    if arguments.what is None:
        stored = source.stored_workload
        is_detection = stored is not None and stored.is_detection
        names = (*WHAT, *_OF_KINDS) if is_detection else WHAT
    return (lambda name: charts_of(source, name, arguments.trial)), names
