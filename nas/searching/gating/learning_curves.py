"""Extrapolate the final quality of a trial that is training or was stopped.

From a rung to the end, errors fall by about the same factor in all trials. For each rung, the
logarithm of the final error is regressed on that of the rung's error, over complete trials.
(Wang et al. 2013 and Domhan, Springenberg & Hutter 2015 extrapolate single curves by families of
functions; two or three points do not distinguish those.)

The regression is Bayesian with a wide prior, so that it predicts, with a wide interval, from the
first trials on. By the prior, errors fall as epochs**-0.7 and by a fifth more, and networks keep
0.7 (standard deviation 0.4) of the differences between the logarithms of their errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from nas.records.rungs import RungPoint
from nas.records.trial import Trial

# A rung needs this many complete trials before stopped ones are extrapolated for gate and
# sampler: both assume normal errors, which the first extrapolations do not have.
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
class Forecast:
    """Student's distribution of the logarithm of a final error."""

    log_error: float
    sd: float
    degrees: float

    def qualities(self, n: int) -> NDArray[np.float64]:
        """``n`` equally spaced quantiles of the final quality, the best first."""
        middles = (np.arange(n) + 0.5) / n
        found: NDArray[np.float64] = 1 - _errors(
            self.log_error + self.sd * t.ppf(middles, self.degrees)
        )
        return found

    def chance_above(self, quality: float) -> float:
        """Probability that the final quality is above ``quality``; 1 for ``-inf``."""
        if quality == -math.inf:
            return 1.0
        apart = float(_log_errors(np.array(quality))) - self.log_error
        return float(t.cdf(apart / self.sd, self.degrees))


@dataclass(frozen=True)
class CurveLaw:
    """Posterior of ``log(final error) = level + slope * log(rung error)``."""

    weights_2: NDArray[np.float64]
    precision_22: NDArray[np.float64]
    sd: float
    degrees: float
    n: int

    @classmethod
    def fit(cls, records: Sequence[Trial], epoch: int, epochs: int) -> CurveLaw:
        """Fit to the complete trials, for the rung at ``epoch`` of trainings of ``epochs``."""
        pairs = [
            (point.quality, record.quality)
            for record in records
            if record.state == "complete" and record.quality is not None
            for point in record.curve
            if point.epoch == epoch
        ]
        x, y = _log_errors(np.array(pairs, dtype=float).reshape(-1, 2)).T
        rows_N2 = np.column_stack([np.ones(len(x)), x])
        mean_2 = np.array([_MORE - _EXPONENT * math.log(epochs / epoch), _SLOPE])
        prior_22 = np.diag([1 / _LEVEL_SD**2, 1 / _SLOPE_SD**2])
        sd, degrees = _RESIDUAL_SD, _RESIDUAL_N
        for _ in range(_ROUNDS):
            gram_22 = rows_N2.T @ rows_N2 / sd**2
            precision_22 = prior_22 + gram_22
            weights_2 = np.linalg.solve(precision_22, prior_22 @ mean_2 + rows_N2.T @ y / sd**2)
            if weights_2[1] < 0:
                # A negative slope can only be chance.
                level = (prior_22[0, 0] * mean_2[0] + y.sum() / sd**2) / precision_22[0, 0]
                weights_2 = np.array([level, 0.0])
            fitted = float(np.trace(np.linalg.solve(precision_22, gram_22)))
            degrees = _RESIDUAL_N + max(0.0, len(x) - fitted)
            residuals = y - rows_N2 @ weights_2
            squares = _RESIDUAL_N * _RESIDUAL_SD**2 + float((residuals**2).sum())
            sd = math.sqrt(squares / degrees)
        return cls(weights_2, precision_22, sd, degrees, len(x))

    def final(self, point: RungPoint) -> Forecast:
        """Forecast the final error of a trial at ``point``."""
        # The residuals already include the noise of the rung's quality.
        row_2 = np.array([1.0, float(_log_errors(np.array(point.quality)))])
        variance = self.sd**2 + float(row_2 @ np.linalg.solve(self.precision_22, row_2))
        return Forecast(float(row_2 @ self.weights_2), math.sqrt(variance), self.degrees)


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """The extrapolated final quality of a stopped trial, with its standard error."""

    record: Trial
    quality: float
    standard_error: float


def extrapolate(records: Sequence[Trial]) -> list[Extrapolated]:
    """Extrapolate each stopped trial whose rung at least ``LEAST_CURVES`` complete ones passed."""
    found: list[Extrapolated] = []
    laws: dict[tuple[int, int], CurveLaw] = {}
    for record in records:
        if record.state != "stopped" or record.planned_epochs is None:
            continue
        point = record.curve[-1]
        key = point.epoch, record.planned_epochs
        if key not in laws:
            laws[key] = CurveLaw.fit(records, *key)
        law = laws[key]
        if law.n >= LEAST_CURVES:
            forecast = law.final(point)
            error = float(_errors(np.array(forecast.log_error)))
            found.append(Extrapolated(record, 1 - error, error * forecast.sd))
    return found


def _log_errors(qualities: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.log(1 - qualities + _FLOOR)
    return found


def _errors(log_errors: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.clip(np.exp(log_errors) - _FLOOR, 0.0, 1.0)
    return found
