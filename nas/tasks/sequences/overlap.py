"""Find runs of bytes that a text shares with other texts, at any offset.

Each aligned piece of ``RUN`` bytes of the other texts is hashed, and compared with the hash at
every byte of the text. That finds every common run of ``2 * RUN - 1`` bytes and none below
``RUN``, in memory of an eighth of the other texts. Source of exact common runs as leaks: Lee et
al. 2022, "Deduplicating training data makes language models better".

Shape legend: N bytes of a text, P pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A power of two: hashes of runs are made of those of their halves.
RUN = 64
_AT_A_TIME = 2**20
_LARGEST = 2**64
_VALUES = np.random.default_rng(20_260_101).integers(_LARGEST, size=256, dtype=np.uint64)
# Odd, so that no bit is lost (the fraction of the golden ratio, as Fibonacci hashing has it).
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Sorted hashes of the pieces of some texts, and the text and offset of each, ``(P,)``."""

    hashes: NDArray[np.uint64]
    texts: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Pieces:
        """Hash the whole pieces of ``texts``."""
        hashes, numbers, starts = [], [], []
        for number, text in enumerate(texts):
            found = _hashes(text, RUN)
            hashes.append(found)
            numbers.append(np.full(len(found), number, np.int64))
            starts.append(np.arange(len(found), dtype=np.int64) * RUN)
        if not hashes:
            return cls(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
        hashes_P = np.concatenate(hashes)
        order = np.argsort(hashes_P, kind="stable")
        return cls(hashes_P[order], np.concatenate(numbers)[order], np.concatenate(starts)[order])

    def runs(self, text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Offsets in ``text`` at which a piece begins, and the index of each piece."""
        hashes = _hashes(text, 1)
        if not len(self.hashes) or not len(hashes):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        places = np.searchsorted(self.hashes, hashes)
        places = np.minimum(places, len(self.hashes) - 1)
        at = np.flatnonzero(self.hashes[places] == hashes)
        return at, places[at]


def covered(starts: NDArray[np.int64], n_bytes: int) -> NDArray[np.bool_]:
    """Whether each of ``n_bytes`` is in a run that begins at one of ``starts``, ``(N,)``."""
    edges = np.zeros(n_bytes + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + RUN, -1)
    found: NDArray[np.bool_] = np.cumsum(edges[:-1]) > 0
    return found


def _hashes(text: bytes, stride: int) -> NDArray[np.uint64]:
    """Hash the ``RUN`` bytes at each multiple of ``stride``."""
    values = np.frombuffer(text, np.uint8)
    found = []
    for start in range(0, max(0, len(values) - RUN + 1), _AT_A_TIME):
        hashes = _VALUES[values[start : start + _AT_A_TIME + RUN - 1]]
        width = 1
        while width < RUN:
            # All bits of a half take part in the next product.
            hashes ^= hashes >> _SHIFT
            hashes = hashes[:-width] * _FACTOR + hashes[width:]
            width *= 2
        found.append(hashes[::stride])
    return np.concatenate(found) if found else np.zeros(0, np.uint64)
