"""Labels and predictions as the gate compares them: log error rates and joules with deviations.

The two losses are ``log(1 - quality)`` and ``log(joules)``. Their deviations are relative errors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.records.trial import Trial
from predictors.energy.regressor import FLOOR_SD, Predictions

Array = NDArray[np.float64]

# Keeps the logarithm of an error rate finite at a quality of 1.
_LEAST_ERROR = 1e-12


def log_losses(points_N2: Array) -> Array:
    """Losses of rows ``(quality, joules)``."""
    errors = np.maximum(1 - points_N2[:, 0], _LEAST_ERROR)
    losses: Array = np.log(np.column_stack([errors, points_N2[:, 1]]))
    return losses


def label_deviations(trials: Sequence[Trial]) -> Array:
    """Deviations of complete trials as labels, ``(N, 2)``; those of joules have a floor."""
    rows = []
    for trial in trials:
        error = max(1 - trial.objectives[0], _LEAST_ERROR)
        energy_sd = 0.0 if trial.reading is None else trial.reading.relative_sd
        rows.append(((trial.quality_se or 0.0) / error, max(FLOOR_SD, energy_sd)))
    return np.array(rows).reshape(-1, 2)


def log_predictions(
    quality: Predictions, energy_j: Predictions, confidence: float
) -> tuple[Array, Array]:
    """Losses of predictions with intervals at ``confidence``, and their deviations, ``(N, 2)``."""
    error, low, high = (
        np.maximum(1 - part, _LEAST_ERROR) for part in (quality.mean, quality.high, quality.low)
    )
    errors = Predictions(error, low, high, quality.in_range)
    return (
        np.log(np.column_stack([errors.mean, energy_j.mean])),
        np.column_stack([errors.log_sd(confidence), energy_j.log_sd(confidence)]),
    )
