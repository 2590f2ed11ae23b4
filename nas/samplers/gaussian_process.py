"""Gaussian process with a Matern, a linear and a quadratic kernel, one relevance per feature.

``k(x, x') = a * matern52(d) + b * p + c * p^2`` with ``d^2 = sum_f r_f (x_f - x'_f)^2`` and
``p = sum_f r_f x_f x'_f`` (Rasmussen & Williams 2006, chapters 4 and 5). The linear part
generalises from a few rows in a space of many layers; the quadratic part models products of two
features, such as width times depth in a cost. Relevances have a log-normal prior whose
mean falls with the number of features (Hvarfner, Hellsten & Nardi 2024), which prevents
overfitting to few rows. Hyperparameters are maximum a posteriori estimates. With few rows and
little noise these make variances too large, so variances are rescaled by leave-one-out errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

Array = NDArray[np.float64]

_JITTER = 1e-8
_ROOT5 = 5**0.5
# Prior mean and standard deviation of the logarithms; relevance is times the number of features.
_SMOOTH = (-0.5, 1.0)
_LINEAR = (0.0, 2.0)
_SQUARE = (-2.0, 2.0)
_RELEVANCE = (-1.0, 2.0)
_NOISE = (-6.0, 3.0)
# Limits of hyperparameter fitting: rows, and optimiser steps.
_MOST_FITTED, _MOST_STEPS = 200, 60
# Weight, in rows, of the prior that leave-one-out errors have the predicted size.
_EXPECTED_ROWS = 5
# Bounds of the logarithms: smooth, linear, square and noise, then each relevance.
_BOUNDS = ((-8.0, 4.0), (-10.0, 6.0), (-12.0, 6.0), (-14.0, 2.0))
_RELEVANCE_BOUNDS = (-14.0, 4.0)


@dataclass(frozen=True)
class Hyperparameters:
    """Natural logarithms of hyperparameters, for labels of variance 1."""

    smooth: float
    linear: float
    square: float
    relevance: Array
    noise: float

    @classmethod
    def default(cls, expected_F: Array) -> Hyperparameters:
        """Return the mean of the prior."""
        middle = _RELEVANCE[0] - np.log(len(expected_F)) + expected_F
        return cls(_SMOOTH[0], _LINEAR[0], _SQUARE[0], middle, _NOISE[0] + 1)

    def to_vector(self) -> Array:
        """Return all hyperparameters as a vector, shape ``(F + 4,)``."""
        return np.concatenate(
            [[self.smooth, self.linear, self.square, self.noise], self.relevance]
        )

    def spread_by(self, factor: float) -> Hyperparameters:
        """Scale all variances; without known noise this leaves the posterior mean unchanged."""
        vector = self.to_vector()
        vector[:4] += float(np.log(factor))
        return Hyperparameters.from_vector(vector)

    @classmethod
    def from_vector(cls, vector: Array) -> Hyperparameters:
        """Return the hyperparameters in a vector made by ``to_vector``."""
        smooth, linear, square, noise = (float(v) for v in vector[:4])
        return cls(smooth, linear, square, vector[4:], noise)


class GaussianProcess:
    """Gaussian process conditioned on features and labels; see ``fit``."""

    def __init__(
        self, features_NF: Array, labels_N: Array, noise_N: Array, hyper: Hyperparameters
    ) -> None:
        """Condition on labels; known noise variances add to that of ``hyper``."""
        self.hyper = hyper
        self._features = features_NF
        self._mean = float(labels_N.mean())
        self._spread = float(labels_N.std()) or 1.0
        self._labels = (labels_N - self._mean) / self._spread
        noise = noise_N / self._spread**2 + np.exp(hyper.noise)
        self._noise = noise
        covariance = kernel(features_NF, features_NF, hyper)
        covariance[np.diag_indices_from(covariance)] += noise + _JITTER
        self._lower = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        self._alpha = cho_solve((self._lower, True), self._labels, check_finite=False)

    @classmethod
    def fit(
        cls,
        features_NF: Array,
        labels_N: Array,
        noise_N: Array,
        start: Hyperparameters | None = None,
        *,
        expected_F: Array | None = None,
    ) -> GaussianProcess:
        """Fit hyperparameters on at most ``_MOST_FITTED`` evenly spaced rows; condition on all.

        ``noise`` is the known variance of each label. The optimiser starts at ``start``, by
        default the mean of the prior. ``expected`` is added to the prior mean of each log
        relevance.
        """
        n = len(labels_N)
        chosen = np.unique(np.linspace(0, n - 1, min(n, _MOST_FITTED)).astype(int))
        subset, labels = features_NF[chosen], labels_N[chosen]
        spread = float(labels.std()) or 1.0
        standard, noise = (labels - labels.mean()) / spread, noise_N[chosen] / spread**2
        n_features = features_NF.shape[1]
        expected = np.zeros(n_features) if expected_F is None else expected_F
        first = start or Hyperparameters.default(expected)
        bounds = [*_BOUNDS, *[_RELEVANCE_BOUNDS] * n_features]
        result = minimize(
            _loss,
            first.to_vector(),
            args=(subset, standard, noise, expected),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": _MOST_STEPS},
        )
        hyper = Hyperparameters.from_vector(result.x) if np.isfinite(result.fun) else first
        fitted = cls(subset, labels, noise_N[chosen], hyper)
        hyper = hyper.spread_by(fitted.dispersion())
        return cls(features_NF, labels_N, noise_N, hyper)

    def dispersion(self) -> float:
        """Return the mean of squared leave-one-out errors over predicted variances.

        The ratio is shrunk towards 1 and computed in closed form (Rasmussen &
        Williams 2006, equation 5.12).
        """
        squares = self._alpha**2 / np.diag(_inverse(self._lower))
        return float((squares.sum() + _EXPECTED_ROWS) / (len(squares) + _EXPECTED_ROWS))

    def leave_one_out_scores(self) -> Array:
        """Return absolute leave-one-out errors over their predicted deviations, ``(N,)``."""
        scores: Array = np.abs(self._alpha) / np.sqrt(np.diag(_inverse(self._lower)))
        return scores

    @property
    def labels(self) -> Array:
        """Labels of the training rows."""
        return self._mean + self._spread * self._labels

    @property
    def noise_variance(self) -> float:
        """Variance of a label around the function, where it is not larger by its known noise."""
        return self._spread**2 * float(np.exp(self.hyper.noise))

    def with_pending(self, features_QF: Array) -> GaussianProcess:
        """Return a fantasy model, conditioned on pending rows at their posterior means."""
        if not len(features_QF):
            return self
        known_N = self._spread**2 * (self._noise - np.exp(self.hyper.noise))
        return GaussianProcess(
            np.vstack([self._features, features_QF]),
            np.concatenate([self.labels, self.mean(features_QF)]),
            np.concatenate([known_N, np.zeros(len(features_QF))]),
            self.hyper,
        )

    def posterior(self, features_CF: Array) -> ProcessPosterior:
        """Return the posterior at candidates."""
        cross = kernel(self._features, features_CF, self.hyper)
        mean = cross.T @ self._alpha
        root = solve_triangular(self._lower, cross, lower=True, check_finite=False)
        variance = kernel_diagonal(features_CF, self.hyper) - np.einsum("nc,nc->c", root, root)
        return ProcessPosterior(
            features_CF,
            self._mean + self._spread * mean,
            self._spread**2 * np.maximum(variance, 1e-12),
            root,
            self.hyper,
            self._spread,
        )

    def mean(self, features_CF: Array) -> Array:
        """Return the posterior mean at candidates, without the variance."""
        cross = kernel(self._features, features_CF, self.hyper)
        mean: Array = self._mean + self._spread * (cross.T @ self._alpha)
        return mean

    def smoothed(self) -> Array:
        """Return the posterior mean at the training rows: labels without their noise."""
        mean: Array = self._mean + self._spread * (self._labels - self._noise * self._alpha)
        return mean


@dataclass
class ProcessPosterior:
    """Posterior mean and variance of the noise-free function at candidates, ``(C,)`` each."""

    features: Array
    mean: Array
    variance: Array
    root: Array
    hyper: Hyperparameters
    spread: float

    def condition(self, index: int) -> None:
        """Condition on candidate ``index`` at its mean, which changes only the variances."""
        at = self.features[index : index + 1]
        cross = kernel(at, self.features, self.hyper)[0] - self.root[:, index] @ self.root
        own = float(cross[index]) + float(np.exp(self.hyper.noise)) + _JITTER
        row = cross / np.sqrt(max(own, _JITTER))
        self.root = np.vstack([self.root, row])
        self.variance = np.maximum(self.variance - self.spread**2 * row**2, 1e-12)


def kernel(a_NF: Array, b_MF: Array, hyper: Hyperparameters) -> Array:
    """Return the covariance of the function at ``a`` and ``b``, shape ``(N, M)``."""
    root = np.exp(hyper.relevance / 2)
    a, b = a_NF * root, b_MF * root
    product = a @ b.T
    squared = np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * product, 0)
    smooth, _ = _matern(squared)
    covariance: Array = (
        np.exp(hyper.smooth) * smooth
        + np.exp(hyper.linear) * product
        + np.exp(hyper.square) * product**2
    )
    return covariance


def kernel_diagonal(a_NF: Array, hyper: Hyperparameters) -> Array:
    """Return the variance of the function at ``a``, shape ``(N,)``."""
    size = a_NF**2 @ np.exp(hyper.relevance)
    variance: Array = (
        np.exp(hyper.smooth) + np.exp(hyper.linear) * size + np.exp(hyper.square) * size**2
    )
    return variance


def _inverse(lower: Array) -> Array:
    """Return the inverse of a matrix from its lower Cholesky factor."""
    half, _ = dpotri(lower, lower=1)
    inverse: Array = np.tril(half) + np.tril(half, -1).T
    return inverse


def _matern(squared: Array) -> tuple[Array, Array]:
    """Return the Matern 5/2 kernel of squared distances, and its derivative."""
    scaled = _ROOT5 * np.sqrt(squared)
    decay = np.exp(-scaled)
    return (1 + scaled + scaled**2 / 3) * decay, -(5 / 6) * (1 + scaled) * decay


def _loss(
    vector: Array, x_NF: Array, y_N: Array, noise_N: Array, expected_F: Array
) -> tuple[float, Array]:
    """Return the negative log posterior density of hyperparameters, and its gradient."""
    hyper = Hyperparameters.from_vector(vector)
    relevance = np.exp(hyper.relevance)
    root = np.sqrt(relevance)
    x = x_NF * root
    product = x @ x.T
    norm = np.diag(product)
    squared = np.maximum(norm[:, None] + norm - 2 * product, 0)
    smooth, slope = _matern(squared)
    smooth *= np.exp(hyper.smooth)
    slope *= np.exp(hyper.smooth)
    linear = np.exp(hyper.linear)
    noise = np.exp(hyper.noise)
    square = np.exp(hyper.square)
    squares = square * product**2
    covariance = smooth + linear * product + squares
    covariance[np.diag_indices_from(covariance)] += noise_N + noise + _JITTER
    try:
        lower = cholesky(covariance, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return np.inf, np.zeros_like(vector)
    alpha = cho_solve((lower, True), y_N, check_finite=False)
    inverse = _inverse(lower)
    value = 0.5 * float(y_N @ alpha) + float(np.log(np.diag(lower)).sum())
    # d value / d K; every other derivative follows by the chain rule.
    outer = 0.5 * (inverse - np.outer(alpha, alpha))
    weighted = outer * slope
    # sum_ij w_ij (x_if - x_jf)^2 for each feature f, without an N x N matrix for each.
    by_distance = 2 * (weighted.sum(axis=1) @ x**2 - (x * (weighted @ x)).sum(axis=0))
    by_product = (x * ((linear * outer + 2 * square * outer * product) @ x)).sum(axis=0)
    gradient = np.concatenate(
        [
            [
                (outer * smooth).sum(),
                linear * (outer * product).sum(),
                (outer * squares).sum(),
                noise * np.trace(outer),
            ],
            by_distance + by_product,
        ]
    )
    middle, width = (
        np.array([_SMOOTH[i], _LINEAR[i], _SQUARE[i], _NOISE[i], *[_RELEVANCE[i]] * x.shape[1]])
        for i in (0, 1)
    )
    middle[4:] += expected_F - np.log(x.shape[1])
    deviation = (vector - middle) / width
    return value + 0.5 * float(deviation @ deviation), gradient + deviation / width
