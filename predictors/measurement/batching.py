"""Batch size of the throughput regime: doubled until joules per sample stop falling.

On an underused device idle power and launches are shared by few samples, so joules per sample fall
with the batch size. On a fully used one a larger batch only adds latency and memory.
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


def search_batch_size(measured_j: Mapping[int, float | None]) -> BatchSearch:
    """Return the state of the search after ``measured_j``, joules per sample by batch size.

    Sizes are doubled from 1. The search ends at a size that saves too little, or that could not be
    measured (``None``), for example for lack of memory. The size before it is the result.
    """
    size = 1
    before_j: float | None = None
    while size in measured_j:
        energy_j = measured_j[size]
        saves = energy_j is not None and (
            before_j is None or energy_j <= before_j * (1 - LEAST_GAIN)
        )
        if not saves:
            return BatchSearch(None, size // 2 if size > 1 else None)
        if size >= LARGEST:
            return BatchSearch(None, size)
        before_j, size = energy_j, size * 2
    return BatchSearch(size, None)
