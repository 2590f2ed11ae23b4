"""``nas plot``: pictures of a run, at the width of a paper's column."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.options.common import add_json
from nas.cli.options.storage import add_run, loaded
from nas.cli.output.account import meter_label

if TYPE_CHECKING:
    from nas.store.run import Run

WHAT = ("front", "progress", "predictions", "importance", "architecture")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plot", help="plot a run: front, progress, predictions, importance of genes, architecture"
    )
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
    from nas.plots.style import ENDINGS

    found = loaded(arguments)
    to: Path = arguments.to
    one_file = to.suffix != ""
    if one_file and arguments.what is None:
        raise ValueError(f"to must be a folder where --what is left out, got {to}")
    if one_file and to.suffix.lower() not in ENDINGS:
        raise ValueError(f"plot must end in {', '.join(ENDINGS)}, got {to}")
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
            _DRAW[name](found, path, arguments.trial)
        except ValueError as error:
            # Without --what, report the pictures that the run has no data for, and draw the rest.
            if len(names) == 1:
                raise
            missing[name] = str(error)
            continue
        drawn[name] = str(path)
        if not arguments.json:
            print(path)
    for name, problem in missing.items():
        print(f"not drawn, {name}: {problem}", file=sys.stderr)
    if not drawn:
        raise ValueError(f"run {arguments.run} must have a complete trial to draw, and has none")
    if arguments.json:
        print(json.dumps({"drawn": drawn, "missing": missing}, allow_nan=False))
    return 0


def draw_front(found: Run, path: Path, trial: int | None = None) -> None:
    """Plot every trial of a run.

    Raises:
        ValueError: no trial is complete, or the path is no image file that can be written.
    """
    from nas.plots.front import PlotPoint, plot_front
    from nas.records.trial import judged

    on_front = {member.trial for member in found.front()}
    points = []
    is_estimate = False
    records = found.trials()
    shown = {record.number for record in judged(records)}
    for record in records:
        reading, energy, prediction = record.reading, record.energy, record.prediction
        if record.number in shown and energy is not None:
            is_estimate |= reading is None or reading.is_estimate
            kind = "front" if record.number in on_front else "complete"
            spots = [kind, "baseline"] if record.baseline else [kind]
            points += [
                PlotPoint(
                    spot,  # type: ignore[arg-type]
                    energy.mean,
                    energy.low,
                    energy.high,
                    record.quality,
                    record.quality_se or 0.0,
                )
                for spot in spots
            ]
        elif record.state == "dropped" and prediction is not None:
            points.append(PlotPoint("dropped", prediction.mean, prediction.low, prediction.high))
    label = meter_label(found.meter, is_estimate=is_estimate)
    plot_front(
        points,
        path,
        title=f"{Path(found.task).stem}: {found.metric.name} and energy",
        metric=found.metric,
        energy_label=f"joules per {found.unit} ({label}, 95% interval)",
        # With more objectives the front is not a staircase in these two.
        joined=not found.config.goals.costs,
    )


def _progress(found: Run, path: Path, trial: int | None) -> None:
    from nas.analysis.history import history_of
    from nas.cli.output.units import format_joules
    from nas.plots.progress import plot_progress

    history = history_of(found)
    if history is None:
        raise ValueError("the plot must have a front to show, and there is none yet")
    worst = found.metric.text(history.reference[0], digits=1)
    corner = f"{worst}, {format_joules(history.reference[1])}"
    plot_progress(
        history,
        path,
        title=f"hypervolume, reference point {corner}",
        joules_label=f"joules spent by the search ({_label(found)})",
    )


def _predictions(found: Run, path: Path, trial: int | None) -> None:
    from nas.analysis.predictions import predictions_of
    from nas.plots.predictions import plot_predictions

    plot_predictions(
        predictions_of(found.trials()),
        path,
        confidence=found.config.gate.confidence,
        meter_label=_label(found),
        unit=found.unit,
    )


def _importance(found: Run, path: Path, trial: int | None) -> None:
    from nas.analysis.importance import importance_of
    from nas.plots.importance import plot_importance

    plot_importance(importance_of(found.trials(), found.config.space), path)


def _architecture(found: Run, path: Path, trial: int | None) -> None:
    from nas.plots.architecture import plot_architecture
    from nas.plots.blocks import blocks_of

    number = found.front().recommended().trial if trial is None else trial
    record = found.trial(number)
    workload = found.workload
    shape = "x".join(map(str, workload.input_shape))
    patch = record.architecture.patch_size
    plot_architecture(
        blocks_of(record.architecture, found.config.measured_device),
        path,
        title=f"trial {number}: {record.architecture.describe()}",
        d_model=record.architecture.d_model,
        ends=(
            f"embedding of {shape}" + (f", patches of {patch}" if patch > 1 else ""),
            "norm and head",
        ),
    )


def _label(found: Run) -> str:
    estimates = (r.reading.is_estimate for r in found.trials() if r.reading is not None)
    return meter_label(found.meter, is_estimate=any(estimates))


_DRAW: dict[str, Callable[[Any, Path, int | None], None]] = {
    "front": draw_front,
    "progress": _progress,
    "predictions": _predictions,
    "importance": _importance,
    "architecture": _architecture,
}
