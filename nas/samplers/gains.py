"""Expected hypervolume improvement of candidates, predicted by surrogates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nas.pareto.dominance import extended_front
from nas.samplers.improvement import Marginal, boxes, expected_improvement
from nas.samplers.surrogate import Points, Posterior, Surrogate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surrogates:
    """Surrogates of the losses and of the constraints."""

    losses: list[Surrogate]
    constraints: list[Surrogate]

    def posteriors(self, points: Points) -> tuple[list[Posterior], list[Posterior]]:
        """Return the posteriors of losses and constraints at candidates."""
        return (
            [surrogate.posterior(points) for surrogate in self.losses],
            [surrogate.posterior(points) for surrogate in self.constraints],
        )

    def expected(self, points: Points) -> Array:
        """Return mean losses, ``(C, M)``, without the variances, which cost much more."""
        return self._unlogged([surrogate.mean(points) for surrogate in self.losses])

    def means(self, posteriors: Sequence[Posterior]) -> Array:
        """Return the mean losses of posteriors, ``(C, M)``."""
        return self._unlogged([posterior.mean for posterior in posteriors])

    def _unlogged(self, means: Sequence[Array]) -> Array:
        pairs = zip(self.losses, means, strict=True)
        return np.column_stack([np.exp(x) if s.is_log else x for s, x in pairs])

    def with_pending(self, points: Points) -> Surrogates:
        """Return fantasy models, conditioned on pending points at their predicted losses."""
        return Surrogates(
            [surrogate.with_pending(points) for surrogate in self.losses], self.constraints
        )


@dataclass(frozen=True)
class Region:
    """Front to improve and its reference point, ``None`` while no point is feasible."""

    front: Array
    reference: Array | None

    def gain(
        self,
        surrogates: Surrogates,
        posteriors: Sequence[Posterior],
        constraints: Sequence[Posterior],
    ) -> Array:
        """Return expected hypervolume improvement times probability of feasibility, ``(C,)``."""
        likely = feasibility(constraints, len(posteriors[0].mean))
        if self.reference is None:
            return likely
        lows, highs = boxes(self.front, self.reference)
        marginals = [
            Marginal(p.mean, np.sqrt(p.variance), s.is_log)
            for s, p in zip(surrogates.losses, posteriors, strict=True)
        ]
        return likely * expected_improvement(marginals, lows, highs)

    def joined(self, loss_M: Array) -> Region:
        """Return the region with ``loss_M`` added to its front."""
        if self.reference is None:
            return self
        return Region(extended_front(self.front, loss_M), self.reference)


def feasibility(constraints: Sequence[Posterior], n: int) -> Array:
    """Return the probability that all constraints are met, if independent, shape ``(n,)``."""
    likely = np.ones(n)
    for posterior in constraints:
        likely = likely * ndtr(-posterior.mean / np.sqrt(posterior.variance))
    return likely
