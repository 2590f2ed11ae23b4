"""Pruned from a trained network and tuned shortly, or trained from scratch? Paired seeds, digits.

    python -m experiments.benchmarks.training.recovery

A network is trained once. Smaller ones (fewer heads, fewer channels, fewer layers, low rank, 2:4)
then get their weights in three ways: from scratch over all epochs; out of the trained network and
a fine-tune over a quarter of them with distillation (``nas search --inherit``); and from scratch
over that quarter. Seconds are CPU seconds of one thread, training only; the network that they
inherit from is said apart, once for all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import torch

from experiments.benchmarks.paired import Difference
from experiments.benchmarks.training.distillation import accuracies, shape
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.tasks.registry import get_task
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig
from nas.training.distill import tabulate, teacher_recipe
from nas.training.fit import Setting, TrainedTeacher, fit
from nas.training.loop import train
from search_spaces.architecture import Architecture, AttentionSpec, Compression
from search_spaces.models.build import build

INHERIT_SHARE = 0.25
LARGE = shape(48, 3, 4, 192, 4)
RECIPE = TrainingConfig(epochs=60, batch_size=64, learning_rate=5e-3, weight_decay=0.3)


def changed(*, layers: int = 3, n_heads: int = 4, **ffn: object) -> Architecture:
    """``LARGE`` with less of something; heads keep their width."""
    first = LARGE.layers[0]
    attention = AttentionSpec(n_heads, n_heads, first.attention.d_head)
    layer = replace(first, attention=attention, ffn=replace(first.ffn, **ffn))  # type: ignore[arg-type]
    return replace(LARGE, layers=(layer,) * layers)


CASES = {
    "half the heads": changed(n_heads=2),
    "a quarter of the channels": changed(d_ff=48),
    "FFN rank 12": changed(rank=12),
    "FFN 2:4 (simulated)": changed(compression=Compression("fp32", "2:4")),
    "all of these but 2:4": changed(layers=2, n_heads=2, d_ff=48, rank=12),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training.recovery",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--seeds", type=int, default=5)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet, seeds = Sheet(parser, arguments, "recovery"), arguments.seeds
    torch.set_num_threads(1)
    task = get_task("digits")
    workload = task.workload(128)
    started = time.process_time()
    large = build(LARGE, workload, generator_seed=0)
    train(large, task.split("train"), teacher_recipe(RECIPE, 2.5), seed=0)
    table = tabulate(large, task.split("train"), RECIPE)
    validation, test = accuracies(large, task)
    note = (
        f"out of {LARGE.describe()}: validation {validation:.2%}, test {test:.2%}, "
        f"{time.process_time() - started:.0f} CPU s with its outputs; differences are to training "
        "from scratch, in points; * the 95% interval leaves zero out"
    )
    teacher = TrainedTeacher(large, LARGE, table)
    inherit = RecoveryConfig(inherit_share=INHERIT_SHARE)
    ways = {
        "scratch": (RECIPE, None),
        "inherited, distilled": (
            replace(RECIPE, distill=DistillConfig(logit_weight=0.9), recovery=inherit),
            teacher,
        ),
        "scratch, a quarter": (
            replace(RECIPE, epochs=round(RECIPE.epochs * INHERIT_SHARE)),
            None,
        ),
    }
    rows: list[dict[str, Any]] = []
    for name, found in CASES.items():
        results: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
        for seed in range(1, seeds + 1):
            for way, (recipe, taught) in ways.items():
                started = time.process_time()
                fitted = fit(found, Setting(task, workload, seed=seed, teacher=taught), recipe)
                spent = time.process_time() - started
                assert (fitted.start == "teacher") == way.startswith("inherited")
                results[way].append((*accuracies(fitted.model, task), spent))
            print(f"{name}: seed {seed}/{seeds}", file=sys.stderr)
        plain_validation, plain_test, _ = zip(*results["scratch"], strict=True)
        for way, trained in results.items():
            validations, tests, spent_s = zip(*trained, strict=True)
            row = {
                "network": name,
                "weights": way,
                "validation": 100 * mean(validations),
                "test": 100 * mean(tests),
                "on_validation": None,
                "on_test": None,
                "cpu_s": mean(spent_s),
            }
            if way != "scratch":
                row["on_validation"] = Difference.of(validations, plain_validation).points()
                row["on_test"] = Difference.of(tests, plain_test).points()
            rows.append(row)
    columns = {
        "network": "{network}",
        "weights": "{weights}",
        "val %": "{validation:.2f}",
        "test %": "{test:.2f}",
        "val": "{on_validation}",
        "test": "{on_test}",
        "CPU s": "{cpu_s:.1f}",
    }
    sheet.show(Table.of("networks", columns, rows, note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
