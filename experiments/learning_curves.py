"""Record learning curves: validation quality after every epoch of candidates of one recipe.

    python -m experiments.learning_curves language-modelling --task plays.yaml \
        --n 24 --out curves.jsonl

Candidates are drawn uniformly from the recipe's space and trained on one thread, each from the
recipe's seed. Seconds are CPU seconds, those of validation after each epoch included. Joules are a
closed form, not measured. Each finished training is appended to ``--out`` and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from experiments import recipes
from experiments.formula import formula_joules
from nas.records.config import SearchConfig
from nas.tasks.registry import get_task
from nas.training.fit import EpochResult, Setting, Watch, fit
from search_spaces.architecture import Architecture
from search_spaces.space.sampling import sample


@dataclass(frozen=True, slots=True)
class Curve:
    """One training: ``qualities[i]`` and ``standard_errors[i]`` belong to epoch ``i + 1``."""

    architecture: str
    energy_j: float
    qualities: tuple[float, ...]
    standard_errors: tuple[float, ...]
    train_s: float


def read_curves(path: Path) -> list[Curve]:
    """Read the curves of one file, in the order in which they were recorded."""
    lines = path.read_text(encoding="utf-8").splitlines()
    curves = [Curve(**json.loads(line)) for line in lines]
    return [
        replace(c, qualities=tuple(c.qualities), standard_errors=tuple(c.standard_errors))
        for c in curves
    ]


def record(config: SearchConfig, architecture: Architecture) -> Curve:
    """Train ``architecture`` by the recipe of ``config`` and return its learning curve."""
    task = get_task(config.task)
    workload = task.workload(config.batch_size)
    results: list[EpochResult] = []
    started = time.process_time()
    fitted = fit(
        architecture,
        Setting(task, workload, seed=config.seed),
        config.training,
        watch=Watch(range(1, config.training.epochs), results.append),
    )
    train_s = time.process_time() - started
    qualities = [result.quality for result in results] + [fitted.validation]
    return Curve(
        architecture.hash,
        formula_joules(architecture, workload),
        tuple(q.value for q in qualities),
        tuple(q.standard_error for q in qualities),
        train_s,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Record the curves that ``--out`` does not have yet."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.learning_curves",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("recipe", help="a function of experiments.recipes, such as text")
    parser.add_argument("--task", required=True, help="a task by name or by file")
    parser.add_argument("--n", type=int, default=24, help="candidates (default: 24)")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    config = getattr(recipes, arguments.recipe.replace("-", "_"))("cpu")
    config = replace(config, task=arguments.task)
    if arguments.epochs is not None:
        config = replace(config, training=replace(config.training, epochs=arguments.epochs))
    rng = np.random.default_rng(config.seed)
    recorded = read_curves(arguments.out) if arguments.out.is_file() else []
    hashes = {curve.architecture for curve in recorded}
    for number in range(arguments.n):
        architecture = sample(config.space, rng)
        if architecture.hash in hashes:
            continue
        curve = record(config, architecture)
        with arguments.out.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(curve)) + "\n")
        print(f"{number}: {curve.train_s:.0f} s, {curve.qualities[-1]:.4f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
