"""Surrogate of the quality of untrained candidates, with calibrated intervals.

The error rate is a positive quantity, so the regressor of joules is used
(``predictors.energy.regressor``), with a scaling law as its prior: ``error = e + a / params**p +
b / macs**p`` with non-negative constants (Hestness et al. 2017; Hoffmann et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import legendre

from predictors.energy.features import counted
from predictors.energy.regressor import LEAST_ROWS, CostRegressor, Predictions, Terms, TrainingRows
from search_spaces.architecture import Architecture
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

# Half an error in a thousand samples: keeps the logarithm finite at a quality of 1.
_FLOOR = 5e-4
_EXPONENTS = (0.15, 0.3, 0.6)
_ORDERS = 4


class QualitySurrogate:
    """Predicts the quality of architectures of one workload, with intervals."""

    def __init__(self, workload: Workload) -> None:
        """Start without a model."""
        self._workload = workload
        self._model: CostRegressor | None = None

    def fit(
        self,
        architectures: Sequence[Architecture],
        qualities: Sequence[float],
        standard_errors: Sequence[float],
    ) -> None:
        """Fit to complete trials; with fewer than ten there is no model."""
        self._model = None
        if len(architectures) < LEAST_ROWS:
            return
        errors = np.maximum(1 - np.asarray(qualities, dtype=float), _FLOOR)
        terms, features = self._columns(ArchitectureBatch.of(architectures))
        rows = TrainingRows(
            (Terms(terms),),
            features,
            errors,
            np.asarray(standard_errors, dtype=float) / errors,
            np.arange(len(errors)),
        )
        self._model = CostRegressor.fit(rows)

    def predict(self, batch: ArchitectureBatch, confidence: float) -> Predictions | None:
        """Qualities with two-sided intervals; ``None`` without a model."""
        if self._model is None:
            return None
        terms, features = self._columns(batch)
        errors = self._model.predict(terms, features, confidence)
        return Predictions(1 - errors.mean, 1 - errors.high, 1 - errors.low, errors.in_range)

    def _columns(
        self, batch: ArchitectureBatch
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        counts, features = counted(batch, self._workload)
        params, macs = counts.total("params"), counts.total("macs")
        powers = [size**-exponent for exponent in _EXPONENTS for size in (params, macs)]
        extra = [np.log(params), np.log(batch.patch_size), *_profiles(batch)]
        return (
            np.column_stack([np.ones(len(batch)), *powers]),
            np.column_stack([features, *extra]),
        )


def _profiles(batch: ArchitectureBatch) -> list[NDArray[np.float64]]:
    """Profiles of width and heads over depth, each ``(N,)``.

    They are coefficients of Legendre polynomials over relative depth: joules hardly depend on
    which layer is wide, quality does.
    """
    layers = np.arange(batch.active.shape[1])
    depth = batch.depth[:, None]
    position = np.where(depth > 1, 2 * layers / np.maximum(depth - 1, 1) - 1, 0.0)
    share = batch.active / depth
    values = [np.log(batch.ffn.d_ff), np.log(batch.attention.n_heads)]
    polynomials = [legendre(order)(position) for order in range(_ORDERS)]
    return [(value * p * share).sum(axis=1) for value in values for p in polynomials]
