"""The batch size of the throughput regime: doubled until a sample's joules stop falling.

A device that is not filled spreads its idle draw and its launches over few samples, so joules per
sample fall with the batch; past that point a larger batch only costs latency and memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Doubling stops where it saves less than this share of a sample's joules.
LEAST_GAIN = 0.05
LARGEST = 4096


@dataclass(frozen=True, slots=True)
class BatchSearch:
    """State of the search for one model's batch size.

    ``following`` is the size to measure next, ``None`` at the end. ``settled`` is the result,
    ``None`` before the end, or if not even one sample could be measured.
    """

    following: int | None
    settled: int | None


def search_batch_size(found_j: Mapping[int, float | None]) -> BatchSearch:
    """The state of the search after ``found_j``, joules per sample by batch size.

    Sizes are doubled from 1 on. A size that could not be measured (``None``), for lack of memory
    say, ends the search as one that saves too little does: the size before it is the result.
    """
    size = 1
    before_j: float | None = None
    while size in found_j:
        energy_j = found_j[size]
        saves = energy_j is not None and (
            before_j is None or energy_j <= before_j * (1 - LEAST_GAIN)
        )
        if not saves:
            return BatchSearch(None, size // 2 if size > 1 else None)
        if size >= LARGEST:
            return BatchSearch(None, size)
        before_j, size = energy_j, size * 2
    return BatchSearch(size, None)
