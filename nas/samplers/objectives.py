"""From a study's values to losses: all minimised, in the scale that hypervolume is counted in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Objective:
    """How one objective is read.

    Args:
        maximize: Whether more is better.
        best_possible: A bound that no value passes, such as 1 for an accuracy: the loss is what
            is missing to it, so that it can be modelled as a positive quantity.
        log: Whether hypervolume is counted in the logarithm, so that halving joules is worth the
            same anywhere.
    """

    maximize: bool = False
    best_possible: float | None = None
    log: bool = False

    def losses(self, values_N: Array) -> Array:
        """Losses of values; NaN stays NaN.

        Raises:
            ValueError: a logarithm is asked of what is not positive.
        """
        missing = self._missing(values_N)
        if not self.log:
            return -missing if self._is_mirrored else missing
        if np.any(missing <= 0):
            least = np.nanmin(missing)
            raise ValueError(f"values of a logarithmic objective must be > 0, got {least}")
        logarithm = np.log(missing)
        return -logarithm if self._is_mirrored else logarithm

    def variances(self, values_N: Array, variances_N: Array) -> Array:
        """Variances of the losses, to first order."""
        return variances_N / self._missing(values_N) ** 2 if self.log else variances_N

    @property
    def _is_mirrored(self) -> bool:
        return self.maximize and self.best_possible is None

    def _missing(self, values_N: Array) -> Array:
        if self.best_possible is None:
            return values_N
        return (self.best_possible - values_N) * (1 if self.maximize else -1)
