"""What training on is worth: expected hypervolume of a forecast, and the going rate for epochs.

A trial's remaining epochs are expected to add some hypervolume; spent on new candidates they would
add some, too. Which is the choice between going on with a known prospect and drawing another
(Weitzman 1979): the *going rate* is what the recent candidates would have brought for each epoch,
had they been stopped at their first rung by the best of all thresholds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of the spread of qualities and of log joules, how far beyond the worst is counted from.
_MARGIN = 0.1


@dataclass(frozen=True, slots=True)
class Prospect:
    """A candidate at its first rung: its expected gain, and the epochs before and after it."""

    gain: float
    spent: int
    remaining: int

    @property
    def rate(self) -> float:
        """Hypervolume for each epoch from here on."""
        return self.gain / self.remaining


@dataclass(frozen=True)
class Frontier:
    """What complete trials cover, in quality and the logarithm of joules.

    ``points`` are theirs, dominated ones allowed; counted from ``corner``, an quality and a
    log of joules that are worse than all.
    """

    points: NDArray[np.float64]
    corner: tuple[float, float]

    @classmethod
    def of(
        cls, points: Sequence[tuple[float, float]], energies_j: Collection[float] = ()
    ) -> Frontier:
        """Of ``(quality, joules)`` of one trial or more.

        ``energies_j`` are those of trials whose gains will be asked: one that costs more than all
        that are complete may still be the most accurate.
        """
        values = np.array(points, dtype=float).reshape(-1, 2)
        values[:, 1] = np.log(values[:, 1])
        qualities, logs = values[:, 0], np.append(values[:, 1], np.log(list(energies_j)))
        worst = float(qualities.min()), float(logs.max())
        return cls(
            values,
            (
                worst[0] - _MARGIN * float(np.ptp(qualities)),
                worst[1] + _MARGIN * float(np.ptp(logs)),
            ),
        )

    def without(self, index: int) -> Frontier:
        """With one trial fewer, counted from where it was."""
        return Frontier(np.delete(self.points, index, axis=0), self.corner)

    def best_at(self, energy_j: float) -> float:
        """The best quality that costs no more, ``-inf`` where nothing is as cheap."""
        qualities = self.points[self.points[:, 1] <= np.log(energy_j), 0]
        return float(qualities.max(initial=-np.inf))

    def gain(self, qualities: NDArray[np.float64], energy_j: float) -> float:
        """Mean hypervolume that one more trial adds whose quality is any of ``qualities``."""
        start, end = float(np.log(energy_j)), self.corner[1]
        if start >= end:
            return 0.0
        inside = self.points[self.points[:, 1] < end]
        inside = inside[np.argsort(inside[:, 1])]
        # Between the joules of two neighbours a trial beats the best that is cheaper.
        edges = np.clip(np.concatenate([inside[:, 1], [end]]), start, end)
        widths = np.diff(np.concatenate([[start], edges]))
        best = np.maximum.accumulate(np.concatenate([[self.corner[0]], inside[:, 0]]))
        return float((np.maximum(0.0, qualities[:, None] - best) * widths).sum(axis=1).mean())


def going_rate(prospects: Sequence[Prospect]) -> float:
    """Hypervolume for each epoch of new candidates, if those like ``prospects`` come."""
    spent = sum(p.spent for p in prospects)
    gained, trained, best = 0.0, 0, 0.0
    for prospect in sorted(prospects, key=lambda p: -p.rate):
        gained += prospect.gain
        trained += prospect.remaining
        best = max(best, gained / (spent + trained))
    return best
