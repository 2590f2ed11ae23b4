"""All that can be said of a task's data before anything is trained on them.

Any task can be checked. What its kind contributes:

* What is wrong is a ``DataError`` (``nas.tasks.base.problems``), raised by ``split`` or ``about``,
  which has a line for each problem: file, row, what must be and what is. Collect with ``Problems``
  while reading, go on after each, and call ``check()`` where nothing further can be read.
* ``about()``, if the task has one, returns plain data. Used are ``classes`` (names in order),
  ``samples`` and ``of_classes`` (numbers for each split, the latter in the order of the classes),
  and ``repeats`` (``nas.tasks.base.splits``). What is missing is found from the arrays.
* ``warnings()``, if there is one, returns lines about what is allowed but seldom meant.
* ``notes()``, if there is one, returns lines about what of the data is not read, or otherwise than
  one may think: files, folders, depths. ``nas search`` says them, and warnings of lengths.

What holds for all kinds is warned of here: leaks between splits, samples that repeat, classes that
are rare or missing, and held-out data too few to tell candidates apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nas.tasks.base import SPLITS, SplitName, Task
from nas.tasks.base.labels import similar_classes
from nas.tasks.base.lengths import OF_LENGTHS
from nas.tasks.base.problems import DataError
from nas.tasks.base.splits import array_digests, class_counts, majority, repeats

SCHEMA_VERSION = 1
_UNEVEN, _RARE, _WIDE_SE = 0.8, 10, 0.02
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Check:
    """What is wrong with a task's data, what is unusual, and what they are."""

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
    """Read all splits of ``task`` and say what they are; what is wrong is in the result."""
    try:
        about = dict(task.about()) if hasattr(task, "about") else {}
        arrays = {name: task.split(name) for name in SPLITS}
        problems = list(_of_arrays(task))
        if problems:
            return Check(task.name, tuple(problems), len(problems))
    except ValueError as error:
        return failed(task.name, error)
    targets = {name: split.targets for name, split in arrays.items()}
    has_classes = all(target.ndim == 1 for target in targets.values())
    if "repeats" not in about:
        digests = {name: array_digests(split) for name, split in arrays.items()}
        labels = {name: list(map(_plain, targets[name])) for name in SPLITS}
        about["repeats"] = repeats(digests, labels)
    if has_classes and not about.get("classes"):
        about["classes"] = sorted({int(t) for name in SPLITS for t in np.unique(targets[name])})
        about["of_classes"] = {
            name: class_counts(targets[name].tolist(), about["classes"]) for name in SPLITS
        }
    splits = {name: _split(name, len(arrays[name]), about) for name in SPLITS}
    warnings = (*_notes(task), *_warnings(splits, about), *_own(task))
    return Check(task.name, (), 0, warnings, splits)


def search_notes(task: Task) -> list[str]:
    """What a search over ``task`` should say before it begins: what is not read, and lengths."""
    return [*_notes(task), *(line for line in _own(task) if line.startswith(OF_LENGTHS))]


def _notes(task: Task) -> list[str]:
    return list(task.notes()) if hasattr(task, "notes") else []


def _own(task: Task) -> list[str]:
    return list(task.warnings()) if hasattr(task, "warnings") else []


def _of_arrays(task: Task) -> Iterator[str]:
    for name in SPLITS:
        inputs = task.split(name).inputs
        if inputs.dtype.kind == "f":
            for row in np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1)):
                yield f"{task.name}, {name} sample {row}, must be finite, got NaN or infinity"


def _plain(target: Any) -> Any:
    return target.tobytes() if isinstance(target, np.ndarray) else int(target)


def _split(name: SplitName, n: int, about: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": n, "twice": about["repeats"]["twice"][name]}
    for other in ("train", "validation"):
        shared = about["repeats"].get(f"also_in_{other}", {})
        if name in shared:
            found[f"also_in_{other}"] = shared[name]
    classes = about.get("classes")
    if classes:
        counts = about["of_classes"][name]
        largest, share, error = majority(counts)
        found |= {
            "classes": {str(label): count for label, count in zip(classes, counts, strict=True)},
            "majority": str(classes[largest]),
            "majority_share": share,
            "majority_share_se": error,
        }
    return found


def _warnings(
    splits: Mapping[SplitName, Mapping[str, Any]], about: Mapping[str, Any]
) -> Iterator[str]:
    examples = about["repeats"].get("examples", [])
    for name in ("validation", "test"):
        for other in ("train", "validation"):
            n = splits[name].get(f"also_in_{other}", 0)
            if n:
                total = splits[name]["samples"]
                yield f"leak: {n} of {total} {name} samples stand in {other} as well"
    for pair in examples[:_MOST_NAMED]:
        yield f"leak: {pair[0]} is {pair[1]}"
    for name, split in splits.items():
        if split["twice"]:
            yield f"{split['twice']} of {split['samples']} {name} samples repeat one before them"
    contradictory = about["repeats"].get("contradictory", 0)
    if contradictory:
        yield f"{contradictory} samples stand somewhere with two labels"
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
            f"{split['majority']!r}, which is the quality of always saying so"
        )
    least = _RARE if name == "train" else 1
    rare = [f"{label!r} has {n}" for label, n in split["classes"].items() if n < least]
    if rare:
        more = f" and {len(rare) - _MOST_NAMED} more" if len(rare) > _MOST_NAMED else ""
        yield f"rare: of {name} samples {', '.join(rare[:_MOST_NAMED])}{more}"
    if name != "train":
        n = split["samples"]
        error = (0.9 * 0.1 / n) ** 0.5
        if error > _WIDE_SE:
            yield (
                f"few: {n} {name} samples tell an quality of 90% to ± {error:.1%} only "
                f"(one standard error)"
            )
