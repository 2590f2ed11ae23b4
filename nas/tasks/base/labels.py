"""Labels, alike in CSV, JSON lines, Parquet, NumPy arrays and folders.

A label is a whole number or a text. ``1.0`` is the whole number 1, in whichever form it is
written; other fractions, NaN and empty labels are refused with their row.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core.names import MOST_TEXT, check_name
from nas.tasks.base import SPLITS, SplitName
from nas.tasks.base.problems import Problems, shown

Label = str | int
_SPACES = re.compile(r"\s+")
# Characters without a width, which names may have.
_JOINERS = re.compile("[\u200c\u200d]")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_FRACTION = re.compile(r"[+-]?(\d*\.\d+|\d+\.?)([eE][+-]?\d+)?")
_MOST_NAMED, _MOST_SHOWN = 5, 20


@dataclass(frozen=True, slots=True)
class BadLabel:
    """The reason why a value is no label."""

    why: str


def check_label(value: Any) -> Label | BadLabel:
    """Parse ``value`` of a file as a label, or say why it is invalid."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else _no_label(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return _of_text(value) if isinstance(value, str) else _no_label(value)


def _of_text(text: str) -> Label | BadLabel:
    label = text.strip()
    if not label:
        return BadLabel("must have a label, and it is empty")
    if label.lower() == "nan":
        return BadLabel("must have a label, got NaN")
    whole = _WHOLE.fullmatch(label)
    if whole:
        return str(int(whole[1]))
    if _FRACTION.fullmatch(label) and not label.lstrip("+-").isdigit():
        number = float(label)
        return str(int(number)) if number.is_integer() else _no_label(label, shown(number))
    return label


def _no_label(value: Any, text: str | None = None) -> BadLabel:
    hint = ""
    if text is not None or (isinstance(value, float) and math.isfinite(value)):
        hint = " (write a fraction that names a class as a text, such as r0.5)"
    return BadLabel(
        f"must have a label that is a whole number or a text, got {text or shown(value)}{hint}"
    )


def array_labels(labels: NDArray[Any], n: int, where: Path, problems: Problems) -> list[Label]:
    """Read an array of ``n`` labels; invalid ones are added to ``problems``.

    Raises:
        ValueError: the array has another shape or type.
    """
    # Columns and rows of labels are labels.
    if labels.ndim == 2 and 1 in labels.shape and labels.size == n:
        labels = labels.reshape(-1)
    if labels.shape != (n,) or labels.dtype.kind not in "buifUS":
        raise ValueError(
            f"labels of {where} must be {n} whole numbers or texts, got {labels.dtype} "
            f"{labels.shape}"
        )
    parsed: list[Label] = []
    for row, value in enumerate(labels.tolist()):
        label = check_label(value)
        if isinstance(label, BadLabel):
            problems.add(f"{where}, label {row}, {label.why}")
            # A placeholder: the problem refuses the data.
            label = ""
        parsed.append(label)
    return parsed


@dataclass(frozen=True, slots=True)
class Encoded:
    """Labels as numbers: the index of each among ``classes`` of the training split."""

    classes: Sequence[Label]
    labels: Mapping[SplitName, Sequence[Label]]

    def targets(self, split: SplitName) -> NDArray[np.int64]:
        """The class numbers of a split, ``(N,)``."""
        number = {label: i for i, label in enumerate(self.classes)}
        return np.array([number[label] for label in self.labels[split]], dtype=np.int64)

    def about(self) -> dict[str, Any]:
        """Keys of ``Task.about``: the classes, and how many samples of each a split has."""
        counts = {split: Counter(labels) for split, labels in self.labels.items()}
        return {
            "classes": list(self.classes),
            "of_classes": {s: [n[label] for label in self.classes] for s, n in counts.items()},
        }


def encode_labels(
    labels: Mapping[SplitName, Sequence[Label]],
    places: Mapping[SplitName, Sequence[str]],
    training: str,
    problems: Problems,
) -> Encoded:
    """Encode the labels of all splits; those without a class are added to ``problems``.

    ``training`` names the training split in messages.
    """
    classes = classes_of(labels["train"], training, problems) if labels["train"] else []
    alike = {split: [_like(label, classes) for label in labels[split]] for split in SPLITS}
    allowed = ", ".join(map(str, classes[:_MOST_SHOWN]))
    allowed += ", ..." if len(classes) > _MOST_SHOWN else ""
    known = set(classes)
    for split in SPLITS if classes else ():
        for place, label in zip(places[split], alike[split], strict=True):
            if label not in known:
                problems.add(
                    f"{place} must have a label of the training split ({allowed}), got {label!r}"
                    f"{similar(label, classes)}"
                )
    return Encoded(classes, alike)


def classes_of(labels: Sequence[Label], where: str, problems: Problems) -> list[Label]:
    """Return the sorted classes among ``labels`` of the training split."""
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        problems.add(f"{where} must have labels of one kind, got whole numbers and texts")
        return []
    classes = sorted(set(labels))
    for label in classes:
        try:
            check_name(f"{where}: a label", str(label), most=MOST_TEXT)
        except ValueError as error:
            problems.add(str(error))
            return []
    if len(classes) < 2:
        names = ", ".join(map(str, classes)) or "none"
        problems.add(f"{where} must have two classes or more, got {names}")
    return classes


def _like(label: Label, classes: Sequence[Label]) -> Label:
    """``label`` in the type of ``classes``: tables write all labels as text, JSON may not."""
    if not classes or type(label) is type(classes[0]):
        return label
    if isinstance(label, int):
        return str(label)
    return int(label) if re.fullmatch(r"[+-]?\d+", label) else label


def _normalised(label: Label) -> str:
    """Normalise case, spaces and Unicode form."""
    text = unicodedata.normalize("NFKC", str(label)).casefold()
    return _SPACES.sub(" ", _JOINERS.sub("", text).replace("_", " ")).strip()


def similar(label: Label, classes: Sequence[Label]) -> str:
    """A hint at the class that ``label`` may be, or nothing."""
    alike = [name for name in classes if _normalised(name) == _normalised(label) and name != label]
    return f"; {alike[0]!r} differs in case or spaces alone" if alike else ""


def similar_classes(counts: Mapping[Label, int]) -> list[str]:
    """Lines for sets of classes that may be one; ``counts`` are their numbers of samples."""
    groups: dict[str, list[Label]] = {}
    for label in counts:
        groups.setdefault(_normalised(label), []).append(label)
    lines = []
    for group in groups.values():
        if len(group) > 1:
            named = " and ".join(f"{label!r} ({counts[label]})" for label in group)
            lines.append(
                f"labels: {named} differ in case, spaces or Unicode's form alone: are they one "
                f"class?"
            )
    more = len(lines) - _MOST_NAMED
    return lines[:_MOST_NAMED] + ([f"labels: {more} more such sets"] if more > 0 else [])
