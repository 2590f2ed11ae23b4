"""``nas predictor evaluate``: evaluate predictions on held-out records, beside baselines."""

from __future__ import annotations

import argparse
import json
import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.options.common import add_json, add_quiet, add_records, add_seed, check_seed
from nas.cli.output.progress import StepProgress
from nas.cli.output.tables import print_result, render_columns
from nas.core.units import meter_label

if TYPE_CHECKING:
    from predictors.energy.evaluation import Ceiling, Evaluation, SplitResult
    from predictors.energy.learning_curve import CurvePoint
    from predictors.energy.limits import LimitsCompared
    from predictors.energy.metrics import Metrics
    from predictors.energy.splits import SplitKind
    from predictors.measurement.drift import DriftReport
    from predictors.measurement.records import EnergyRecord

HELP = "evaluate predictions on held-out records, beside baselines"
SCHEMA_VERSION = 1
_NAMES = {
    "predictor": "predictor (ours)",
    "flops": "FLOPs",
    "params": "parameters",
    "bytes": "bytes",
    "latency": "latency, measured",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the action."""
    add_records(parser)
    parser.add_argument(
        "--plot", type=Path, help="plot the learning curve to a .png, .pdf or .svg file"
    )
    add_seed(parser, "seed of folds and learning curves")
    add_quiet(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    check_seed(arguments)
    from nas.cli.output.measure_report import render_drift

    devices, drifts = read_corrected(arguments.records)
    if arguments.plot is not None:
        _check_plot(arguments.plot, len(devices))
    from predictors.energy.evaluation import N_FOLDS, evaluate
    from predictors.energy.limits import compare_limits
    from predictors.energy.splits import SPLITS

    evaluations, curves = [], []
    with StepProgress("evaluate", quiet=arguments.quiet) as progress:
        for index, records in enumerate(devices):
            name = records[0].reading.place

            def on_fold(
                kind: SplitKind, done: int, total: int, index: int = index, name: str = name
            ) -> None:
                steps = len(SPLITS) * N_FOLDS
                step = SPLITS.index(kind) * N_FOLDS + round(N_FOLDS * done / total)
                progress.on_step(
                    index * steps + step, len(devices) * steps, f"{name}: {kind} {done}/{total}"
                )

            evaluations.append(evaluate(records, seed=arguments.seed, on_fold=on_fold))
        if arguments.plot is not None:
            curves = [_curve(devices[0], evaluations[0], arguments, progress)]
    compared = compare_limits(devices)
    data = {
        "schema": SCHEMA_VERSION,
        "devices": [e.to_dict() for e in evaluations],
        "learning_curve": [asdict(p) for curve in curves for p in curve],
        "drift": [asdict(drift) for drift in drifts],
    }
    if compared:
        data["limits_compared"] = [asdict(pair) for pair in compared]
    parts = [render(e, records[0]) for e, records in zip(evaluations, devices, strict=True)]
    notes = [*map(render_limits, compared), *map(render_drift, drifts)]
    lines = ["\n\n".join(parts), *(line for note in notes for line in _wrapped(note))]
    if arguments.plot is not None:
        lines.append(f"learning curve: {arguments.plot}")
    print_result(data, "\n".join(lines), as_json=arguments.json)
    return 0


def read_corrected(
    paths: Sequence[Path],
) -> tuple[list[tuple[EnergyRecord, ...]], list[DriftReport]]:
    """Read distinct records of all files, correct them for drift, and group them by device.

    Raises:
        ValueError: a file is missing or is not of records, or there is no measurement.
    """
    from nas.cli.options.architecture_files import read_complete_records
    from predictors.energy.evaluation import by_device
    from predictors.measurement.drift import correct_drift

    distinct: dict[str, EnergyRecord] = {}
    for path in paths:
        # A measurement in two files (a copy, or one file named twice) counts once.
        records = read_complete_records(path)
        distinct |= {json.dumps(r.to_dict(), sort_keys=True): r for r in records}
    corrected, drifts = correct_drift(list(distinct.values()))
    if not corrected:
        names = ", ".join(map(str, paths))
        raise ValueError(f"records {names} must have at least one measurement, got none")
    return by_device(corrected), drifts


def _check_plot(path: Path, n_devices: int) -> None:
    from predictors.energy.plots import check_ending

    check_ending(path)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"plot must be a file in a writable folder, got {path}")
    if n_devices > 1:
        raise ValueError(
            f"--plot draws one device under one protocol and one set of limits, but the records "
            f"have {n_devices}"
        )


def _curve(
    records: Sequence[EnergyRecord],
    evaluation: Evaluation,
    arguments: argparse.Namespace,
    progress: StepProgress,
) -> tuple[CurvePoint, ...]:
    from predictors.energy.learning_curve import N_SEEDS, learning_curve
    from predictors.energy.plots import plot_learning_curve
    from predictors.energy.splits import SplitRefusedError

    try:
        points = learning_curve(
            records,
            seed=arguments.seed,
            on_step=lambda done, of: progress.on_step(done, of, f"learning curve {done}/{of}"),
        )
    except SplitRefusedError as refusal:
        raise ValueError(f"plot: {refusal}") from None
    estimate = ", estimates" if evaluation.is_estimate else ""
    plot_learning_curve(
        points,
        arguments.plot,
        title=f"{evaluation.device} ({evaluation.source}{estimate}): "
        f"held-out architectures, median and quartiles of {N_SEEDS} seeds",
        floor_mape=evaluation.ceiling.noise_mape,
    )
    return points


def render(evaluation: Evaluation, first: EnergyRecord) -> str:
    """Render the evaluation of one device in at most 100 columns."""
    label = meter_label(first.reading.meter, is_estimate=evaluation.is_estimate)
    n_workloads = len(evaluation.workloads)
    workloads = evaluation.workloads[0] if n_workloads == 1 else f"{n_workloads} workloads"
    lines = [
        f"{evaluation.device} ({label}{', ' if evaluation.limits else ''}{evaluation.limits})",
        *(
            ["joules are estimates: errors are against estimates"]
            if evaluation.is_estimate
            else []
        ),
        f"{evaluation.n_architectures} architectures, {evaluation.n_records} records, "
        f"{evaluation.n_sessions} sessions, {workloads}",
        *_render_ceiling(evaluation.ceiling),
    ]
    for split in evaluation.splits:
        lines += ["", *_render_split(split)]
    lines += [
        "",
        "tau and Spearman are within a workload. A baseline is a power law fitted to the same "
        "training",
        "rows; latency is measured for each candidate, so that baseline is no prediction.",
    ]
    return "\n".join(lines)


def render_limits(pair: LimitsCompared) -> str:
    """Render how the same models' joules differ between two power limits of one board."""
    first, second = pair.first or "unknown limits", pair.second or "unknown limits"
    low, ratio, high = pair.ratio.range
    return (
        f"limits: {pair.n_models} models were measured on {pair.device} under both {first} and "
        f"{second}; under the second they take {ratio:.3f}x the joules ({low:.3f} to "
        f"{high:.3f}) and {pair.latency_ratio:.3f}x the time (medians)"
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 100, subsequent_indent="  ")


def _render_split(split: SplitResult) -> list[str]:
    if split.refusal is not None:
        return _wrapped(f"{split.kind}: unknown, {split.refusal}")
    folds = f"{split.n_folds} folds" if split.n_folds > 1 else "1 fold"
    n_test = next(iter(split.metrics.values())).n
    head = ("", "tau", "Spearman", "MAPE", "p95", "in 90%", "±5%", "±10%")
    rows = [(_NAMES[name], *_cells(metrics)) for name, metrics in split.metrics.items()]
    return [
        f"{split.kind}: {split.description}",
        f"  {folds}, {split.n_train} rows to train on (median), {n_test} rows tested",
        *(
            f"  {line}"
            for line in render_columns(head, rows, right=range(1, len(head))).splitlines()
        ),
    ]


def _cells(metrics: Metrics) -> tuple[str, ...]:
    def rank(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return (
        rank(metrics.tau),
        rank(metrics.spearman),
        f"{metrics.mape:.2%}",
        f"{metrics.p95:.2%}",
        "-" if metrics.coverage is None else f"{metrics.coverage:.1%}",
        f"{metrics.within_5:.1%}",
        f"{metrics.within_10:.1%}",
    )


def _render_ceiling(ceiling: Ceiling) -> list[str]:
    if ceiling.mape is None or ceiling.floor_mape is None:
        lines = ["ceiling: unknown, no record has two windows to halve"]
    else:
        tau = "" if ceiling.tau is None else f"tau {ceiling.tau:.3f}, "
        whole = ceiling.reliability
        reliability = (
            "" if whole is None else f"; whole records: reliability {whole:.4f} (Spearman-Brown)"
        )
        lines = [
            f"ceiling: halves of a record's windows agree with {tau}MAPE {ceiling.mape:.2%}",
            f"  a perfect predictor would err by about {ceiling.floor_mape:.2%}{reliability}",
        ]
    if ceiling.jobs_mape is None or ceiling.jobs_floor_mape is None:
        return [*lines, "  noise between processes: unknown, no architecture was measured twice"]
    return [
        *lines,
        f"  between processes: MAPE {ceiling.jobs_mape:.2%} over {ceiling.n_repeated} repeated; a "
        f"perfect predictor errs by about {ceiling.jobs_floor_mape:.2%}",
    ]
