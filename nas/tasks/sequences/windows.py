"""Passages as samples of one length, and which of them stand in another split.

Shape legend: N samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import SPLITS, SplitName
from nas.tasks.sequences.overlap import RUN, Pieces, covered
from nas.tasks.sequences.passages import Passage
from nas.tasks.text.tokenize import TextEncoder

_MOST_EXAMPLES = 5
# A proposed context is filled so many times by all passages but this share of short ones.
_TIMES, _SHORT = 4, 0.1
# Of splits: samples of the first must not be in the second.
_PAIRS: tuple[tuple[SplitName, SplitName], ...] = (
    ("validation", "train"),
    ("test", "train"),
    ("test", "validation"),
)
_REMEMBERED: tuple[SplitName, ...] = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Windows:
    """Samples of a split, ``(N, T + 1)`` tokens of which all but the first are guessed.

    ``passages``, ``starts`` and ``ends``, ``(N,)``, say in which passage and which of its bytes
    are guessed. The passages have ``n_tokens`` in all, those in no sample included.
    """

    tokens: NDArray[np.int64]
    passages: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    n_tokens: int


def cut_windows(passages: Sequence[Passage], encoder: TextEncoder, length: int) -> Windows:
    """The samples of ``length`` tokens and one more that ``passages`` of a split have.

    Raises:
        ValueError: the tokenizer, which is a user's, does not give a text back; or no passage is
            long enough.
    """
    n_tokens = 0
    rows, numbers, starts, ends = [], [], [], []
    encoded = encoder.encode_whole(passage.text for passage in passages)
    for number, (passage, (ids, byte_ends)) in enumerate(zip(passages, encoded, strict=True)):
        if not encoder.gives_back(passage.text, ids):
            raise ValueError(
                f"the tokenizer must give texts back as they were, since bits are counted per "
                f"byte of them, and does not do so for {passage.place(0)}"
            )
        n_tokens += len(ids)
        n = (len(ids) - 1) // length
        if n > 0:
            first = np.arange(n) * length
            rows.append(ids[first[:, None] + np.arange(length + 1)])
            numbers.append(np.full(n, number, np.int64))
            starts.append(byte_ends[first])
            ends.append(byte_ends[first + length])
    if not rows:
        raise ValueError(
            f"the {passages[0].split} split must have a passage of more than context_length "
            f"({length}) tokens"
        )
    return Windows(
        np.concatenate(rows),
        np.concatenate(numbers),
        np.concatenate(starts),
        np.concatenate(ends),
        n_tokens,
    )


def fitting_context(passages: Sequence[Passage], encoder: TextEncoder, limit: int) -> int:
    """A context of at most ``limit`` tokens that all but few ``passages`` fill several times.

    A power of two, since what is left over at the end of a passage is half a context on average.
    """
    n_tokens = [len(ids) for ids, _ in encoder.encode_whole(p.text for p in passages)]
    room = float(np.quantile(n_tokens, _SHORT)) / _TIMES
    return int(min(limit, 2 ** max(1, int(np.log2(max(2.0, room))))))


def repeats_of(
    passages: Mapping[SplitName, Sequence[Passage]], windows: Mapping[SplitName, Windows]
) -> dict[str, Any]:
    """Return ``splits.repeats`` of samples that contain a run of another split.

    That is of ``RUN`` bytes or more, some of which the sample is to guess.
    """
    pieces: dict[SplitName, Pieces] = {
        split: Pieces.of([passage.text.encode() for passage in passages[split]])
        for split in _REMEMBERED
    }
    examples: list[list[str]] = []
    shared: dict[tuple[SplitName, SplitName], int] = {}
    for inner, outer in _PAIRS:
        found, known, outside = windows[inner], pieces[outer], passages[outer]
        n, shown = 0, 0
        for number, passage in enumerate(passages[inner]):
            text = passage.text.encode()
            at, which = known.runs(text)
            is_shared = np.concatenate([[0], np.cumsum(covered(at, len(text)))])
            rows = found.passages == number
            n += int((is_shared[found.ends[rows]] > is_shared[found.starts[rows]]).sum())
            if len(at) and shown < _MOST_EXAMPLES:
                piece = which[0]
                other = outside[known.texts[piece]].place(int(known.starts[piece]))
                examples.append([passage.place(int(at[0])), other])
                shown += 1
        shared[inner, outer] = n
    return {
        "also_in_train": {s: shared[s, "train"] for s in SPLITS if s != "train"},
        "also_in_validation": {"test": shared["test", "validation"]},
        "twice": {
            split: len(found.tokens) - len(np.unique(found.tokens, axis=0))
            for split, found in windows.items()
        },
        "contradictory": 0,
        "examples": examples,
        "run_bytes": RUN,
    }
