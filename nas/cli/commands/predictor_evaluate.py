"""``nas predictor evaluate``: errors of predictions on held-out records, beside baselines."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.options.common import add_json, add_quiet, add_records
from nas.cli.output.account import meter_label
from nas.cli.output.progress import StepProgress
from nas.cli.output.tables import render_columns

if TYPE_CHECKING:
    from predictors.energy.evaluation import Ceiling, Evaluation, SplitResult
    from predictors.energy.learning_curve import CurvePoint
    from predictors.energy.limits import LimitsCompared
    from predictors.energy.metrics import Metrics
    from predictors.energy.splits import SplitKind
    from predictors.measurement.drift import DriftReport
    from predictors.measurement.records import EnergyRecord

SCHEMA_VERSION = 1
_NAMES = {
    "predictor": "predictor (ours)",
    "flops": "FLOPs",
    "params": "parameters",
    "bytes": "bytes",
    "latency": "latency, measured",
}


def add_parser(subparsers: Any) -> None:
    """Add the action."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate", help="evaluate predictions on held-out records, beside baselines"
    )
    add_records(parser)
    parser.add_argument(
        "--plot", type=Path, help="plot the learning curve to a .png, .pdf or .svg file"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and learning curves")
    add_quiet(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    if arguments.seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {arguments.seed!r}")
    devices, drifts = read_corrected(arguments.records)
    if arguments.plot is not None:
        _check_plot(arguments.plot, len(devices))
    from predictors.energy.evaluation import N_FOLDS, evaluate
    from predictors.energy.limits import compare_limits
    from predictors.energy.splits import SPLITS

    evaluations, curves = [], []
    with StepProgress("evaluate", quiet=arguments.quiet) as progress:
        for index, records in enumerate(devices):
            name = records[0].reading.device

            def on_fold(
                kind: SplitKind, done: int, of: int, index: int = index, name: str = name
            ) -> None:
                steps = len(SPLITS) * N_FOLDS
                place = SPLITS.index(kind) * N_FOLDS + round(N_FOLDS * done / of)
                progress.on_step(
                    index * steps + place, len(devices) * steps, f"{name}: {kind} {done}/{of}"
                )

            evaluations.append(evaluate(records, seed=arguments.seed, on_fold=on_fold))
        if arguments.plot is not None:
            curves = [_curve(devices[0], evaluations[0], arguments, progress)]
    if arguments.json:
        result = {
            "schema": SCHEMA_VERSION,
            "devices": [e.to_dict() for e in evaluations],
            "learning_curve": [asdict(p) for curve in curves for p in curve],
            "drift": [asdict(report) for report in drifts],
        }
        if compared := compare_limits(devices):
            result["limits_compared"] = [asdict(pair) for pair in compared]
        print(json.dumps(result, allow_nan=False))
        return 0
    from nas.cli.output.measure_report import render_drift

    print("\n\n".join(render(found, devices[i][0]) for i, found in enumerate(evaluations)))
    for pair in compare_limits(devices):
        print("\n".join(_wrapped(render_limits(pair))))
    for report in drifts:
        print("\n".join(_wrapped(render_drift(report))))
    if arguments.plot is not None:
        print(f"learning curve: {arguments.plot}")
    return 0


def read_corrected(
    paths: Sequence[Path],
) -> tuple[list[tuple[EnergyRecord, ...]], list[DriftReport]]:
    """Read distinct records of all files, correct them for drift, and group them by device.

    Raises:
        ValueError: a file is missing or holds something else, or there is no measurement.
    """
    from predictors.energy.evaluation import by_device
    from predictors.measurement.drift import correct_drift
    from predictors.measurement.records import read_records

    every: dict[str, EnergyRecord] = {}
    for path in paths:
        found = read_records(path)
        if found.cut_off:
            print(f"{path}: skipped a truncated line", file=sys.stderr)
        # A measurement in two files (a copy, or one file named twice) counts once.
        every |= {json.dumps(r.to_dict(), sort_keys=True): r for r in found.records}
    corrected, reports = correct_drift(list(every.values()))
    if not corrected:
        names = ", ".join(map(str, paths))
        raise ValueError(f"records {names} must hold one or more measurements, got none")
    return by_device(corrected), reports


def _check_plot(path: Path, n_devices: int) -> None:
    from predictors.energy.plots import check_ending

    check_ending(path)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"plot must be a file in a writable folder, got {path}")
    if n_devices > 1:
        raise ValueError(
            f"--plot draws one device under one protocol and one set of limits, and the records "
            f"hold {n_devices}"
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


def render(found: Evaluation, first: EnergyRecord) -> str:
    """Render the evaluation of one device in at most 100 columns."""
    label = meter_label(first.reading.meter, is_estimate=found.is_estimate)
    n_workloads = len(found.workloads)
    workloads = found.workloads[0] if n_workloads == 1 else f"{n_workloads} workloads"
    lines = [
        f"{found.device} ({label}{', ' if found.limits else ''}{found.limits})",
        *(["joules are estimates: errors are against estimates"] if found.is_estimate else []),
        f"{found.n_architectures} architectures, {found.n_records} records, "
        f"{found.n_sessions} sessions, {workloads}",
        *_render_ceiling(found.ceiling),
    ]
    for split in found.splits:
        lines += ["", *_render_split(split)]
    lines += [
        "",
        "tau and Spearman are within a workload. A baseline is a power law fitted to the same "
        "training",
        "rows; latency is measured for each candidate, so that baseline is no prediction.",
    ]
    return "\n".join(lines)


def render_limits(found: LimitsCompared) -> str:
    """Render how the same models' joules differ between two power limits of one board."""
    return (
        f"limits: {found.n_models} models were measured on {found.device} under both "
        f"{found.first or 'unknown limits'} and {found.second or 'unknown limits'}; under the "
        f"second they take {found.ratio.mean:.3f}x the joules "
        f"({found.ratio.low:.3f} to {found.ratio.high:.3f}) "
        f"and {found.latency_ratio:.3f}x the time (medians)"
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


def _render_ceiling(found: Ceiling) -> list[str]:
    if found.mape is None or found.floor_mape is None:
        lines = ["ceiling: unknown, no record has two windows to halve"]
    else:
        tau = "" if found.tau is None else f"tau {found.tau:.3f}, "
        lines = [
            f"ceiling: halves of a record's windows agree with {tau}MAPE {found.mape:.2%}",
        ]
        worth = (
            ""
            if found.reliability is None
            else f"; whole records: reliability {found.reliability:.4f} (Spearman-Brown)"
        )
        lines.append(f"  a perfect predictor would err by about {found.floor_mape:.2%}{worth}")
    if found.jobs_mape is None or found.jobs_floor_mape is None:
        lines.append("  noise between processes: unknown, no architecture was measured twice")
    else:
        lines.append(
            f"  between processes: MAPE {found.jobs_mape:.2%} over {found.n_repeated} repeated; "
            f"a perfect predictor errs by about {found.jobs_floor_mape:.2%}"
        )
    return lines
