"""Which trials are trained on: asynchronous successive halving over quality and joules.

ASHA (Li et al. 2020, "A system for massively parallel hyperparameter tuning") compares a trial
with all that have reached the same *rung*, an epoch ``min * eta**k``, and trains it on if it is
among the best 1/eta of them; nobody waits for anybody. With two objectives (MO-ASHA, Schmucker et
al. 2021) "best" is an order of points: front by front, as in non-dominated sorting, and within
one front by hypervolume contribution, the greatest first (Beume, Naujoks & Emmerich 2007). We
prefer that to MO-ASHA's epsilon-net, which spreads over a front whatever a place on it is worth:
what searches are judged by is hypervolume.

Joules are known from the start, as predictions until they are measured, so only quality is
uncertain at a rung. A trial is not stopped that would be on the rung's front even if its quality
were a standard error lower: there may be more such trials than 1/eta.

No Ray here, and no search: the rule alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.pareto.dominance import non_dominated_mask
from nas.records.rungs import HalvingConfig, RungPoint

# Of a rung's extent, how far beyond its worst values hypervolume is counted from.
_MARGIN = 0.1


@dataclass(frozen=True, slots=True)
class Standing:
    """A trial at a rung."""

    quality: float
    standard_error: float
    energy_j: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Place ``rank`` (from 0) ``of`` all at the rung, of whom the ``best`` go on."""

    point: RungPoint
    rank: int
    of: int
    best: int
    is_clear: bool

    @property
    def goes_on(self) -> bool:
        """Whether to train on."""
        return self.rank < self.best or self.is_clear

    @property
    def reason(self) -> str:
        """Why a trial is stopped, in a line."""
        return (
            f"quality {self.point.quality:.3f} at epoch {self.point.epoch}: "
            f"place {self.rank + 1} of {self.of}, of whom {self.best} go on"
        )


class Halving:
    """What trials said at their rungs, and who goes on."""

    def __init__(self, config: HalvingConfig) -> None:
        """Start with empty rungs."""
        self._config = config
        self._rungs: dict[int, dict[Hashable, RungPoint]] = {}

    def reach(self, trial: Hashable, point: RungPoint) -> None:
        """``trial`` has reached the rung at ``point.epoch``; what it said there before is void."""
        self._rungs.setdefault(point.epoch, {})[trial] = point

    def trials_at(self, epoch: int) -> list[Hashable]:
        """Who has reached the rung at ``epoch``, in that order."""
        return list(self._rungs.get(epoch, {}))

    def verdict(
        self, trial: Hashable, epoch: int, energies_j: Mapping[Hashable, float]
    ) -> Verdict:
        """Whether ``trial`` goes on, by what has reached the rung until now.

        ``energies_j`` has the joules per sample of all that did, measured or predicted.

        Raises:
            ValueError: ``trial`` has not reached the rung.
        """
        rung = self._rungs.get(epoch, {})
        if trial not in rung:
            raise ValueError(f"trial {trial!r} must have reached the rung at epoch {epoch}")
        names = list(rung)
        standings = [
            Standing(point.quality, point.standard_error, energies_j[name])
            for name, point in rung.items()
        ]
        index = names.index(trial)
        others = [s for i, s in enumerate(standings) if i != index]
        return Verdict(
            point=rung[trial],
            rank=ranks(standings)[index],
            of=len(standings),
            best=math.ceil(len(standings) / self._config.eta),
            is_clear=_is_clear(standings[index], others),
        )


def ranks(standings: Sequence[Standing]) -> list[int]:
    """Each one's place, from 0, the best first; among equals who came first."""
    values = np.array([(s.quality, s.energy_j) for s in standings]).reshape(-1, 2)
    points = np.column_stack([values[:, 0], np.log(values[:, 1])])
    # A little beyond the worst of the rung, so that the ends of a front cover something too.
    extent = points.max(axis=0) - points.min(axis=0)
    corner = np.array([points[:, 0].min(), points[:, 1].max()]) + (-_MARGIN, _MARGIN) * extent
    left = np.arange(len(points))
    order: list[int] = []
    while len(left):
        mask = non_dominated_mask(values[left], (True, False))
        front = left[mask]
        gains = _contributions(points[front], corner)
        order += front[np.argsort(-gains, kind="stable")].tolist()
        left = left[~mask]
    found = [0] * len(points)
    for rank, index in enumerate(order):
        found[index] = rank
    return found


def _contributions(
    front_NM: NDArray[np.float64], corner_M: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Hypervolume that only each member covers, counted from ``corner_M``, shape ``(N,)``."""
    order = np.lexsort((front_NM[:, 0], front_NM[:, 1]))
    quality, log_energy = front_NM[order].T
    # Neighbours on the front bound what is covered by one member alone.
    gained = quality - np.concatenate([[corner_M[0]], quality[:-1]])
    saved = np.concatenate([log_energy[1:], [corner_M[1]]]) - log_energy
    found = np.empty(len(order))
    found[order] = gained * saved
    return found


def _is_clear(standing: Standing, others: Sequence[Standing]) -> bool:
    """Whether it is on the front by a margin of its quality's standard error."""
    least = standing.quality - standing.standard_error
    return not any(o.energy_j <= standing.energy_j and o.quality >= least for o in others)
