"""Convert a study's values to losses: minimised, in the scale of the hypervolume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.samplers.history import Variances

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


@dataclass(frozen=True, slots=True)
class ObjectiveOptions:
    """How the values of a study's objectives count.

    Args:
        reference_point: Reference point of the hypervolume in the study's units; by default a
            tenth of the front's extent beyond its worst values.
        log: For each objective, whether hypervolume is computed with its logarithm.
        best_possible: For each objective, a bound that no value can pass (1 for a quality), or
            ``None``.
        variances: Returns the variance of each value of a complete trial; without it noise is
            estimated from the values.
    """

    reference_point: Sequence[float] | None = None
    log: Sequence[bool] | None = None
    best_possible: Sequence[float | None] | None = None
    variances: Variances | None = None

    def objectives(self, maximize: Sequence[bool]) -> list[Objective]:
        """Return the conversion of each objective.

        Raises:
            ValueError: a field has not as many values as there are objectives.
        """
        n = len(maximize)
        for name in ("log", "best_possible", "reference_point"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise ValueError(
                    f"{name} must have {n} values, one for each objective, got {values}"
                )
        best, log = self.best_possible or (None,) * n, self.log or (False,) * n
        return [Objective(*each) for each in zip(maximize, best, map(bool, log), strict=True)]
