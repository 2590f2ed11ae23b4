"""Expected hypervolume improvement of candidates over a front, by surrogates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nas.pareto.dominance import extended_front
from nas.samplers.gaussian_process import Posterior
from nas.samplers.improvement import boxes, expected_improvement
from nas.samplers.model import Model

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surrogates:
    """Models of the losses and of the constraints."""

    losses: list[Model]
    constraints: list[Model]

    @property
    def n_rows(self) -> int:
        """Number of training rows."""
        return len(self.losses[0].labels)

    def posteriors(self, features_CF: Array) -> tuple[list[Posterior], list[Posterior]]:
        """Posteriors of losses and constraints at candidates."""
        return (
            [model.process.posterior(features_CF) for model in self.losses],
            [model.process.posterior(features_CF) for model in self.constraints],
        )

    def expected(self, features_CF: Array) -> Array:
        """Mean losses at rows, ``(C, M)``, without the variances, which cost much more."""
        return self._unlogged([model.process.mean(features_CF) for model in self.losses])

    def means(self, posteriors: Sequence[Posterior]) -> Array:
        """Mean losses at each candidate, ``(C, M)``."""
        return self._unlogged([posterior.mean for posterior in posteriors])

    def _unlogged(self, means: Sequence[Array]) -> Array:
        pairs = zip(self.losses, means, strict=True)
        return np.column_stack([np.exp(x) if m.is_log else x for m, x in pairs])

    def with_pending(self, features_QF: Array) -> Surrogates:
        """Fantasy models: pending rows count as evaluated at their predicted losses."""
        return Surrogates(
            [model.with_pending(features_QF) for model in self.losses], self.constraints
        )


@dataclass(frozen=True)
class Region:
    """The front that is to be improved; without ``reference`` there is no feasible point yet."""

    front: Array
    reference: Array | None

    def gain(
        self,
        surrogates: Surrogates,
        posteriors: Sequence[Posterior],
        constraints: Sequence[Posterior],
    ) -> Array:
        """Expected hypervolume improvement, times the probability of being feasible, ``(C,)``."""
        likely = feasibility(constraints, len(posteriors[0].mean))
        if self.reference is None:
            return likely
        lows, highs = boxes(self.front, self.reference)
        marginals = [m.marginal(p) for m, p in zip(surrogates.losses, posteriors, strict=True)]
        return likely * expected_improvement(marginals, lows, highs)

    def joined(self, loss_M: Array) -> Region:
        """With one more point."""
        if self.reference is None:
            return self
        return Region(extended_front(self.front, loss_M), self.reference)


def feasibility(constraints: Sequence[Posterior], n: int) -> Array:
    """The probability that all constraints, taken as independent, are met, shape ``(n,)``."""
    likely = np.ones(n)
    for posterior in constraints:
        likely = likely * ndtr(-posterior.mean / np.sqrt(posterior.variance))
    return likely
