"""Do trained weights take the joules of random ones?

``python -m experiments.benchmarks.prediction.trained_weights``

Candidates of the digits' space in each precision are trained for some epochs, then measured with
random and with trained weights, in random order, each in a process of its own. The figure is the
ratio of trained to random with its 95% interval over candidates; beside it the same ratio between
two measurements with random weights, which shows the spread between processes alone.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.core.estimate import Estimate
from nas.tasks.base import Task
from nas.tasks.registry import get_task
from nas.training.config import TrainingConfig
from nas.training.fit import Setting, fit
from nas.training.weights import save_weights
from predictors.measurement.protocol import get_protocol
from predictors.measurement.runner import measure_candidate
from search_spaces.architecture import Architecture, Precision
from search_spaces.space.presets import get_space
from search_spaces.space.sampling import sample

_BATCH, _LEAST = 512, 6
_WAYS = ("random", "trained", "random again")


def candidates(precision: Precision, n: int) -> list[Architecture]:
    """Return ``n`` different architectures of the digits' space in this precision."""
    space = get_space("digits-tiny").restrict(precisions=(precision,), sparsities=("dense",))
    rng = np.random.default_rng(0)
    chosen: dict[Architecture, None] = {}
    while len(chosen) < n:
        chosen[sample(space, rng)] = None
    return list(chosen)


def train(architecture: Architecture, task: Task, epochs: int, path: Path) -> None:
    """Train ``architecture`` on ``task`` and write its weights to ``path``."""
    setting = Setting(task, task.workload(_BATCH), 0, "cpu", None)
    fitted = fit(architecture, setting, TrainingConfig(epochs=epochs))
    save_weights(fitted.model, path)


def measured_j(architecture: Architecture, task: Task, weights: Path | None) -> float:
    """Return the joules a sample with these weights, random ones without."""
    record = measure_candidate(
        architecture,
        task.workload(_BATCH),
        protocol=get_protocol("screening"),
        meter="estimate",
        weights=weights,
    )
    return record.reading.energy_j


def main(argv: Sequence[str] | None = None) -> int:
    """Print the ratios of each precision."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.prediction.trained_weights", description=__doc__
    )
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument(
        "--precisions", nargs="+", default=["fp32", "bf16", "int8"], choices=get_args(Precision)
    )
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "trained-weights")
    if arguments.candidates < _LEAST:
        print(
            f"trained_weights: candidates must be >= {_LEAST}, got {arguments.candidates}",
            file=sys.stderr,
        )
        return 2
    task, order = get_task("digits"), random.Random(0)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        weights = Path(name) / "weights.safetensors"
        for precision in arguments.precisions:
            ratios: dict[str, list[float]] = {"trained": [], "random again": []}
            for architecture in candidates(precision, arguments.candidates):
                train(architecture, task, arguments.epochs, weights)
                # The first measurement compiles; its joules are not used.
                measured_j(architecture, task, None)
                energy_j = {
                    way: measured_j(architecture, task, weights if way == "trained" else None)
                    for way in order.sample(_WAYS, len(_WAYS))
                }
                for way, values in ratios.items():
                    values.append(energy_j[way] / energy_j["random"])
                print(
                    f"{precision} {architecture.describe()}: trained {ratios['trained'][-1]:.3f}, "
                    f"random again {ratios['random again'][-1]:.3f} times random",
                    file=sys.stderr,
                )
            for way, values in ratios.items():
                ratio = Estimate.of_median(values)
                rows.append(
                    {
                        "precision": precision,
                        "way": way,
                        "n": len(values),
                        "ratio": ratio.mean,
                        "low": ratio.low,
                        "high": ratio.high,
                    }
                )
    sheet.show(
        Table.of(
            "ratios",
            {
                "precision": "{precision}",
                "weights": "{way}",
                "joules to random weights": "{ratio:.3f} [{low:.3f}, {high:.3f}]",
                "candidates": "{n}",
            },
            rows,
            "medians with 95% intervals over candidates",
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
