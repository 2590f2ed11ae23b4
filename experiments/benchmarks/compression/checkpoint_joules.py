"""Does quantising a small pretrained model save joules?

    make checkpoints
    python -m experiments.benchmarks.compression.checkpoint_joules minilm
    python -m experiments.benchmarks.compression.checkpoint_joules smollm2-shape

Measures all-MiniLM-L6-v2, or a network of SmolLM2-135M's shape, in fp32, bf16 and int8, side by
side in rounds of fresh processes. The second has random weights: joules do not depend on values
of weights, and its public weights are not in a package of safetensors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nas
from experiments.results.sheet import ROOT, Sheet, add_keep_option
from experiments.results.table import Column, Table
from nas.measuring.call import MeasureOptions
from nas.measuring.measure import CheckpointEnergy
from predictors.campaign.plan import PlanItem
from predictors.measurement.side_by_side import Result

CHECKPOINTS = ROOT / "build" / "checkpoints"
MODELS = {"minilm": "all-minilm-l6-v2", "smollm2-shape": "smollm2-135m-shape"}
PRECISIONS = ("fp32", "bf16", "int8")
# config.json of SmolLM2-135M, where it changes the shape of the network.
SMOLLM2 = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}
COLUMNS = (
    Column("precision", "{precision}"),
    Column("per", "{unit}"),
    Column("energy, estimate", "{energy_mj:.3f} mJ [{low_mj:.3f}, {high_mj:.3f}]"),
    Column("ratio to fp32", "{ratio:.2f} [{ratio_low:.2f}, {ratio_high:.2f}]"),
    Column("a batch takes", "{latency_ms:.1f} ms"),
    Column("weights", "{weight_mb:.1f} MB"),
    Column("rounds", "{n_rounds}"),
)


def folder_of(model: str) -> Path:
    """The folder of a model; writes the one that has random weights.

    Raises:
        SystemExit: the model has to be fetched first.
    """
    folder = CHECKPOINTS / MODELS[model]
    if folder.is_dir():
        return folder
    if model == "minilm":
        sys.exit(f"{folder} is missing: run `make checkpoints`")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SMOLLM2)).save_pretrained(folder)
    return folder


def capability() -> str:
    """The widest instructions that torch uses, such as ``avx512``."""
    import torch

    return torch.backends.cpu.get_cpu_capability().lower()


def instruction_sets() -> str:
    """What decides on a CPU which precisions have fast kernels."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    own = ", ".join(sorted(flags & {"avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"}))
    return f"torch uses {capability()}, with {own or 'no instructions for bf16 or int8'}"


class Progress:
    """Prints each round on stderr."""

    def on_turn(self, done: int, total: int) -> None:
        """Print nothing: a turn takes seconds."""

    def on_round(self, done: int, total: int, results: Sequence[tuple[PlanItem, Result]]) -> None:
        """Print how many rounds have ended."""
        print(f"round {done} of {total}", file=sys.stderr)


def table_of(model: str, found: CheckpointEnergy) -> Table:
    """The rows of a checkpoint as a table."""
    rows = [
        {
            "precision": row.precision,
            "unit": row.unit,
            "energy_mj": 1e3 * row.energy.mean,
            "low_mj": 1e3 * row.energy.low,
            "high_mj": 1e3 * row.energy.high,
            "ratio": None if row.ratio is None else row.ratio.mean,
            "ratio_low": None if row.ratio is None else row.ratio.low,
            "ratio_high": None if row.ratio is None else row.ratio.high,
            "latency_ms": 1e3 * row.latency_s,
            "weight_mb": row.weight_bytes / 1e6,
            "n_rounds": row.n_rounds,
            "is_estimate": found.is_estimate,
        }
        for row in found.rows
    ]
    keys = ", ".join(dict.fromkeys(row.workload for row in found.rows))
    failed = "".join(f"; {name} failed: {cause}" for name, cause in found.failed.items())
    return Table(model, COLUMNS, tuple(rows), note=f"{keys}{failed}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and keep them where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.compression.checkpoint_joules",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=3, help="of fresh processes (default: 3)")
    parser.add_argument("--sequence-length", type=int, help="tokens of an input (default: 128)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--budget-s",
        type=float,
        help="start no round that would not end within these seconds of a model",
    )
    parser.add_argument(
        "--records",
        type=Path,
        default=ROOT / "build" / "checkpoint-joules.jsonl",
        help="what is in it is not measured again",
    )
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    arguments.records.parent.mkdir(parents=True, exist_ok=True)
    theme = f"checkpoint-{arguments.model}"
    if arguments.device == "cpu":
        # Precisions of one CPU's name differ by its instructions.
        theme = f"{theme}-{capability()}"
    sheet = Sheet(parser, arguments, theme, arguments.device)
    options: MeasureOptions = {
        "precisions": arguments.precision,
        "rounds": arguments.rounds,
        "device": arguments.device,
        "listener": Progress(),
    }
    if arguments.budget_s is not None:
        options["budget_s"] = arguments.budget_s
    if arguments.sequence_length is not None:
        options["sequence_length"] = arguments.sequence_length
    found = nas.measure(folder_of(arguments.model), arguments.records, **options)
    if not found.rows:
        sys.exit("nothing was measured: raise --budget-s")
    note = "seconds are of the last call: rounds in the records are not repeated"
    sheet.show(table_of(arguments.model, found), note=f"{note}; {instruction_sets()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
