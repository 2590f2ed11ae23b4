"""What a trial that trains, or was stopped, would come to: told from those trained to their end.

Errors fall by much the same factor from a rung to the end: the logarithm of the final error is
regressed on that of the rung's error, over complete trials, for each rung by itself. Wang et al.
2013 and Domhan, Springenberg & Hutter 2015 extrapolate single curves by families of functions;
two or three points do not tell those apart.

The regression is Bayesian, so that it can be asked from the first trials on and says then how
little it knows. Its prior is wide: errors fall with a power of the epochs, by an exponent of 0.7
give or take 0.6, and by a fifth more; networks keep seven tenths, give or take four, of the
logarithm of what they are apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from nas.records.rungs import RungPoint
from nas.records.trial import TrialRecord

# Complete trials that a rung must have before stopped ones are told to gate and sampler: those
# take a guess and its deviation for normal, which the first guesses are not.
LEAST_CURVES = 5
# Added to errors, so that the log is finite and one error fewer is no leap where few are left.
_FLOOR = 1e-3
_EXPONENT, _LEVEL_SD = 0.7, 1.5
_MORE = -0.2
_SLOPE, _SLOPE_SD = 0.7, 0.4
# The prior of the residual deviation, worth as much as so many trials.
_RESIDUAL_SD, _RESIDUAL_N = 0.4, 3.0
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Forecast:
    """Student's distribution of the logarithm of a final error."""

    log_error: float
    sd: float
    degrees: float

    def accuracies(self, n: int) -> NDArray[np.float64]:
        """The middles of ``n`` equally likely ranges of the final accuracy, the best first."""
        middles = (np.arange(n) + 0.5) / n
        found: NDArray[np.float64] = 1 - _errors(
            self.log_error + self.sd * t.ppf(middles, self.degrees)
        )
        return found

    def chance_above(self, accuracy: float) -> float:
        """How likely the final accuracy is above ``accuracy``; whatever it is, above ``-inf``."""
        if accuracy == -math.inf:
            return 1.0
        apart = float(_log_errors(np.array(accuracy))) - self.log_error
        return float(t.cdf(apart / self.sd, self.degrees))


@dataclass(frozen=True)
class CurveLaw:
    """``log(final error) = level + slope * log(rung error)`` as far as it is known."""

    weights_2: NDArray[np.float64]
    precision_22: NDArray[np.float64]
    sd: float
    degrees: float
    n: int

    @classmethod
    def fit(cls, records: Sequence[TrialRecord], epoch: int, epochs: int) -> CurveLaw:
        """Of the rung at ``epoch`` of trainings of ``epochs``, from complete trials."""
        pairs = [
            (point.accuracy, record.accuracy)
            for record in records
            if record.state == "complete" and record.accuracy is not None
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
                # A final error that fell where the rung's rose would be chance.
                level = (prior_22[0, 0] * mean_2[0] + y.sum() / sd**2) / precision_22[0, 0]
                weights_2 = np.array([level, 0.0])
            fitted = float(np.trace(np.linalg.solve(precision_22, gram_22)))
            degrees = _RESIDUAL_N + max(0.0, len(x) - fitted)
            residuals = y - rows_N2 @ weights_2
            squares = _RESIDUAL_N * _RESIDUAL_SD**2 + float((residuals**2).sum())
            sd = math.sqrt(squares / degrees)
        return cls(weights_2, precision_22, sd, degrees, len(x))

    def final(self, point: RungPoint) -> Forecast:
        """The final error of a trial that was at ``point``."""
        # The rung's own noise is in the residuals of the law already.
        row_2 = np.array([1.0, float(_log_errors(np.array(point.accuracy)))])
        variance = self.sd**2 + float(row_2 @ np.linalg.solve(self.precision_22, row_2))
        return Forecast(float(row_2 @ self.weights_2), math.sqrt(variance), self.degrees)


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """The final accuracy of a stopped trial, and the deviation of that guess."""

    record: TrialRecord
    accuracy: float
    standard_error: float


def extrapolate(records: Sequence[TrialRecord]) -> list[Extrapolated]:
    """Of each stopped trial among ``records`` whose rung enough complete ones have passed."""
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


def _log_errors(accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.log(1 - accuracies + _FLOOR)
    return found


def _errors(log_errors: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.clip(np.exp(log_errors) - _FLOOR, 0.0, 1.0)
    return found
