"""Does the order of networks by joules change with the runtime that serves them?

    python -m experiments.benchmarks.serving.digits_runtimes

Trains some networks on the digits, measures each side by side in every runtime in rounds of fresh
processes, and judges each converted file on the validation split. A second table compares the
order of the networks in each runtime with that in torch, and the front of accuracy and joules.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from experiments.benchmarks.compression.checkpoint_joules import Progress, instruction_sets
from experiments.results.sheet import ROOT, Sheet, add_keep_option
from experiments.results.table import Column, Table
from nas.core.names import TORCH
from nas.core.scratch import scratch
from nas.measuring.measure import DEFAULT_ROUNDS
from nas.measuring.networks import NetworkRow, measure_networks, plan_networks
from nas.pareto.dominance import non_dominated_mask
from nas.tasks.registry import get_task
from nas.training.config import TrainingConfig
from nas.training.evaluate import evaluate
from nas.training.loop import LoopOptions, train
from predictors.campaign.active import Bench
from predictors.campaign.plan import PlanItem
from predictors.measurement.protocol import get_protocol
from predictors.meters.select import choose_meter
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
    Precision,
)
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.models.build import build
from search_spaces.runtimes import serve
from search_spaces.runtimes.base import Form
from search_spaces.runtimes.converting import in_fp32
from search_spaces.runtimes.registry import CONVERTERS, RUNTIMES, parse_runtimes

_BATCH_SIZE = 128
_TRAINING = TrainingConfig(epochs=15, batch_size=64, learning_rate=5e-3, weight_decay=0.3)
# Width, depth, heads, key-value heads, feed-forward width and patch side.
_SHAPES = (
    (16, 1, 1, 1, 32, 4),
    (32, 1, 2, 2, 64, 4),
    (32, 2, 2, 2, 128, 4),
    (64, 1, 4, 4, 256, 4),
    (32, 2, 2, 2, 64, 2),
    (64, 2, 4, 2, 128, 2),
)
COLUMNS = (
    Column("network", "{network}"),
    Column("runtime", "{runtime}"),
    Column("energy a sample, estimate", "{energy_uj:.2f} uJ [{low_uj:.2f}, {high_uj:.2f}]"),
    Column("to torch", "{ratio:.2f} [{ratio_low:.2f}, {ratio_high:.2f}]"),
    Column("a batch takes", "{latency_ms:.2f} ms"),
    Column("validation accuracy", "{accuracy:.2f}%"),
    Column("on the front", "{front}"),
)
ORDER = (
    Column("runtime", "{runtime}"),
    Column("Kendall's tau to torch", "{tau:.2f}"),
    Column("pairs in another order", "{n_swapped} of {n_pairs}"),
    Column("on the front", "{front}"),
    Column("on torch's front", "{torch_front}"),
)


def networks(precision: Precision) -> list[Architecture]:
    """Return the architectures, all blocks in one precision."""
    compression = Compression(precision)
    made = []
    for d_model, depth, n_heads, n_kv_heads, d_ff, patch_size in _SHAPES:
        attention = AttentionSpec(n_heads, n_kv_heads, d_model // n_heads, None, compression)
        layer = LayerSpec(attention, FfnSpec(d_ff, None, compression))
        made.append(Architecture(d_model, (layer,) * depth, patch_size))
    return made


def accuracies(architecture: Architecture, runtimes: Sequence[str]) -> dict[str, float]:
    """Train one network; return its validation accuracy in each runtime, in percent."""
    task = get_task("digits")
    workload, validation = task.workload(_BATCH_SIZE), task.split("validation")
    network = build(architecture, workload, generator_seed=0)
    train(network, task.split("train"), _TRAINING, seed=0, options=LoopOptions(device="cpu"))
    network.eval()

    def judged(call: Any) -> float:
        return 100 * evaluate(call, validation, batch_size=_BATCH_SIZE).value

    own = judged(run_eagerly(compress(network, architecture)).call)
    found = {name: own for name in runtimes if name not in CONVERTERS}
    fp32, form = compress(network, in_fp32(architecture)), Form.of(architecture)
    for name in runtimes:
        if name in CONVERTERS:
            found[name] = judged(_converted(name, fp32, form, workload.input_shape))
    return found


def _converted(name: str, network: torch.nn.Module, form: Form, shape: tuple[int, ...]) -> Any:
    """Return the calls of a converted network, whose last batch is filled up."""
    example = torch.ones(_BATCH_SIZE, *shape)
    with scratch("digits") as folder:
        CONVERTERS[name].convert(network, (example,), form, folder)
        path = folder / CONVERTERS[name].file(form.precision)
        served = serve.load(name, path, precision=form.precision)
        served.call([example.numpy()])

    def call(inputs: torch.Tensor) -> torch.Tensor:
        filled = np.resize(inputs.numpy(), (_BATCH_SIZE, *shape))
        return torch.from_numpy(served.call([filled])[0][: len(inputs)])

    return call


def orders(rows: Sequence[dict[str, Any]], runtimes: Sequence[str]) -> list[dict[str, Any]]:
    """Compare the order by joules, and the front, with torch's."""
    joules = {n: [r["energy_uj"] for r in rows if r["runtime"] == n] for n in runtimes}
    fronts = {n: [r["front"] for r in rows if r["runtime"] == n] for n in runtimes}
    compared = []
    base = np.array(joules[TORCH])
    upper = np.triu_indices(len(base), 1)
    for name in runtimes:
        own = np.array(joules[name])
        is_swapped = (np.subtract.outer(own, own) * np.subtract.outer(base, base) < 0)[upper]
        compared.append(
            {
                "runtime": name,
                "tau": float(kendalltau(own, base).statistic),
                "n_swapped": int(is_swapped.sum()),
                "n_pairs": len(is_swapped),
                "front": ", ".join(str(i + 1) for i, on in enumerate(fronts[name]) if on),
                "torch_front": ", ".join(str(i + 1) for i, on in enumerate(fronts[TORCH]) if on),
            }
        )
    return compared


def _row(number: int, row: NetworkRow, accuracy: float) -> dict[str, Any]:
    ratio = row.ratio
    return {
        "network": f"{number}: {row.architecture}",
        "runtime": row.runtime,
        "energy_uj": 1e6 * row.energy.mean,
        "low_uj": 1e6 * row.energy.low,
        "high_uj": 1e6 * row.energy.high,
        "ratio": None if ratio is None else ratio.mean,
        "ratio_low": None if ratio is None else ratio.low,
        "ratio_high": None if ratio is None else ratio.high,
        "latency_ms": 1e3 * row.latency_s,
        "accuracy": accuracy,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, print the tables, and keep them where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.serving.digits_runtimes",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument(
        "--runtime", nargs="+", choices=RUNTIMES, default=[n for n in RUNTIMES if n != TORCH]
    )
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS)
    parser.add_argument(
        "--records",
        type=Path,
        default=ROOT / "build" / "digits-runtimes.jsonl",
        help="what is in it is not measured again",
    )
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    arguments.records.parent.mkdir(parents=True, exist_ok=True)
    sheet = Sheet(parser, arguments, f"runtimes-digits-{arguments.precision}")
    meter = choose_meter(None, "cpu")
    bench = Bench("cpu", meter.name, meter.source, meter.device, get_protocol("quick"))
    meter.close()
    workload = get_task("digits").workload(_BATCH_SIZE)
    architectures = networks(arguments.precision)
    plan = plan_networks(
        [PlanItem(each, workload) for each in architectures],
        bench,
        arguments.records,
        parse_runtimes(arguments.runtime),
        n_rounds=arguments.rounds,
    )
    found = measure_networks(plan, listener=Progress())
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for number, architecture in enumerate(architectures, start=1):
        own = [row for row in found.rows if row.architecture == architecture.describe()]
        judged = accuracies(architecture, [row.runtime for row in own])
        rows += [_row(number, row, judged[row.runtime]) for row in own]
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    for name in runtimes:
        own_rows = [row for row in rows if row["runtime"] == name]
        points = [(row["accuracy"], row["energy_uj"]) for row in own_rows]
        for row, on in zip(own_rows, non_dominated_mask(points, (True, False)), strict=True):
            row["front"] = bool(on)
    failed = "".join(f"; {name} failed: {cause}" for name, cause in found.failed.items())
    note = f"{workload.key}, one thread, {arguments.rounds} rounds{failed}"
    sheet.show(
        Table("networks", COLUMNS, tuple(rows), note=note),
        Table("orders", ORDER, tuple(orders(rows, runtimes)), note="networks by their numbers"),
        note=f"joules are of random weights, on which they do not depend; {instruction_sets()}",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
