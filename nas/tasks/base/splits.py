"""What the splits of a task have in common and how even their classes are.

A sample that stands in two splits is a leak: what is measured on validation or test data is then
partly remembered. A sample that stands twice inside one split counts twice in it; one that stands
there with two labels cannot be learnt.

Shape legend: N samples.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nas.tasks.base import SPLITS, Split, SplitName

Digests = Mapping[SplitName, Sequence[bytes]]
_HASH_BYTES = 16
_SPACES = re.compile(r"\s+")
_MOST_EXAMPLES = 5
_MOST_CONTRADICTIONS = 20
# Of splits: samples of the first must not be in the second.
_PAIRS: tuple[tuple[SplitName, SplitName], ...] = (
    ("validation", "train"),
    ("test", "train"),
    ("test", "validation"),
)


def text_digest(text: str) -> bytes:
    """A hash that is the same for texts that differ in case, in spaces or in Unicode's form."""
    plain = _SPACES.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return hashlib.sha256(plain.encode()).digest()[:_HASH_BYTES]


def array_digests(split: Split) -> list[bytes]:
    """A hash for each sample's values."""
    return [hashlib.sha256(row.tobytes()).digest()[:_HASH_BYTES] for row in split.inputs]


def repeats(
    digests: Digests,
    labels: Mapping[SplitName, Sequence[Any]],
    places: Mapping[SplitName, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Which samples stand in more than one place, as plain data.

    Returns:
        ``also_in_train`` and, for test, ``also_in_validation``: samples of a split that the other
        holds as well; ``twice``: samples that came before in their own split; ``contradictory``:
        different samples that stand somewhere with two labels; ``examples``: pairs of places of
        some leaks, and ``contradictions``: two places and labels of samples with two, where there
        are ``places``.
    """
    first: dict[SplitName, dict[bytes, int]] = {}
    for split in SPLITS:
        found: dict[bytes, int] = {}
        for row, digest in enumerate(digests[split]):
            found.setdefault(digest, row)
        first[split] = found
    examples: list[list[str]] = []
    shared: dict[tuple[SplitName, SplitName], int] = {}
    for inner, outer in _PAIRS:
        rows = [i for i, digest in enumerate(digests[inner]) if digest in first[outer]]
        shared[inner, outer] = len(rows)
        if places is not None:
            examples += [
                [places[inner][row], places[outer][first[outer][digests[inner][row]]]]
                for row in rows[:_MOST_EXAMPLES]
            ]
    return {
        "also_in_train": {s: shared[s, "train"] for s in SPLITS if s != "train"},
        "also_in_validation": {"test": shared["test", "validation"]},
        "twice": {split: len(digests[split]) - len(first[split]) for split in SPLITS},
        **_contradictory(digests, labels, places),
        "examples": examples,
    }


def _contradictory(
    digests: Digests,
    labels: Mapping[SplitName, Sequence[Any]],
    places: Mapping[SplitName, Sequence[str]] | None,
) -> dict[str, Any]:
    seen: dict[bytes, tuple[Any, str]] = {}
    found: dict[bytes, list[str]] = {}
    for split in SPLITS:
        for row, (digest, label) in enumerate(zip(digests[split], labels[split], strict=True)):
            place = f"{split} sample {row}" if places is None else places[split][row].rstrip(",")
            before, where = seen.setdefault(digest, (label, place))
            if before != label:
                pair = [where, _label_text(before), place, _label_text(label)]
                found.setdefault(digest, pair)
    examples = list(found.values())[:_MOST_CONTRADICTIONS]
    return {"contradictory": len(found), "contradictions": examples}


def _label_text(label: Any) -> str:
    return "another target" if isinstance(label, bytes) else repr(label)


def class_counts(targets: Iterable[Any], classes: Sequence[Any]) -> list[int]:
    """How many of ``targets`` are of each of ``classes``."""
    counts = Counter(targets)
    return [counts[name] for name in classes]


def majority(counts: Sequence[int]) -> tuple[int, float, float]:
    """The most frequent class, its share, and the standard error of that share.

    That share is the quality of always saying this class. Its error is that of a binomial share
    with two successes and failures added (Agresti & Coull 1998), as for every quality here.
    """
    n = sum(counts)
    largest = max(range(len(counts)), key=lambda i: counts[i])
    smoothed = (counts[largest] + 2) / (n + 4)
    return largest, counts[largest] / n, math.sqrt(smoothed * (1 - smoothed) / (n + 4))
