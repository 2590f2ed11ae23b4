"""Pruning: the candidates that a search considers, and those that it never trains.

The sampler considers thousands of candidates for each proposal. The gate prunes those whose
optimistic joules break a limit, and those whose P(Pareto) is too low, before the sampler compares
the rest. ``Pruning`` counts them, each architecture once, by its last verdict. The audit draws
from all that are pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.core.files import read_json, write_json
from nas.core.plain import from_plain, to_plain
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector, to_vector
from search_spaces.space.positions import is_active, repaired

# Most distinct candidates that are counted, which bounds the memory.
_MOST_COUNTED = 2_000_000


class Verdict(IntEnum):
    """What the gate decides on a candidate."""

    KEPT = 0
    OVER_LIMIT = 1
    DOMINATED = 2


# Returns the verdict on each candidate, ``(N,)`` of ``Verdict``.
Judge = Callable[[ArchitectureBatch], NDArray[np.int8]]


@dataclass(frozen=True, slots=True)
class PruningCounts:
    """Distinct candidates that a search considered, and those that were pruned, by reason."""

    considered: int = 0
    over_limit: int = 0
    dominated: int = 0

    @property
    def pruned(self) -> int:
        """Number of candidates that were pruned."""
        return self.over_limit + self.dominated

    @property
    def share(self) -> float:
        """Share of the considered candidates that were pruned, 0 without any."""
        return self.pruned / self.considered if self.considered else 0.0

    def __add__(self, other: PruningCounts) -> PruningCounts:
        """Return the sums."""
        return PruningCounts(
            self.considered + other.considered,
            self.over_limit + other.over_limit,
            self.dominated + other.dominated,
        )


class Pruning:
    """Filter of candidates by ``judge``, with counts of what it considered and pruned."""

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        """Keep every candidate until ``judge`` is set."""
        self.space = space
        self._rng = np.random.default_rng([seed, 11])
        self._verdicts: dict[bytes, int] = {}
        self._n = [0, 0, 0]
        self._before = PruningCounts()
        self._path: Path | None = None
        self.judge: Judge | None = None

    def store_at(self, path: Path) -> None:
        """Continue the counts at ``path``, where ``save`` writes them."""
        self._path, self._before = path, read_counts(path)

    def save(self) -> None:
        """Write the counts; they are on disk on return."""
        if self._path is not None:
            write_json(self._path, to_plain(self.counts))

    @property
    def counts(self) -> PruningCounts:
        """The counts so far."""
        return self._before + PruningCounts(sum(self._n), *self._n[1:])

    def keeps(
        self, positions_NG: NDArray[np.int64], batch: ArchitectureBatch
    ) -> NDArray[np.bool_]:
        """Return which candidates are kept, ``(N,)``; ``positions`` are those in the space."""
        if self.judge is None or not len(batch):
            return np.ones(len(batch), dtype=bool)
        verdicts = self.judge(batch)
        for row, verdict in zip(self._canonical(positions_NG), verdicts, strict=True):
            self._count(row.tobytes(), int(verdict))
        kept: NDArray[np.bool_] = verdicts == Verdict.KEPT
        return kept

    def count(self, architecture: Architecture, verdict: Verdict) -> None:
        """Count the verdict on one proposal."""
        row = self._canonical(to_vector(architecture, self.space)[None])[0]
        self._count(row.tobytes(), int(verdict))

    def draw(self, exclude: Container[str]) -> Architecture | None:
        """Return a pruned candidate at random whose hash is not in ``exclude``, else ``None``."""
        pruned = [key for key, verdict in self._verdicts.items() if verdict != Verdict.KEPT]
        for index in self._rng.permutation(len(pruned)):
            positions = np.frombuffer(pruned[int(index)], dtype=np.int32).astype(np.int64)
            architecture = from_vector(positions, self.space)
            if architecture.hash not in exclude:
                return architecture
        return None

    def _canonical(self, positions_NG: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return equal rows for equal architectures."""
        positions = repaired(positions_NG, self.space)
        return np.where(is_active(positions, self.space), positions, 0).astype(np.int32)

    def _count(self, key: bytes, verdict: int) -> None:
        before = self._verdicts.get(key)
        if before is None and len(self._verdicts) >= _MOST_COUNTED:
            return
        if before is not None:
            self._n[before] -= 1
        self._n[verdict] += 1
        self._verdicts[key] = verdict


def read_counts(path: Path) -> PruningCounts:
    """Return the counts of a run, zeros where none were written or they are damaged."""
    try:
        return from_plain(PruningCounts, read_json(path), "pruning counts")
    except ValueError:
        return PruningCounts()
