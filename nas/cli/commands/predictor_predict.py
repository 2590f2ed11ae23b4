"""``nas predictor predict``: predict joules of architectures without measuring."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.cli.options.common import add_json
from nas.cli.output.tables import print_result, render_columns
from nas.core.units import format_joules

HELP = "predict joules of architectures by a saved predictor"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the action."""
    parser.add_argument("predictor", type=Path, help="file of nas predictor fit (.safetensors)")
    parser.add_argument(
        "files", nargs="+", type=Path, help="architectures (.json or .jsonl), or records"
    )
    parser.add_argument(
        "--task", default=None, help="task whose workload is predicted (default: digits)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=128, help="samples per batch (default: 128)"
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.9,
        help="probability of the prediction intervals (default: 0.9)",
    )
    parser.add_argument(
        "--for-device", metavar="NAME", help="fail unless the predictor is of this device"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    from nas.cli.options.architecture_files import read_named
    from nas.tasks.registry import get_task
    from predictors.energy.artifact import load_predictor

    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size must be an integer >= 1, got {arguments.batch_size}")
    saved = load_predictor(arguments.predictor)
    saved.check(device=arguments.for_device)
    default = get_task(arguments.task or "digits").workload(arguments.batch_size)
    rows: list[dict[str, Any]] = []
    for named in (named for path in arguments.files for named in read_named(path)):
        workload = default if named.workload is None or arguments.task else named.workload
        predicted = saved.predictor.predict([named.architecture], workload, arguments.confidence)
        is_trained_on = workload.key in saved.provenance.workloads
        rows.append(
            {
                "architecture": named.architecture.describe(),
                "hash": named.architecture.hash,
                "workload": workload.key,
                "unit": workload.unit,
                "energy_j": float(predicted.mean[0]),
                "low_j": float(predicted.low[0]),
                "high_j": float(predicted.high[0]),
                "in_range": bool(predicted.in_range[0]) and is_trained_on,
            }
        )
    data = {
        "device": saved.provenance.device,
        "basis": saved.predictor.basis,
        "is_estimate": saved.provenance.is_estimate,
        "confidence": arguments.confidence,
        "predictions": rows,
    }
    print_result(data, _text(data), as_json=arguments.json)
    return 0


def _text(data: Mapping[str, Any]) -> str:
    estimate = ", of an estimate" if data["is_estimate"] else ""
    head = (
        "architecture",
        "workload",
        f"joules, predicted{estimate}",
        "per",
        f"{data['confidence']:.0%} interval",
        "in range",
    )
    rows = [
        (
            row["architecture"],
            row["workload"],
            format_joules(row["energy_j"]),
            row["unit"],
            f"[{format_joules(row['low_j'])}, {format_joules(row['high_j'])}]",
            "yes" if row["in_range"] else "no: trained on others",
        )
        for row in data["predictions"]
    ]
    return f"{data['device']}: {data['basis']}\n{render_columns(head, rows, right=(2,))}"
