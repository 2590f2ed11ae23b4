"""The energy predictor: a fitted roofline-like prior, a learned residual, calibrated intervals.

The prior is a sum of non-negative costs (joules per MAC of each precision, per byte, per kernel
launch), fitted to relative errors; on public tables plain counts rank architectures better than
any learner with few rows, so what is learned is only the logarithm of what the prior misses, by
a Gaussian process. Intervals are conformal: the width that held for the leave-one-out errors of
the training rows (Vovk et al. 2005; leave-one-out of a Gaussian process in closed form,
Rasmussen & Williams 2006, equation 5.12).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import norm

from predictors.learned.features import COST_TERMS, cost_terms, features
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

Array = NDArray[np.float64]

# With no row: joules per unit of each cost term, of the order that CPUs and GPUs of the last
# years lie around; only used with the tenfold interval below.
_STATED_COSTS = dict.fromkeys(COST_TERMS, 2e-10) | {"kernels_per_sample": 3e-5}
_STATED_LOG_SD = math.log(10) / 1.645
# Rows below which a residual would only learn noise.
_MIN_ROWS = 6
# Noise that no label is trusted beyond, relative.
_FLOOR_SD = 0.01


@dataclass(frozen=True, slots=True)
class Observation:
    """One measured label. ``relative_sd`` is its standard deviation over ``energy_j``."""

    architecture: Architecture
    workload: Workload
    energy_j: float
    relative_sd: float
    group: str = ""

    def __post_init__(self) -> None:
        """Refuse labels that no device gives."""
        if not (math.isfinite(self.energy_j) and self.energy_j > 0):
            raise ValueError(f"energy_j must be finite and > 0, got {self.energy_j!r}")

    @classmethod
    def from_reading(
        cls, architecture: Architecture, workload: Workload, reading: EnergyReading
    ) -> Observation:
        """The label in a reading; its 95% interval gives the deviation."""
        return cls(architecture, workload, reading.energy_j, reading.half_width / 1.96)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Joules per sample, arrays of shape ``(N,)``; ``in_range`` is False outside the training."""

    mean_j: Array
    low_j: Array
    high_j: Array
    in_range: NDArray[np.bool_]


class EnergyPredictor:
    """Predicts joules per sample; made by ``fit``, never changed after."""

    def __init__(
        self,
        costs: Array,
        residual: _Residual | None,
        bounds: tuple[Array, Array] | None,
        log_sd: float,
        n_records: int,
    ) -> None:
        """See ``fit``."""
        self._costs, self._residual, self._bounds = costs, residual, bounds
        self._log_sd = log_sd
        self.n_records = n_records

    @property
    def basis(self) -> str:
        """What predictions rest on, in words."""
        if self.n_records == 0:
            return "a stated prior: nothing was measured yet"
        if self._residual is None:
            return f"costs fitted to {self.n_records} measured records"
        return f"costs and a residual fitted to {self.n_records} measured records"

    @classmethod
    def fit(cls, observations: Sequence[Observation], *, seed: int = 0) -> EnergyPredictor:
        """Fit to ``observations``; none gives the stated prior."""
        stated = np.array([_STATED_COSTS[term] for term in COST_TERMS])
        if not observations:
            return cls(stated, None, None, _STATED_LOG_SD, 0)
        terms = np.vstack([cost_terms([o.architecture], o.workload) for o in observations])
        rows = np.vstack([features([o.architecture], o.workload) for o in observations])
        energies = np.array([o.energy_j for o in observations])
        noise = np.maximum(np.array([o.relative_sd for o in observations]), _FLOOR_SD)
        costs = _fit_costs(terms, energies, noise, stated)
        residuals = np.log(energies) - np.log(terms @ costs)
        bounds = (rows.min(axis=0), rows.max(axis=0))
        n = len(observations)
        if n < _MIN_ROWS:
            # Few rows scale the prior well but say little of its error.
            spread = float(np.sqrt(np.mean(residuals**2) + (_STATED_LOG_SD / (n + 1)) ** 2))
            return cls(costs, None, bounds, spread, n)
        return cls(costs, _Residual(rows, residuals, noise, seed), bounds, 0.0, n)

    def predict(
        self, architectures: Sequence[Architecture], workload: Workload, confidence: float = 0.9
    ) -> Prediction:
        """Joules per sample with two-sided intervals at ``confidence``.

        Raises:
            ValueError: ``confidence`` is not in (0, 1).
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")
        log_prior = np.log(cost_terms(architectures, workload) @ self._costs)
        rows = features(architectures, workload)
        in_range = self._in_range(rows)
        if self._residual is None:
            shift = np.zeros(len(architectures))
            width = np.full(len(architectures), float(norm.ppf(0.5 + confidence / 2)))
            width *= self._log_sd
        else:
            shift, deviation = self._residual.predict(rows)
            width = deviation * self._residual.quantile(confidence)
        # Outside the training range the residual is a guess: twice the width.
        width = np.where(in_range, width, 2 * width)
        middle = log_prior + shift
        return Prediction(np.exp(middle), np.exp(middle - width), np.exp(middle + width), in_range)

    def _in_range(self, rows: Array) -> NDArray[np.bool_]:
        if self._bounds is None:
            return np.zeros(len(rows), dtype=bool)
        low, high = self._bounds
        slack = 0.05 * (high - low) + 1e-9
        inside: NDArray[np.bool_] = np.all((rows >= low - slack) & (rows <= high + slack), axis=1)
        return inside


def _fit_costs(terms: Array, energies: Array, noise: Array, stated: Array) -> Array:
    """Non-negative costs that minimise squared relative errors, drawn to the scaled prior.

    The pull is worth one row: it decides only what the rows leave open, such as the cost of a
    precision that none of them used.
    """
    scale = float(np.exp(np.mean(np.log(energies) - np.log(terms @ stated))))
    prior = stated * scale
    # In units of the prior, so that each coefficient is around 1.
    relative = terms * prior / energies[:, None] / noise[:, None]
    pull = np.eye(len(prior)) / float(np.median(noise)) * 0.1
    left = np.vstack([relative, pull])
    right = np.concatenate([1 / noise, np.full(len(prior), 0.1 / float(np.median(noise)))])
    factors, _ = nnls(left, right)
    # No cost vanishes wholly: a term that no row needed must not predict zero joules elsewhere.
    costs: Array = np.maximum(factors, 1e-3) * prior
    return costs


class _Residual:
    """A Gaussian process on the log of what the prior misses, with conformal widths."""

    def __init__(self, rows: Array, residuals: Array, noise: Array, seed: int) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        self._centre = rows.mean(axis=0)
        deviation = rows.std(axis=0)
        self._scale = np.where(deviation > 1e-12, deviation, 1.0)
        variance = max(float(residuals.var()), 1e-4)
        kernel = ConstantKernel(variance, (variance / 30, variance * 30)) * RBF(
            4.0, (1.0, 50.0)
        ) + WhiteKernel(variance / 10, (1e-5, variance * 3))
        self._model: Any = GaussianProcessRegressor(kernel, alpha=noise**2, random_state=seed)
        self._mean = float(residuals.mean())
        # The model's own deviation leaves out ``alpha``, which the leave-one-out errors hold.
        self._label_variance = float(np.median(noise**2))
        standard = self._standard(rows)
        with warnings.catch_warnings():
            # A hyperparameter at its bound is no fault with a few dozen rows.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(standard, residuals - self._mean)
        covariance = self._model.kernel_(standard) + np.diag(noise**2)
        inverse = np.linalg.inv(covariance)
        centred = residuals - self._mean
        errors = (inverse @ centred) / np.diag(inverse)
        deviations = np.sqrt(1 / np.diag(inverse))
        self._scores = np.sort(np.abs(errors) / deviations)

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the log residual of a new label, its noise included."""
        if not len(rows):
            return np.empty(0), np.empty(0)
        mean, deviation = self._model.predict(self._standard(rows), return_std=True)
        return mean + self._mean, np.sqrt(deviation**2 + self._label_variance)

    def quantile(self, confidence: float) -> float:
        """Standardised half-width at ``confidence``: conformal where there are rows enough."""
        n = len(self._scores)
        rank = math.ceil((n + 1) * confidence)
        normal = float(norm.ppf(0.5 + confidence / 2))
        if rank > n:
            # Too few rows to know this quantile: beyond the largest error seen.
            return max(normal, 1.25 * float(self._scores[-1]))
        return float(self._scores[rank - 1])

    def _standard(self, rows: Array) -> Array:
        standard: Array = (rows - self._centre) / self._scale
        return standard
