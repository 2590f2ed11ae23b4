"""Extrapolate the final quality of stopped trials, for the gate and the sampler.

From a rung to the end, errors fall by about the same factor in all trials. For each rung, the
logarithm of the final error is regressed on that of the rung's error, over complete trials.
The regression is Bayesian, so that its errors are wide where trials are few. By its prior, errors
fall as epochs**-0.7 and by a fifth more, and networks keep 0.7 (standard deviation 0.4) of the
differences between the logarithms of their errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.records.trial import Trial

# A rung needs this many complete trials: gate and sampler assume normal errors, which the first
# extrapolations do not have.
LEAST_CURVES = 5
# Added to errors: the logarithm stays finite, and one error fewer is a small step.
_FLOOR = 1e-3
_EXPONENT, _LEVEL_SD = 0.7, 1.5
_MORE = -0.2
_SLOPE, _SLOPE_SD = 0.7, 0.4
# Prior of the residual deviation, and its weight in trials.
_RESIDUAL_SD, _RESIDUAL_N = 0.4, 3.0
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """The extrapolated final quality of a stopped trial, with its standard error."""

    record: Trial
    quality: float
    standard_error: float


def extrapolate(records: Sequence[Trial]) -> list[Extrapolated]:
    """Extrapolate each stopped trial whose rung at least ``LEAST_CURVES`` complete ones passed."""
    extrapolated: list[Extrapolated] = []
    laws: dict[tuple[int, int], _CurveLaw | None] = {}
    for record in records:
        if record.state != "stopped" or record.planned_epochs is None:
            continue
        point = record.curve[-1]
        key = point.epoch, record.planned_epochs
        if key not in laws:
            laws[key] = _CurveLaw.fit(records, *key)
        law = laws[key]
        if law is not None:
            extrapolated.append(Extrapolated(record, *law.final(point.quality)))
    return extrapolated


@dataclass(frozen=True)
class _CurveLaw:
    """Posterior of ``log(final error) = level + slope * log(rung error)``."""

    weights_2: NDArray[np.float64]
    precision_22: NDArray[np.float64]
    sd: float

    @classmethod
    def fit(cls, records: Sequence[Trial], epoch: int, epochs: int) -> _CurveLaw | None:
        """Fit to the complete trials that passed ``epoch``; ``None`` where they are too few."""
        pairs = [
            (point.quality, record.quality)
            for record in records
            if record.state == "complete" and record.quality is not None
            for point in record.curve
            if point.epoch == epoch
        ]
        if len(pairs) < LEAST_CURVES:
            return None
        x, y = np.log(1 - np.array(pairs) + _FLOOR).T
        rows_N2 = np.column_stack([np.ones(len(x)), x])
        mean_2 = np.array([_MORE - _EXPONENT * math.log(epochs / epoch), _SLOPE])
        prior_22 = np.diag([1 / _LEVEL_SD**2, 1 / _SLOPE_SD**2])
        sd = _RESIDUAL_SD
        for _ in range(_ROUNDS):
            gram_22 = rows_N2.T @ rows_N2 / sd**2
            precision_22 = prior_22 + gram_22
            weights_2 = np.linalg.solve(precision_22, prior_22 @ mean_2 + rows_N2.T @ y / sd**2)
            if weights_2[1] < 0:
                # A negative slope can only be chance.
                level = (prior_22[0, 0] * mean_2[0] + y.sum() / sd**2) / precision_22[0, 0]
                weights_2 = np.array([level, 0.0])
            fitted = float(np.trace(np.linalg.solve(precision_22, gram_22)))
            squares = _RESIDUAL_N * _RESIDUAL_SD**2 + float(((y - rows_N2 @ weights_2) ** 2).sum())
            sd = math.sqrt(squares / (_RESIDUAL_N + max(0.0, len(x) - fitted)))
        return cls(weights_2, precision_22, sd)

    def final(self, quality: float) -> tuple[float, float]:
        """Extrapolate ``quality`` at the rung to the final quality and its standard error."""
        row_2 = np.array([1.0, math.log(1 - quality + _FLOOR)])
        error = float(np.clip(np.exp(row_2 @ self.weights_2) - _FLOOR, 0.0, 1.0))
        # The residuals already include the noise of the rung's quality.
        variance = self.sd**2 + float(row_2 @ np.linalg.solve(self.precision_22, row_2))
        return 1 - error, error * math.sqrt(variance)
