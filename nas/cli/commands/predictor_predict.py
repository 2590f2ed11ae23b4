"""``nas predictor predict``: predict joules of architectures without measuring."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.options.checkpoint import (
    add_from,
    add_size_and_precision,
    checkpoint_of,
    refuse_without_from,
    sizes_of,
)
from nas.cli.options.common import add_json
from nas.cli.output.tables import print_result, render_columns
from nas.core.units import format_joules

if TYPE_CHECKING:
    from search_spaces.architecture import Architecture
    from search_spaces.workload import Workload

HELP = "predict joules of architectures by a saved predictor"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the action."""
    parser.add_argument("predictor", type=Path, help="file of nas predictor fit (.safetensors)")
    parser.add_argument(
        "files", nargs="*", type=Path, help="architectures (.json or .jsonl), or records"
    )
    add_from(
        parser,
        "predict a pretrained checkpoint: a Hugging Face folder, a GGUF file, or a hub name",
    )
    add_size_and_precision(parser, "fp32")
    parser.add_argument(
        "--phase",
        action="append",
        help="with --from: phase of a language model, prefill or generate (repeatable; default: "
        "both)",
    )
    parser.add_argument(
        "--task",
        default=None,
        help="task whose workload is predicted (default: digits); with --from, the task's name",
    )
    parser.add_argument(
        "--batch-size", type=int, help="samples per batch (default: 128; 1 with --from)"
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
    from predictors.energy.artifact import load_predictor

    size = arguments.batch_size
    if size is not None and size < 1:
        raise ValueError(f"--batch-size must be an integer >= 1, got {size}")
    if bool(arguments.files) == (arguments.checkpoint is not None):
        raise ValueError("name architecture files or --from DIR, one of both")
    refuse_without_from(arguments, "sequence_length", "image_size", "precision", "phase")
    saved = load_predictor(arguments.predictor)
    saved.check(device=arguments.for_device)
    pairs = _of_files(arguments) if arguments.checkpoint is None else _of_checkpoint(arguments)
    rows: list[dict[str, Any]] = []
    for architecture, workload in pairs:
        predicted = saved.predictor.predict([architecture], workload, arguments.confidence)
        is_trained_on = workload.key in saved.provenance.workloads
        rows.append(
            {
                "architecture": architecture.describe(),
                "hash": architecture.hash,
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


def _of_files(arguments: argparse.Namespace) -> list[tuple[Architecture, Workload]]:
    """Return the architectures of files, each with its workload."""
    from nas.cli.options.architecture_files import read_named
    from nas.tasks.registry import get_task

    size = arguments.batch_size
    default = get_task(arguments.task or "digits").workload(size or 128)
    pairs = []
    for each in (named for path in arguments.files for named in read_named(path)):
        workload = each.workload
        if workload is None or arguments.task:
            workload = default
        elif size is not None:
            workload = workload.with_batch_size(size)
        pairs.append((each.architecture, workload))
    return pairs


def _of_checkpoint(arguments: argparse.Namespace) -> list[tuple[Architecture, Workload]]:
    """Return the checkpoint in each precision and phase; print its notes to stderr."""
    from nas.measuring.subject import precision_named, subject_of

    subject = subject_of(checkpoint_of(arguments), sizes_of(arguments, arguments.batch_size))
    for note in subject.notes:
        print(f"note: {note}", file=sys.stderr)
    architecture = subject.checkpoint.architecture
    return [
        (architecture.in_precision(precision_named(name)), workload)
        for workload in subject.workloads
        for name in dict.fromkeys(arguments.precision or ("fp32",))
    ]


def _text(data: Mapping[str, Any]) -> str:
    estimate = " from estimates" if data["is_estimate"] else ""
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
            "yes" if row["in_range"] else "no: not trained on such",
        )
        for row in data["predictions"]
    ]
    return f"{data['device']}: {data['basis']}\n{render_columns(head, rows, right=(2,))}"
