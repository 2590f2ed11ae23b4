"""What a checkpoint takes in each runtime and precision: joules, duration, memory, difference.

    make checkpoints
    python -m experiments.benchmarks.serving.checkpoint_runtimes minilm
    python -m experiments.benchmarks.serving.checkpoint_runtimes smollm2 --text input.txt

Joules are measured side by side in rounds of fresh processes, as by ``nas measure --runtime``; of
a language model at prefill and at generation. Each converted file is then run once with its
runtime alone, for the memory of that process and for the difference of its outputs from torch's in
fp32. With ``--text`` each form of a language model is judged on that text, in bits per byte.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nas
from experiments.benchmarks.compression.checkpoint_joules import (
    CHECKPOINTS,
    Progress,
    instruction_sets,
)
from experiments.benchmarks.serving.text_quality import bits_of
from experiments.results.sheet import ROOT, Sheet, add_keep_option
from experiments.results.table import Column, Table
from nas.core.scratch import scratch
from nas.measuring.measure import CheckpointEnergy, Row
from nas.measuring.subject import (
    DEFAULT_TOKENS,
    Sizes,
    precision_named,
    subject_of,
)
from predictors.measurement.worker import random_inputs
from search_spaces.compression.apply import compress
from search_spaces.pretrained import load_checkpoint
from search_spaces.runtimes import serve
from search_spaces.runtimes.base import Form
from search_spaces.runtimes.converting import outputs_of
from search_spaces.runtimes.phases import as_converted
from search_spaces.runtimes.registry import CONVERTERS, RUNTIMES

Findings = Mapping[str, Any]
MODELS = {"minilm": "all-minilm-l6-v2", "smollm2": "smollm2-135m-instruct"}
COLUMNS = (
    Column("runtime", "{runtime}"),
    Column("precision", "{precision}"),
    Column("per", "{unit}"),
    Column("energy, estimate", "{energy_mj:.2f} mJ [{low_mj:.2f}, {high_mj:.2f}]"),
    Column("to torch fp32", "{ratio:.2f} [{ratio_low:.2f}, {ratio_high:.2f}]"),
    Column("a batch takes", "{latency_ms:.1f} ms"),
    Column("memory, alone", "{memory_mb:.0f} MB"),
    Column("outputs differ by", "{difference:.5f}"),
)
QUALITY = Column("bits per byte", "{bits:.3f}")


def alone(
    folder: Path, found: CheckpointEnergy, length: int | None
) -> dict[Any, Mapping[str, Any]]:
    """Run each converted form once with its runtime alone; findings by runtime, form and phase."""
    checkpoint = load_checkpoint(folder)
    subject = subject_of(checkpoint, Sizes(sequence_length=length))
    findings: dict[Any, Findings] = {}
    for workload in subject.workloads:
        sized = checkpoint.with_input_shape(workload.input_shape)
        network = compress(sized.build(), sized.architecture.in_precision("fp32"))
        inputs = torch.from_numpy(random_inputs(workload, 0))
        module, arguments = as_converted(network, workload, inputs)
        expected = outputs_of(module, arguments).numpy()
        for row in found.rows:
            if row.runtime in CONVERTERS and row.phase == workload.phase:
                form = Form.of(sized.architecture.in_precision(row.precision))
                findings[row.runtime, row.precision, row.phase] = _run(
                    row.runtime, module, arguments, expected, form
                )
    return findings


def _run(
    runtime: str,
    module: torch.nn.Module,
    arguments: Sequence[torch.Tensor],
    expected: Any,
    form: Form,
) -> Mapping[str, Any]:
    converter = CONVERTERS[runtime]
    with scratch("alone") as temporary:
        converter.convert(module, arguments, form, temporary)
        arrays = temporary / "arrays.npz"
        inputs = {f"inputs_{i:03}": each.numpy() for i, each in enumerate(arguments)}
        np.savez(arrays, outputs=expected, **inputs)
        job = {
            "runtime": runtime,
            "path": str(temporary / converter.file(form.precision)),
            "precision": form.precision,
            "threads": 1,
            "arrays": str(arrays),
        }
        done = subprocess.run(
            [sys.executable, "-P", serve.__file__],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            cwd=temporary,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    findings: Mapping[str, Any] = json.loads(done.stdout)
    return findings


def row_of(
    row: Row,
    findings: Mapping[Any, Mapping[str, Any]],
    bits: Mapping[Any, float],
) -> dict[str, Any]:
    """Return one form as a row of the table; ``bits`` are per byte, by runtime and precision."""
    found = findings.get((row.runtime, row.precision, row.phase))
    ratio = row.ratio
    return {
        "runtime": row.runtime,
        "precision": row.precision,
        "unit": row.unit,
        "energy_mj": 1e3 * row.energy.mean,
        "low_mj": 1e3 * row.energy.low,
        "high_mj": 1e3 * row.energy.high,
        "ratio": None if ratio is None else ratio.mean,
        "ratio_low": None if ratio is None else ratio.low,
        "ratio_high": None if ratio is None else ratio.high,
        "latency_ms": 1e3 * row.latency_s,
        "memory_mb": None if found is None else found["peak_bytes"] / 1e6,
        "difference": None if found is None else found["difference"],
        "bits": bits.get((row.runtime, row.precision)),
        "n_rounds": row.n_rounds,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and keep it where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.serving.checkpoint_runtimes",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--runtime", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--rounds", type=int, default=3, help="of fresh processes (default: 3)")
    parser.add_argument("--sequence-length", type=int, help="tokens of an input (default: 128)")
    parser.add_argument(
        "--joules-only",
        action="store_true",
        help="convert nothing again: leave out memory and the difference of outputs",
    )
    parser.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="judge each form of a language model on this text (UTF-8), in bits per byte",
    )
    parser.add_argument(
        "--windows", type=int, default=16, help="samples of --text, spread over it (default: 16)"
    )
    parser.add_argument(
        "--records",
        type=Path,
        default=ROOT / "build" / "checkpoint-runtimes.jsonl",
        help="what is in it is not measured again",
    )
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    arguments.records.parent.mkdir(parents=True, exist_ok=True)
    folder = CHECKPOINTS / MODELS[arguments.model]
    if not folder.is_dir():
        sys.exit(f"{folder} is missing: run `make checkpoints`")
    if arguments.text is not None and arguments.model != "smollm2":
        parser.error(f"--text judges a language model: leave it out with {arguments.model}")
    if arguments.text is not None and not arguments.text.is_file():
        parser.error(f"--text must be a file, got {arguments.text}")
    if arguments.windows < 1:
        parser.error(f"--windows must be >= 1, got {arguments.windows}")
    if arguments.model == "smollm2":
        (folder,) = folder.glob("*.gguf")
    sheet = Sheet(parser, arguments, f"runtimes-{arguments.model}")
    length = arguments.sequence_length
    options = {} if length is None else {"sequence_length": length}
    found = nas.measure(
        folder,
        arguments.records,
        runtimes=arguments.runtime,
        precisions=arguments.precision,
        rounds=arguments.rounds,
        listener=Progress(),
        **options,
    )
    if not found.rows:
        sys.exit("nothing was measured")
    findings = {} if arguments.joules_only else alone(folder, found, length)
    bits: Mapping[Any, float] = {}
    if arguments.text is not None:
        bits = bits_of(
            load_checkpoint(folder),
            arguments.text,
            [(row.runtime, precision_named(row.precision)) for row in found.rows],
            length=DEFAULT_TOKENS if length is None else length,
            n_windows=arguments.windows,
        )
    keys = ", ".join(dict.fromkeys(row.workload for row in found.rows))
    failed = "".join(f"; {name} failed: {cause}" for name, cause in found.failed.items())
    left_out = "".join(f"; {line}" for line in found.left_out)
    table = Table(
        arguments.model,
        (
            *(COLUMNS[:6] if arguments.joules_only else COLUMNS),
            *(() if arguments.text is None else (QUALITY,)),
        ),
        tuple(row_of(row, findings, bits) for row in found.rows),
        note=f"{keys}, one thread; {found.rows[0].n_rounds} rounds{failed}{left_out}",
    )
    note = "seconds are of the last call: rounds in the records are not repeated"
    sheet.show(table, note=f"{note}; {instruction_sets()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
