"""Cut passages into samples of one length, and count those that are in another split.

Shape legend: N samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import SplitName
from nas.tasks.base.splits import PAIRS, shared_counts
from nas.tasks.sequences.overlap import Pieces, covered
from nas.tasks.sequences.passages import Passage
from nas.tasks.text.tokenize import TextEncoder

_MOST_EXAMPLES = 5
# All passages but a share of ``_SHORT`` fill a proposed context ``_TIMES`` times.
_TIMES, _SHORT = 4, 0.1
_REMEMBERED: tuple[SplitName, ...] = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Windows:
    """Samples of a split, ``(N, T + 1)`` tokens, of which all but the first are targets.

    ``passages``, ``starts`` and ``ends``, ``(N,)``, are the passage of each sample and the bytes
    of its targets. ``n_tokens`` is the number of tokens of all passages.
    """

    tokens: NDArray[np.int64]
    passages: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    n_tokens: int


def cut_windows(passages: Sequence[Passage], encoder: TextEncoder, length: int) -> Windows:
    """Cut ``passages`` of a split into samples of ``length`` tokens and one more.

    Raises:
        ValueError: the user's tokenizer does not decode a text to itself, or no passage is long
            enough.
    """
    n_tokens = 0
    rows, numbers, starts, ends = [], [], [], []
    encoded = encoder.encode_whole(passage.text for passage in passages)
    for number, (passage, (ids, byte_ends)) in enumerate(zip(passages, encoded, strict=True)):
        if not encoder.gives_back(passage.text, ids):
            raise ValueError(
                f"the tokenizer must give texts back as they were, since bits are counted per "
                f"byte of them, and does not do so for {passage.place}"
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
    """Propose a context of at most ``limit`` tokens that most ``passages`` fill several times.

    A power of two, since half a context at the end of a passage is unused on average.
    """
    n_tokens = [len(ids) for ids, _ in encoder.encode_whole(p.text for p in passages)]
    room = float(np.quantile(n_tokens, _SHORT)) / _TIMES
    return int(min(limit, 2 ** max(1, int(np.log2(max(2.0, room))))))


def repeats_of(
    passages: Mapping[SplitName, Sequence[Passage]], windows: Mapping[SplitName, Windows]
) -> dict[str, Any]:
    """Return ``splits.repeats``: samples whose targets are in a run of bytes of another split."""
    pieces: dict[SplitName, Pieces] = {
        split: Pieces.of([passage.text.encode() for passage in passages[split]])
        for split in _REMEMBERED
    }
    examples: list[list[str]] = []
    shared: dict[tuple[SplitName, SplitName], int] = {}
    for inner, outer in PAIRS:
        cut, known, outside = windows[inner], pieces[outer], passages[outer]
        n, shown = 0, 0
        for number, passage in enumerate(passages[inner]):
            text = passage.text.encode()
            at, which = known.runs(text)
            is_shared = np.concatenate([[0], np.cumsum(covered(at, len(text)))])
            rows = cut.passages == number
            n += int((is_shared[cut.ends[rows]] > is_shared[cut.starts[rows]]).sum())
            if len(at) and shown < _MOST_EXAMPLES:
                piece = which[0]
                other = outside[known.texts[piece]].place_at(int(known.starts[piece]))
                examples.append([passage.place_at(int(at[0])), other])
                shown += 1
        shared[inner, outer] = n
    twice = {
        split: len(cut.tokens) - len(np.unique(cut.tokens, axis=0))
        for split, cut in windows.items()
    }
    return {**shared_counts(shared, twice, examples), "contradictory": 0}
