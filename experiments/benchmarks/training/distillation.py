"""Does a teacher raise small students' accuracy? Paired seeds, on digits and on text.

    python -m experiments.benchmarks.training.distillation digits
    python -m experiments.benchmarks.training.distillation text --sst2 SST2

Each student is trained from the same random weights, with the same order of samples, with labels
alone and with a teacher's logits, features, and both. Two settings each: *all*, where teacher and
student see the same training split (``nas search --distill``), and *few*, where the teacher saw
all of it and the student every tenth image or fifth text (``nas search --teacher DIR``, a teacher
from a place with more data). Weights and temperature were tuned on validation data; test accuracy
is shown beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch

from experiments.benchmarks.paired import Difference
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.tasks.base import Split, SplitName, Task
from nas.tasks.base.task_file import TaskFile
from nas.tasks.registry import get_task
from nas.tasks.text.classification import TextClassification
from nas.training.config import DistillConfig, TrainingConfig
from nas.training.distill import LiveTeacher, Teacher, table_bytes, tabulate, teacher_recipe
from nas.training.evaluate import evaluate
from nas.training.loop import train
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build
from search_spaces.models.transformer import Transformer
from search_spaces.space.presets import get_space
from search_spaces.space.sampling import largest
from search_spaces.workload import Workload


@dataclass(frozen=True)
class Setting:
    """One task with its recipe, teacher and students."""

    task: Task
    recipe: TrainingConfig
    keep_every: int
    few_epochs: int
    teacher: Architecture
    width_ratio: float
    students: tuple[Architecture, ...]
    variants: dict[str, DistillConfig]


class Part(Task):
    """A task of whose training split only each ``keep_every``-th sample is left."""

    def __init__(self, task: Task, keep_every: int) -> None:
        self._task, self.name = task, f"{task.name}, few"
        self._keep_every = keep_every

    def workload(self, batch_size: int) -> Workload:
        return self._task.workload(batch_size)

    def split(self, name: SplitName) -> Split:
        whole = self._task.split(name)
        if name != "train":
            return whole
        step = self._keep_every
        return Split(whole.inputs[::step].copy(), whole.targets[::step].copy())


def shape(d_model: int, depth: int, n_heads: int, d_ff: int, patch_size: int = 1) -> Architecture:
    layer = LayerSpec(AttentionSpec(n_heads, n_heads, d_model // n_heads), FfnSpec(d_ff))
    return Architecture(d_model, (layer,) * depth, patch_size)


def digits() -> Setting:
    """The quickstart's recipe and largest model."""
    space = get_space("digits-tiny")
    return Setting(
        get_task("digits"),
        TrainingConfig(epochs=60, batch_size=64, learning_rate=5e-3, weight_decay=0.3),
        keep_every=10,
        few_epochs=200,
        teacher=largest(space),
        width_ratio=max(space.values("d_model")) / geometric_mean(space.values("d_model")),
        students=(shape(16, 1, 2, 32, 4), shape(24, 2, 2, 48, 4)),
        variants={
            "logits": DistillConfig(),
            "features": DistillConfig(logit_weight=0.0, feature_weight=0.1),
            "both": DistillConfig(feature_weight=0.1),
        },
    )


def text(folder: Path) -> Setting:
    """SST-2 by whole sentences, 32 words of a vocabulary of 5,000."""
    parts = {"train": "train", "validation": "dev", "test": "test"}
    options = {split: f"stsa.binary.{part}" for split, part in parts.items()}
    file = TaskFile(
        folder / "sst2.yaml",
        "text_classification",
        {"name": "sst2", **options, "sequence_length": 32},
    )
    return Setting(
        TextClassification.from_file(file),
        TrainingConfig(
            epochs=8, batch_size=64, learning_rate=3e-3, weight_decay=3.0, token_dropout=0.3
        ),
        keep_every=5,
        few_epochs=20,
        teacher=shape(32, 1, 2, 64),
        # Wider and deeper ones did no better on validation data; the rate was tuned for this one.
        width_ratio=1.0,
        students=(shape(8, 1, 1, 16),),
        variants={
            "logits": DistillConfig(temperature=2.0, logit_weight=0.9),
            "features": DistillConfig(logit_weight=0.0, feature_weight=1.0),
            "both": DistillConfig(temperature=2.0, logit_weight=0.9, feature_weight=1.0),
        },
    )


def accuracies(model: Transformer, task: Task) -> tuple[float, float]:
    """On validation and on test data."""
    validation, test = (
        evaluate(model, task.split(name), batch_size=128).value for name in ("validation", "test")
    )
    return validation, test


def trained_teacher(setting: Setting) -> tuple[Transformer, str]:
    """The teacher, as ``nas search --distill`` trains it, and what it is."""
    task = setting.task
    model = build(setting.teacher, task.workload(64), generator_seed=0)
    train(model, task.split("train"), teacher_recipe(setting.recipe, setting.width_ratio), seed=0)
    validation, test = accuracies(model, task)
    what = (
        f"teacher {setting.teacher.describe()}: validation {validation:.2%}, test {test:.2%}; "
        "* the 95% interval of the mean paired difference, in points, leaves zero out"
    )
    return model, what


def outputs_of(model: Transformer, split: Split, recipe: TrainingConfig) -> Teacher:
    """A table where versions have numbers, else the teacher itself."""
    if table_bytes(model, split, recipe) is None:
        return LiveTeacher(model, split)
    return tabulate(model, split, recipe)


def compare(
    setting: Setting, teacher: Transformer, task: Task, recipe: TrainingConfig, seeds: int
) -> list[dict[str, Any]]:
    """Train every student with and without the teacher: one row a variant."""
    split = task.split("train")
    outputs = outputs_of(teacher, split, recipe)
    variants = {"labels": None, **setting.variants}
    rows: list[dict[str, Any]] = []
    for student in setting.students:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        seconds = dict.fromkeys(variants, 0.0)
        for seed in range(1, seeds + 1):
            for name, distill in variants.items():
                started = time.process_time()
                model = build(student, task.workload(64), generator_seed=seed)
                taught = None if distill is None else outputs
                train(model, split, replace(recipe, distill=distill), seed=seed, teacher=taught)
                seconds[name] += time.process_time() - started
                found[name].append(accuracies(model, task))
            print(f"{task.name} {student.describe()}: seed {seed}/{seeds}", file=sys.stderr)
        for name, pairs in found.items():
            validation, test = zip(*pairs, strict=True)
            row = {
                "data": task.name,
                "student": student.describe(),
                "learns_by": name,
                "validation": 100 * sum(validation) / seeds,
                "test": 100 * sum(test) / seeds,
                "on_validation": None,
                "on_test": None,
                "cpu_s": seconds[name] / seeds,
            }
            if name != "labels":
                plain_validation, plain_test = zip(*found["labels"], strict=True)
                row["on_validation"] = Difference.of(validation, plain_validation).points()
                row["on_test"] = Difference.of(test, plain_test).points()
            rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training.distillation",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("task", choices=("digits", "text"))
    parser.add_argument("--sst2", type=Path, help="folder with stsa.binary.train, .dev and .test")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=("all", "few"), help="one setting instead of both")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    if arguments.task == "text" and arguments.sst2 is None:
        parser.error("text needs --sst2 PATH")
    torch.set_num_threads(1)
    setting = digits() if arguments.task == "digits" else text(arguments.sst2)
    sheet = Sheet(parser, arguments, f"distillation-{arguments.task}")
    (model, note), rows = trained_teacher(setting), []
    if arguments.only != "few":
        rows += compare(setting, model, setting.task, setting.recipe, arguments.seeds)
    if arguments.only != "all":
        recipe = replace(setting.recipe, epochs=setting.few_epochs)
        part = Part(setting.task, setting.keep_every)
        rows += compare(setting, model, part, recipe, arguments.seeds)
    columns = {
        "data": "{data}",
        "student": "{student}",
        "learns by": "{learns_by}",
        "val %": "{validation:.2f}",
        "test %": "{test:.2f}",
        "val": "{on_validation}",
        "test": "{on_test}",
        "CPU s": "{cpu_s:.1f}",
    }
    sheet.show(Table.of("students", columns, rows, note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
