"""All checks of a task's data before anything is trained on them.

Errors are ``DataError`` (``nas.tasks.base.problems``), raised by ``Task.split`` or ``about``, with
a line for each problem: file, row, what is required and the value. ``Task.about`` may have
``classes`` (names in order), ``samples`` and ``of_classes`` (numbers for each split, the latter in
the order of the classes), and ``repeats`` (``nas.tasks.base.splits``); missing ones are computed
from the arrays. Warnings that hold for all kinds are made here: leaks between splits, samples that
repeat, classes that are rare or missing, and held-out data too few to compare candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nas.tasks.base import SPLITS, Split, SplitName, Task
from nas.tasks.base.labels import similar_classes
from nas.tasks.base.lengths import OF_LENGTHS
from nas.tasks.base.problems import DataError
from nas.tasks.base.splits import array_digests, majority, repeats

SCHEMA_VERSION = 1
_UNEVEN, _RARE, _WIDE_SE = 0.8, 10, 0.02
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Check:
    """Errors and warnings of a task's data, and a summary of each split."""

    name: str
    errors: tuple[str, ...] = ()
    n_errors: int = 0
    warnings: tuple[str, ...] = ()
    splits: Mapping[SplitName, Mapping[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the form is in ``nas/schemas/results.json``."""
        return {
            "schema": SCHEMA_VERSION,
            "task": self.name,
            "errors": list(self.errors),
            "n_errors": self.n_errors,
            "warnings": list(self.warnings),
            "splits": {name: dict(split) for name, split in self.splits.items()},
        }


def failed(name: str, error: ValueError) -> Check:
    """The check of a task that cannot be read because of ``error``."""
    if isinstance(error, DataError):
        return Check(name, error.lines, error.n)
    return Check(name, (str(error),), 1)


def check_data(task: Task) -> Check:
    """Read and check all splits of ``task``; errors are in the result."""
    try:
        about = dict(task.about())
        arrays = {name: task.split(name) for name in SPLITS}
        problems = list(_not_finite(task.name, arrays))
        if problems:
            return Check(task.name, tuple(problems), len(problems))
    except ValueError as error:
        return failed(task.name, error)
    if "repeats" not in about:
        digests = {name: array_digests(split) for name, split in arrays.items()}
        labels = {
            name: [t.tobytes() if t.ndim else int(t) for t in split.targets]
            for name, split in arrays.items()
        }
        about["repeats"] = repeats(digests, labels)
    if not about.get("classes") and all(split.targets.ndim == 1 for split in arrays.values()):
        about["classes"] = np.unique(np.concatenate([s.targets for s in arrays.values()])).tolist()
        about["of_classes"] = {
            name: [int((split.targets == label).sum()) for label in about["classes"]]
            for name, split in arrays.items()
        }
    splits = {name: _split(name, len(arrays[name]), about) for name in SPLITS}
    warnings = (*task.notes(), *_warnings(splits, about), *task.warnings())
    return Check(task.name, (), 0, warnings, splits)


def search_notes(task: Task) -> list[str]:
    """Lines for the start of a search over ``task``: what is not read, and lengths."""
    return [*task.notes(), *(line for line in task.warnings() if line.startswith(OF_LENGTHS))]


def _not_finite(name: str, arrays: Mapping[SplitName, Split]) -> Iterator[str]:
    for split_name, split in arrays.items():
        inputs = split.inputs
        if inputs.dtype.kind == "f":
            for row in np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1)):
                yield f"{name}, {split_name} sample {row}, must be finite, got NaN or infinity"


def _split(name: SplitName, n: int, about: Mapping[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {"samples": n, "twice": about["repeats"]["twice"][name]}
    for other in ("train", "validation"):
        shared = about["repeats"].get(f"also_in_{other}", {})
        if name in shared:
            summary[f"also_in_{other}"] = shared[name]
    classes = about.get("classes")
    if classes:
        counts = about["of_classes"][name]
        largest, share, error = majority(counts)
        summary |= {
            "classes": {str(label): count for label, count in zip(classes, counts, strict=True)},
            "majority": str(classes[largest]),
            "majority_share": share,
            "majority_share_se": error,
        }
    return summary


def _warnings(
    splits: Mapping[SplitName, Mapping[str, Any]], about: Mapping[str, Any]
) -> Iterator[str]:
    examples = about["repeats"].get("examples", [])
    for name in ("validation", "test"):
        for other in ("train", "validation"):
            n = splits[name].get(f"also_in_{other}", 0)
            if n:
                total = splits[name]["samples"]
                yield f"leak: {n} of {total} {name} samples are in {other} as well"
    for pair in examples[:_MOST_NAMED]:
        yield f"leak: {pair[0]} is {pair[1]}"
    for name, split in splits.items():
        if split["twice"]:
            yield f"repeat: {split['twice']} of {split['samples']} {name} samples repeat another"
    contradictory = about["repeats"].get("contradictory", 0)
    if contradictory:
        yield f"contradictory: {contradictory} samples have two labels"
    contradictions = about["repeats"].get("contradictions", [])
    for where, label, other, second in contradictions:
        yield f"two labels: {where} is {label}, and {other}, the same sample, is {second}"
    if contradictory > len(contradictions) > 0:
        yield f"two labels: {contradictory - len(contradictions)} more such samples"
    if "train" in splits and "classes" in splits["train"]:
        yield from similar_classes(splits["train"]["classes"])
    for name, split in splits.items():
        if "classes" in split:
            yield from _class_warnings(name, split)


def _class_warnings(name: SplitName, split: Mapping[str, Any]) -> Iterator[str]:
    if split["majority_share"] > _UNEVEN:
        yield (
            f"uneven: {split['majority_share']:.1%} of the {name} samples are "
            f"{split['majority']!r}: always predicting it has this quality"
        )
    least = _RARE if name == "train" else 1
    rare = [f"{label!r} ({n})" for label, n in split["classes"].items() if n < least]
    if rare:
        more = f" and {len(rare) - _MOST_NAMED} more" if len(rare) > _MOST_NAMED else ""
        yield f"rare: too few {name} samples of {', '.join(rare[:_MOST_NAMED])}{more}"
    if name != "train":
        n = split["samples"]
        error = (0.9 * 0.1 / n) ** 0.5
        if error > _WIDE_SE:
            yield (
                f"few: with {n} {name} samples a quality of 90% has a standard error of "
                f"{error:.1%}"
            )
