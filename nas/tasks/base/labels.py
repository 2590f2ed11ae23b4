"""What a label may be, alike in CSV, JSON lines, Parquet, NumPy arrays and folders.

A label is a whole number or a text. ``1.0`` is the whole number 1, in whichever form it is
written; other fractions, NaN and empty labels are refused with their row.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base.problems import Problems, shown

Label = str | int
_SPACES = re.compile(r"\s+")
# Characters without a width, which names may have.
_JOINERS = re.compile("[\u200c\u200d]")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_FRACTION = re.compile(r"[+-]?(\d*\.\d+|\d+\.?)([eE][+-]?\d+)?")
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class BadLabel:
    """Why a value is no label."""

    why: str


def check_label(value: Any) -> Label | BadLabel:
    """The label that ``value`` of a file means, or why it is none."""
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
    """The labels in an array, one for each of ``n`` samples; bad ones are added to ``problems``.

    Raises:
        ValueError: there are not ``n``, or they are of another type.
    """
    # Columns and rows of labels are labels.
    if labels.ndim == 2 and 1 in labels.shape and labels.size == n:
        labels = labels.reshape(-1)
    if labels.shape != (n,) or labels.dtype.kind not in "buifUS":
        raise ValueError(
            f"labels of {where} must be {n} whole numbers or texts, got {labels.dtype} "
            f"{labels.shape}"
        )
    found: list[Label] = []
    for row, value in enumerate(labels.tolist()):
        label = check_label(value)
        if isinstance(label, BadLabel):
            problems.add(f"{where}, label {row}, {label.why}")
            # Keeps later rows in their places; the problem ends it all.
            label = ""
        found.append(label)
    return found


def like(label: Label, classes: Sequence[Label]) -> Label:
    """``label`` in the type of ``classes``: tables write all labels as text, JSON may not."""
    if not classes or type(label) is type(classes[0]):
        return label
    if isinstance(label, int):
        return str(label)
    return int(label) if re.fullmatch(r"[+-]?\d+", label) else label


def plain(label: Label) -> str:
    """A form that is the same for labels that differ in case, spaces or Unicode's form alone."""
    text = unicodedata.normalize("NFKC", str(label)).casefold()
    return _SPACES.sub(" ", _JOINERS.sub("", text).replace("_", " ")).strip()


def similar(label: Label, classes: Sequence[Label]) -> str:
    """A hint at the class that ``label`` may mean, or nothing."""
    alike = [name for name in classes if plain(name) == plain(label) and name != label]
    return f"; {alike[0]!r} differs in case or spaces alone" if alike else ""


def similar_classes(counts: Mapping[Label, int]) -> list[str]:
    """A line for each set of classes that may be one; ``counts`` are of their samples."""
    groups: dict[str, list[Label]] = {}
    for label in counts:
        groups.setdefault(plain(label), []).append(label)
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
