"""How well a supernet's inherited accuracies rank architectures that train alone.

    python -m experiments.benchmarks.training.supernet_fidelity digits --cache curves.jsonl
    python -m experiments.benchmarks.training.supernet_fidelity text --task sst2.yaml

Members drawn evenly from the space train from scratch by the recipe of a search, one by one, and
are kept in ``--cache`` (shared with ``supernet_cost``); then one supernet trains, and all are
judged by what they inherit from it. Printed are Kendall's tau-b with its bootstrap 95% interval,
that of parameters and MACs as baselines, and tau within the more accurate half.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.benchmarks.training.scratch_search import Trainings, space
from experiments.recipes import quickstart
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.evaluation.fidelity import Fidelity
from nas.records.config import SearchConfig
from nas.tasks.base import Split, SplitName, Task
from nas.tasks.registry import get_task
from nas.training.config import SupernetRecipe, TrainingConfig
from nas.training.evaluate import evaluate
from nas.training.supernet_loop import train_supernet
from search_spaces.architecture import Architecture
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.cost.counting import count
from search_spaces.models.extract import extract
from search_spaces.models.supernet import Supernet
from search_spaces.space import SearchSpace
from search_spaces.space.sampling import largest, sample, smallest
from search_spaces.workload import Workload

# Small, as its networks train on a CPU for minutes altogether.
_TEXT = {
    "name": "text-small",
    "d_model": [16, 32, 48],
    "depth": [1, 2, 3],
    "n_heads": [1, 2, 4],
    "n_kv_heads": [1, 2, 4],
    "ffn_ratio": [0.5, 1, 2],
    "ffn_rank": [None, 0.25],
    "patch_size": [1],
    "attention_precision": ["fp32", "bf16"],
    "ffn_precision": ["fp32", "bf16"],
}


@dataclass(frozen=True, slots=True)
class Row:
    """One architecture: what it inherits, and what it comes to alone."""

    architecture: Architecture
    inherited: float
    own: float


class Subsampled(Task):
    """A task with only the first ``most`` samples of its training split, drawn in a fixed
    order."""

    def __init__(self, task: Task, most: int) -> None:
        """Keep all other splits as they are."""
        self._task, self._most = task, most
        self.name = task.name

    def workload(self, batch_size: int) -> Workload:
        """See ``Task``."""
        return self._task.workload(batch_size)

    def split(self, name: SplitName) -> Split:
        """See ``Task``."""
        whole = self._task.split(name)
        if name != "train" or len(whole) <= self._most:
            return whole
        kept = np.random.default_rng(0).permutation(len(whole))[: self._most]
        return Split(whole.inputs[kept], whole.targets[kept])


def digits() -> SearchConfig:
    """The quickstart, with the precisions that run on any CPU."""
    return replace(quickstart("cpu"), space=space(), batch_size=512)


def text(task: str, epochs: int) -> SearchConfig:
    """A small space of text classifiers."""
    return SearchConfig(
        task=task,
        space=SearchSpace.from_dict(_TEXT),
        trials=1,
        batch_size=256,
        training=TrainingConfig(
            epochs=epochs, batch_size=64, learning_rate=3e-3, token_dropout=0.1
        ),
    )


def members(where: SearchSpace, n: int) -> list[Architecture]:
    """The smallest, the largest and others drawn evenly, ``n`` different ones."""
    rng = np.random.default_rng(0)
    found = {a.hash: a for a in (smallest(where), largest(where))}
    while len(found) < n:
        drawn = sample(where, rng)
        found.setdefault(drawn.hash, drawn)
    return list(found.values())


def judged(
    config: SearchConfig,
    task: Task,
    recipe: SupernetRecipe,
    chosen: Sequence[Architecture],
    seed: int,
) -> tuple[list[float], float]:
    """Inherited accuracies of ``chosen``, and the CPU seconds of the supernet's training."""
    workload = task.workload(config.batch_size)
    started = time.process_time()
    supernet = Supernet.seeded(config.space, workload, seed)
    train_supernet(supernet, task.split("train"), config.training, recipe, seed=seed)
    train_s = time.process_time() - started
    found = []
    for architecture in chosen:
        runner = run_eagerly(compress(extract(supernet, architecture), architecture))
        accuracy = evaluate(runner.call, task.split("validation"), batch_size=config.batch_size)
        found.append(accuracy.value)
    return found, train_s


def report(rows: Sequence[Row], workload: Workload) -> list[dict[str, Any]]:
    """Kendall's tau of what ranks them: a row each."""
    own = [row.own for row in rows]
    counts = [count(row.architecture, workload) for row in rows]
    better = [row for row in rows if row.own >= np.median(own)]
    return [
        _row("inherited accuracy", [row.inherited for row in rows], own),
        _row(
            "inherited, in the better half", [r.inherited for r in better], [r.own for r in better]
        ),
        _row("parameters", [float(c.params) for c in counts], own),
        _row("MACs", [float(c.macs) for c in counts], own),
    ]


def extent(rows: Sequence[Row]) -> str:
    """Between which accuracies they lie."""
    own = [row.own for row in rows]
    return (
        f"inherited {min(r.inherited for r in rows):.1%} to {max(r.inherited for r in rows):.1%}, "
        f"alone {min(own):.1%} to {max(own):.1%}"
    )


def _row(name: str, ours: Sequence[float], own: Sequence[float]) -> dict[str, Any]:
    found = Fidelity.of(ours, own)
    row: dict[str, Any] = {"by": name, "n": len(own)}
    if found is None:
        return row | {"tau": None, "low": None, "high": None}
    return row | {"tau": found.tau.mean, "low": found.tau.low, "high": found.tau.high}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training.supernet_fidelity",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("which", choices=("digits", "text"))
    parser.add_argument("--task", help="of text, a task's YAML file")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=6, help="of a text network alone")
    parser.add_argument("--samples", type=int, default=3000, help="of text, for training")
    parser.add_argument("--epochs-factor", type=float, default=SupernetRecipe().epochs_factor)
    parser.add_argument("--front-share", type=float, default=SupernetRecipe().front_share)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("fidelity.jsonl"))
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if arguments.which == "text" and arguments.task is None:
        parser.error("text needs --task, a task's YAML file")
    sheet = Sheet(parser, arguments, f"supernet-fidelity-{arguments.which}")
    config = digits() if arguments.which == "digits" else text(arguments.task, arguments.epochs)
    task: Task = get_task(config.task)
    if arguments.which == "text":
        task = Subsampled(task, arguments.samples)
    chosen = members(config.space, arguments.n)
    trainings = Trainings(arguments.cache, config, task)
    own, alone_s = [], 0.0
    for architecture in chosen:
        training = trainings.of(architecture, arguments.seed)
        own.append(training.quality)
        alone_s += training.train_s
    recipe = SupernetRecipe(
        epochs_factor=arguments.epochs_factor, front_share=arguments.front_share
    )
    inherited, train_s = judged(config, task, recipe, chosen, arguments.seed)
    rows = [Row(*row) for row in zip(chosen, inherited, own, strict=True)]
    spent = (
        f"{task.name}: {len(rows)} members of {config.space.name}, alone {alone_s:.0f} CPU s, "
        f"the supernet {train_s:.0f} CPU s"
    )
    columns = {"ranked by": "{by}", "tau [95%]": "{tau:.3f} [{low:.3f}, {high:.3f}]", "n": "{n}"}
    found = report(rows, task.workload(config.batch_size))
    sheet.show(Table.of("tau", columns, found, f"{spent}; {extent(rows)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
