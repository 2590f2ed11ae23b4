"""Which block style has fewer bits per byte at equal joules, in language modelling from scratch?

    python -m experiments.benchmarks.training.block_styles plays.yaml

Decoders of several sizes are trained by the recipe ``language-modelling``, once in each style, and
measured side by side in fp32. Gated feed-forward blocks have two thirds of the width, so that a
size has equal parameters in all styles (Shazeer 2020). *At equal joules* is the difference of a
network's bits per byte from the default style's at its joules, by straight lines between the
default networks over the logarithm of joules; outside of their joules there is no difference.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from experiments.benchmarks.paired import Difference
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.records.config import SearchConfig
from nas.searching.recipes import get_recipe
from nas.tasks.base import Task
from nas.tasks.registry import get_task
from nas.training.evaluate import evaluate
from nas.training.loop import train
from nas.training.objective import objective_of
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import EnergyRecord
from predictors.measurement.runner import make_job
from predictors.measurement.side_by_side import measure_side_by_side
from search_spaces.architecture import STYLES, Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build

# Width and depth, from the smallest to the largest that the recipe's space has.
SIZES = ((16, 1), (32, 1), (32, 2), (48, 2), (64, 2), (64, 3), (96, 3), (128, 3))
NAMES = ("default", "gpt2", "llama")
_HEAD = 16


@dataclass(frozen=True, slots=True)
class Trained:
    """A network: its size, its style, and what it reached."""

    architecture: Architecture
    style: str
    size: tuple[int, int]
    bits: tuple[float, ...]
    energy_j: float


def decoder(size: tuple[int, int], style: str) -> Architecture:
    """A decoder of ``(d_model, depth)``; the bits of a gated block's width are multiples of 8."""
    d_model, depth = size
    heads = d_model // _HEAD
    d_ff = 4 * d_model
    if STYLES[style].is_gated:
        d_ff = 8 * round(d_ff * 2 / 3 / 8)
    layer = LayerSpec(AttentionSpec(heads, heads, _HEAD), FfnSpec(d_ff))
    return Architecture(d_model, (layer,) * depth, style=STYLES[style])


def bits_per_byte(
    task: Task, config: SearchConfig, architecture: Architecture, seed: int
) -> float:
    """Train a network and evaluate it on validation data."""
    workload = task.workload(config.batch_size).with_phase(None)
    model = build(architecture, workload, generator_seed=seed)
    objective = objective_of(task, workload)
    train(model, task.split("train"), config.training, seed=seed, objective=objective)
    validation = task.split("validation")
    found = evaluate(model, validation, batch_size=128, objective=objective)
    return task.metric.score(found.value)


def joules(task: Task, config: SearchConfig, architectures: Sequence[Architecture]) -> list[float]:
    """Joules per unit of each, measured in turns.

    Raises:
        SystemExit: one could not be measured.
    """
    protocol = get_protocol("quick")
    workload = task.workload(config.batch_size)
    jobs = [make_job("serve", each, workload, protocol=protocol) for each in architectures]
    energies = []
    for record in measure_side_by_side(jobs, protocol, "cpu"):
        if not isinstance(record, EnergyRecord):
            sys.exit(f"a network could not be measured: {record}")
        energies.append(record.reading.energy_j)
    return energies


def at_equal_joules(network: Trained, defaults: Sequence[Trained]) -> float | None:
    """Bits per byte of ``network`` less those of default networks at its joules."""
    ordered = sorted(defaults, key=lambda each: each.energy_j)
    energies = [math.log(each.energy_j) for each in ordered]
    # Only non-dominated networks are of use: more joules never cost bits.
    bits = np.minimum.accumulate([mean(each.bits) for each in ordered])
    energy = math.log(network.energy_j)
    if not energies[0] <= energy <= energies[-1]:
        return None
    return mean(network.bits) - float(np.interp(energy, energies, bits))


def tables(networks: Sequence[Trained], unit: str) -> list[Table]:
    """Every network, and the means of each style."""
    defaults = {each.size: each for each in networks if each.style == "default"}
    rows, differences = [], {name: [] for name in NAMES}
    ratios: dict[str, list[float]] = {name: [] for name in NAMES}
    for each in networks:
        plain = defaults[each.size]
        apart = at_equal_joules(each, list(defaults.values()))
        ratios[each.style].append(each.energy_j / plain.energy_j)
        if apart is not None:
            differences[each.style].append(apart)
        rows.append(
            {
                "network": each.architecture.describe(),
                "style": each.style,
                "bits": mean(each.bits),
                "energy_uj": 1e6 * each.energy_j,
                "ratio": each.energy_j / plain.energy_j,
                "apart": apart,
                "is_estimate": True,
            }
        )
    means = [
        {
            "style": name,
            "ratio": math.exp(mean(map(math.log, ratios[name]))),
            "apart": Difference.of(differences[name], [0.0] * len(differences[name])).mean,
            "half": Difference.of(differences[name], [0.0] * len(differences[name])).half_width,
            "sizes": len(differences[name]),
        }
        for name in NAMES
        if name != "default" and len(differences[name]) > 1
    ]
    columns = {
        "style": "{style}",
        "network": "{network}",
        "bits per byte": "{bits:.3f}",
        f"uJ per {unit}, estimate": "{energy_uj:.2f}",
        "joules to default": "{ratio:.2f}",
        "bits at equal joules": "{apart:+.3f}",
    }
    summary = {
        "style": "{style}",
        "joules to default": "{ratio:.2f}",
        "bits at equal joules": "{apart:+.3f} ± {half:.3f}",
        "sizes": "{sizes}",
    }
    # With few sizes no style has two networks at joules that the default's enclose.
    of_styles = [Table.of("styles", summary, means)] if means else []
    return [Table.of("networks", columns, rows), *of_styles]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training.block_styles",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("task", help="task file of language modelling")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many, smallest first")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    sheet = Sheet(parser, arguments, "block-styles")
    task = get_task(str(Path(arguments.task)))
    config = get_recipe("language-modelling", task=arguments.task, epochs=arguments.epochs)
    networks = []
    for size in SIZES[: arguments.sizes]:
        architectures = [decoder(size, name) for name in NAMES]
        energies = joules(task, config, architectures)
        for name, architecture, energy_j in zip(NAMES, architectures, energies, strict=True):
            bits = tuple(
                bits_per_byte(task, config, architecture, seed) for seed in range(arguments.seeds)
            )
            networks.append(Trained(architecture, name, size, bits, energy_j))
            print(
                f"{architecture.describe()}: {mean(bits):.3f} bits per byte, "
                f"{1e6 * energy_j:.2f} uJ (estimate)",
                file=sys.stderr,
            )
    sheet.show(*tables(networks, task.workload(1).unit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
