"""Samples that splits have in common, and the majority class.

A sample in two splits is a leak: its validation or test figure is partly remembered. A sample that
repeats in one split counts twice, and one with two labels cannot be learnt.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from nas.tasks.base import SPLITS, Split, SplitName
from nas.tasks.base.problems import Problems

Digests = Mapping[SplitName, Sequence[bytes]]
_HASH_BYTES = 16
_SPACES = re.compile(r"\s+")
_MOST_EXAMPLES = 5
_MOST_CONTRADICTIONS = 20
# Samples of the first split must not be in the second.
PAIRS: tuple[tuple[SplitName, SplitName], ...] = (
    ("validation", "train"),
    ("test", "train"),
    ("test", "validation"),
)


def text_digest(text: str) -> bytes:
    """Hash a text, regardless of case, spaces and Unicode form."""
    plain = _SPACES.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return hashlib.sha256(plain.encode()).digest()[:_HASH_BYTES]


def array_digests(split: Split) -> list[bytes]:
    """Hash the values of each sample."""
    return [hashlib.sha256(row.tobytes()).digest()[:_HASH_BYTES] for row in split.inputs]


def repeats(
    digests: Digests,
    labels: Mapping[SplitName, Sequence[Any]],
    places: Mapping[SplitName, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Count samples that occur more than once; the result is plain data.

    Returns:
        ``also_in_train`` and, for test, ``also_in_validation``: samples of a split that are in the
        other as well; ``twice``: samples that repeat one before them in their split;
        ``contradictory``: samples with two labels. With ``places``: ``examples``, pairs of places
        of some leaks, and ``contradictions``, two places and labels of samples.
    """
    first: dict[SplitName, dict[bytes, int]] = {}
    for split in SPLITS:
        rows_of: dict[bytes, int] = {}
        for row, digest in enumerate(digests[split]):
            rows_of.setdefault(digest, row)
        first[split] = rows_of
    examples: list[list[str]] = []
    shared: dict[tuple[SplitName, SplitName], int] = {}
    for inner, outer in PAIRS:
        rows = [i for i, digest in enumerate(digests[inner]) if digest in first[outer]]
        shared[inner, outer] = len(rows)
        if places is not None:
            examples += [
                [places[inner][row], places[outer][first[outer][digests[inner][row]]]]
                for row in rows[:_MOST_EXAMPLES]
            ]
    twice = {split: len(digests[split]) - len(first[split]) for split in SPLITS}
    return {**shared_counts(shared, twice, examples), **_contradictory(digests, labels, places)}


def shared_counts(
    shared: Mapping[tuple[SplitName, SplitName], int],
    twice: Mapping[SplitName, int],
    examples: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Keys of ``repeats`` from the number of samples that each pair of splits shares."""
    return {
        "also_in_train": {s: shared[s, "train"] for s in SPLITS if s != "train"},
        "also_in_validation": {"test": shared["test", "validation"]},
        "twice": twice,
        "examples": examples,
    }


def _contradictory(
    digests: Digests,
    labels: Mapping[SplitName, Sequence[Any]],
    places: Mapping[SplitName, Sequence[str]] | None,
) -> dict[str, Any]:
    seen: dict[bytes, tuple[Any, str]] = {}
    pairs: dict[bytes, list[str]] = {}
    for split in SPLITS:
        for row, (digest, label) in enumerate(zip(digests[split], labels[split], strict=True)):
            place = f"{split} sample {row}" if places is None else places[split][row].rstrip(",")
            before, where = seen.setdefault(digest, (label, place))
            if before != label:
                pair = [where, _label_text(before), place, _label_text(label)]
                pairs.setdefault(digest, pair)
    examples = list(pairs.values())[:_MOST_CONTRADICTIONS]
    return {"contradictory": len(pairs), "contradictions": examples}


def _label_text(label: Any) -> str:
    return "another target" if isinstance(label, bytes) else repr(label)


def check_not_empty(splits: Mapping[SplitName, Any], noun: str, problems: Problems) -> None:
    """Add a problem for each split without samples, unless others explain it."""
    for split in [] if problems else [name for name in SPLITS if not splits[name]]:
        hint = "" if split == "train" else f": raise {split}_share, or name its data"
        problems.add(f"the {split} split must have {noun}, and has none{hint}")


def majority(counts: Sequence[int]) -> tuple[int, float, float]:
    """Return the most frequent class, its share, and the standard error of that share.

    The share is the quality of always predicting this class. Its error is binomial, with two
    successes and failures added (Agresti & Coull 1998).
    """
    n = sum(counts)
    largest = max(range(len(counts)), key=lambda i: counts[i])
    smoothed = (counts[largest] + 2) / (n + 4)
    return largest, counts[largest] / n, math.sqrt(smoothed * (1 - smoothed) / (n + 4))
