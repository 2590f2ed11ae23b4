"""``nas predictor predict``: predict joules of architectures without measuring."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nas.cli.options.common import add_json


def add_parser(subparsers: Any) -> None:
    """Add the action."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "predict", help="predict joules of architectures by a saved predictor"
    )
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
    from nas.cli.output.tables import render_columns
    from nas.core.units import format_joules
    from nas.tasks.registry import get_task
    from predictors.energy.artifact import load_predictor

    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size must be an integer >= 1, got {arguments.batch_size}")
    saved = load_predictor(arguments.predictor)
    saved.check(device=arguments.for_device)
    usual = get_task(arguments.task or "digits").workload(arguments.batch_size)
    rows: list[dict[str, Any]] = []
    for path in arguments.files:
        for one in read_named(path):
            workload = usual if one.workload is None or arguments.task else one.workload
            found = saved.predictor.predict([one.architecture], workload, arguments.confidence)
            measured = workload.key in saved.provenance.workloads
            rows.append(
                {
                    "architecture": one.architecture.describe(),
                    "hash": one.architecture.hash,
                    "workload": workload.key,
                    "unit": workload.unit,
                    "energy_j": float(found.mean[0]),
                    "low_j": float(found.low[0]),
                    "high_j": float(found.high[0]),
                    "in_range": bool(found.in_range[0]) and measured,
                }
            )
    if arguments.json:
        result = {
            "device": saved.provenance.device,
            "basis": saved.predictor.basis,
            "is_estimate": saved.provenance.is_estimate,
            "confidence": arguments.confidence,
            "predictions": rows,
        }
        print(json.dumps(result, indent=2))
        return 0
    print(f"{saved.provenance.device}: {saved.predictor.basis}")
    estimate = ", of an estimate" if saved.provenance.is_estimate else ""
    head = (
        "architecture",
        "workload",
        f"joules, predicted{estimate}",
        "per",
        f"{arguments.confidence:.0%} interval",
        "in range",
    )
    table = [
        (
            str(row["architecture"]),
            str(row["workload"]),
            format_joules(row["energy_j"]),
            str(row["unit"]),
            f"[{format_joules(row['low_j'])}, {format_joules(row['high_j'])}]",
            "yes" if row["in_range"] else "no: trained on others",
        )
        for row in rows
    ]
    print(render_columns(head, table, right=(2,)))
    return 0
