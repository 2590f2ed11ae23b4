"""A checkpoint fine-tuned on a task as a search does it, and recoveries of its cuts, each once.

The folder of a benchmark keeps the fine-tuned checkpoint with its scores and outputs
(``parent/``, ``teacher/``) and every recovery as a line of ``recoveries.jsonl``, so that a command
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from nas.evaluation.teacher import load_teacher, prepare_teacher
from nas.inheriting.parent import Imported, imported, load_parent, parent_architecture
from nas.records.config import CHECKPOINT, CheckpointConfig, SearchConfig
from nas.searching.from_checkpoint import batch_size_of, training_of
from nas.tasks.base import Task
from nas.tasks.registry import get_task
from nas.training.fit import Setting, TrainedTeacher
from search_spaces.architecture import Architecture
from search_spaces.compression.inherit import inherit
from search_spaces.models.transformer import Transformer
from search_spaces.space import SearchSpace
from search_spaces.space.cuts import cuts_of
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

# Draws of cuts, of which later ones repeat earlier ones in small spaces.
_MOST_DRAWN = 10_000
# Cuts in fp32, whose recoveries differ by what was cut alone.
_DENSE = {
    **{f"{block}_precision": ["fp32"] for block in ("attention", "ffn")},
    **{f"{block}_sparsity": ["dense"] for block in ("attention", "ffn")},
}


def add_parent_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a checkpoint, its task and the benchmark's folder."""
    parser.add_argument("--from", dest="checkpoint", type=Path, required=True, help="checkpoint")
    parser.add_argument("--task", required=True, help="task file")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps what is done")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a long training")
    parser.add_argument("--seed", type=int, default=0)


def fine_tuned(config: SearchConfig, work: Path) -> TrainedTeacher:
    """Return the fine-tuned checkpoint of ``config`` in ``work``, made where it is missing."""
    folder = work / "teacher"
    prepare_teacher(config.evaluation(), folder, work / "locks")
    return load_teacher(folder, config.task, config.device, has_features=False)


def imported_once(source: Path, task: str, work: Path) -> Imported:
    """Copy the checkpoint and its task into ``work``, unless they are there."""
    folder = work / "parent"
    if (folder / "task.yaml").is_file():
        return Imported(folder.resolve(), ())
    with ExitStack() as stack:
        parent = stack.enter_context(imported(source, task, work))
        # Marks the folder as one to keep.
        (work / "run.json").write_text("{}")
    return parent


def dense_config(
    source: Path, task: str, work: Path, *, epochs: int, seed: int, genes: dict[str, object]
) -> SearchConfig:
    """Return the configuration of a search of the checkpoint's cuts in fp32.

    ``genes`` are domains that replace those of the space.
    """
    parent = imported_once(source, task, work)
    own = get_task(parent.task)
    batch_size = batch_size_of(own)
    workload = own.workload(batch_size)
    architecture = parent_architecture(load_parent(parent.folder), workload)
    whole = cuts_of(architecture, workload)
    space = SearchSpace.from_dict({**whole.to_dict(), **_DENSE, **genes})
    return SearchConfig(
        task=parent.task,
        space=space,
        trials=1,
        batch_size=batch_size,
        seed=seed,
        training=training_of(space, batch_size, epochs=epochs),
        baselines=(architecture,),
        teacher=CHECKPOINT,
        checkpoint=CheckpointConfig(str(source)),
    )


@dataclass(frozen=True, slots=True)
class Recovery:
    """One cut after ``epochs`` of distillation: quality on validation, CPU seconds of training."""

    key: str
    architecture: str
    epochs: int
    quality: float
    standard_error: float
    cpu_s: float


class Recoveries:
    """Recoveries of a checkpoint's cuts, each trained once and appended to a file."""

    def __init__(self, config: SearchConfig, work: Path) -> None:
        """Fine-tune the checkpoint, unless ``work`` has it."""
        self.config, self.teacher = config, fine_tuned(config, work)
        self._path = work / "recoveries.jsonl"
        self._done: dict[tuple[str, int], Recovery] = {}
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                recovery = Recovery(**json.loads(line))
                self._done[recovery.key, recovery.epochs] = recovery

    @cached_property
    def task(self) -> Task:
        return get_task(self.config.task)

    @cached_property
    def workload(self) -> Workload:
        return self.task.workload(self.config.batch_size)

    @property
    def setting(self) -> Setting:
        return Setting(self.task, self.workload, self.config.seed, teacher=self.teacher)

    def cut(self, architecture: Architecture) -> Transformer:
        """Return the checkpoint's cut to ``architecture``, as a search starts it."""
        scores = self.teacher.scores
        assert scores is not None
        return inherit(
            self.teacher.model,
            self.teacher.architecture,
            architecture,
            self.workload,
            importance=scores.importance,
            moments=scores.moments,
        )

    def trained(self, network: Transformer, epochs: int) -> Transformer:
        """Distil the checkpoint into ``network`` for so many epochs, as a search does."""
        if epochs:
            self.setting.train(network, replace(self.config.training, epochs=epochs))
        return network.eval()

    def has(self, architecture: Architecture, epochs: int) -> bool:
        """Whether this recovery is done."""
        return (self._key(architecture), epochs) in self._done

    def of(self, architecture: Architecture, epochs: int) -> Recovery:
        """Return the recovery of ``architecture`` after ``epochs``, 0 for the cut alone."""
        key = self._key(architecture)
        if (key, epochs) not in self._done:
            started_s = time.process_time()
            network = self.trained(self.cut(architecture), epochs)
            cpu_s = time.process_time() - started_s
            quality = self.setting.quality(network)
            made = Recovery(
                key,
                architecture.describe(),
                epochs,
                quality.value,
                quality.standard_error,
                round(cpu_s, 2),
            )
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(asdict(made)) + "\n")
            self._done[key, epochs] = made
        return self._done[key, epochs]

    def _key(self, architecture: Architecture) -> str:
        training = self.config.training
        return f"{architecture.hash}-{self.config.seed}-{training.epochs}"


def cuts_in_order(space: SearchSpace, seed: int) -> Iterator[Architecture]:
    """Yield different cuts, drawn evenly, never the parent itself, until few new ones are left."""
    rng, seen = np.random.default_rng(seed), {space.parent}
    for _ in range(_MOST_DRAWN):
        drawn = sample(space, rng)
        if drawn not in seen:
            seen.add(drawn)
            yield drawn


def members(space: SearchSpace, n: int, seed: int) -> list[Architecture]:
    """Return the first ``n`` of ``cuts_in_order``.

    Raises:
        ValueError: the space seems to have fewer.
    """
    found = list(islice(cuts_in_order(space, seed), n))
    if len(found) < n:
        raise ValueError(f"space must have {n} cuts beside the parent, got {len(found)}")
    return found
