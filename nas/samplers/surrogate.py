"""The protocol of surrogates: models of one loss that can be fitted, queried and conditioned.

``gaussian.GaussianModel`` implements it for any study. A search implements it with predictors of
its own (``nas.searching.controller.loss_models``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """Canonical rows ``(N, P)``; their features ``(N, F)`` are computed when first used."""

    rows: Array
    make_features: Callable[[], Array]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @cached_property
    def features(self) -> Array:
        """Standardised features of the rows."""
        return self.make_features()

    def at(self, selection: NDArray[np.int64] | NDArray[np.bool_]) -> Points:
        """Return the selected rows."""
        return Points(self.rows[selection], lambda: self.features[selection])

    def joined(self, others: Points) -> Points:
        """Return these rows followed by ``others``."""
        return Points(
            np.vstack([self.rows, others.rows]),
            lambda: np.vstack([self.features, others.features]),
        )


class Posterior(Protocol):
    """Mean and variance ``(C,)`` of a loss, or of its logarithm, at candidates."""

    mean: Array
    variance: Array

    def condition(self, index: int) -> None:
        """Condition on candidate ``index`` at its mean, which changes only the variances."""


class Surrogate(Protocol):
    """A fitted model of one loss; with ``is_log`` it models the logarithm of the loss."""

    @property
    def is_log(self) -> bool:
        """Whether the logarithm of the loss is normal, else the loss is."""

    def posterior(self, points: Points) -> Posterior:
        """Return the posterior at candidates."""

    def mean(self, points: Points) -> Array:
        """Return the posterior mean at candidates, without the variance."""

    def smoothed(self) -> Array:
        """Return the losses of the training rows without their noise."""

    def with_pending(self, points: Points) -> Surrogate:
        """Return a fantasy model, conditioned on pending points at their posterior means."""


class SurrogateModel(Protocol):
    """A model of one loss that can be fitted again and again as trials end."""

    def fit(
        self, points: Points, losses_N: Array, variance_N: Array, *, is_due: bool, is_exact: bool
    ) -> Surrogate:
        """Condition on losses with these noise variances.

        With ``is_due`` hyperparameters are fitted as well; they need not be each time. With
        ``is_exact`` losses repeat exactly, so that what a model takes for noise is part of them.
        """


@dataclass(frozen=True)
class SurrogateModels:
    """Models that replace Gaussian processes: by objective, and by constraint name.

    ``None`` in ``objectives`` and a constraint that is left out have a Gaussian process.
    """

    objectives: Sequence[SurrogateModel | None] = ()
    constraints: Mapping[str, SurrogateModel] = field(default_factory=dict)
