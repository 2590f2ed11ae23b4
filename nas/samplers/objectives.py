"""Convert a study's values to losses: minimised, in the scale of the hypervolume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Objective:
    """Conversion of one objective.

    Args:
        maximize: Whether more is better.
        best_possible: A bound that no value passes, such as 1 for a quality. The loss is the
            distance to it, a positive quantity.
        log: Whether hypervolume is computed with the logarithm, so that halving joules is the
            same improvement everywhere.
    """

    maximize: bool = False
    best_possible: float | None = None
    log: bool = False

    def losses(self, values_N: Array) -> Array:
        """Losses of values; NaN stays NaN.

        Raises:
            ValueError: the logarithm of a value that is not positive is required.
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
