"""A Gaussian process on standardised features, sparse if there are many rows.

Rasmussen & Williams 2006, chapters 2 and 5 (exact inference, marginal likelihood); with more than
``MOST_EXACT`` rows the deterministic training conditional on inducing rows (Quinonero-Candela
& Rasmussen 2005). Inducing rows are in farthest-first order, so that every prefix of them covers
the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

Array = NDArray[np.float64]
Narrow = NDArray[np.float32]

MOST_EXACT = 512
MOST_INDUCING = 192
# Inducing rows of the deviation; fewer suffice for a width than for a mean.
_MOST_FOR_DEVIATION = 64
_ROWS_FOR_LIKELIHOOD = 200
_LENGTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
_NOISES = (0.003, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_JITTER = 1e-5


@dataclass(frozen=True)
class Process:
    """Posterior of a zero-mean process with a squared-exponential kernel and noisy labels.

    ``scale`` is ``(length, signal variance)``; ``inducing`` rows have the weights ``mean``, and
    ``wide`` and ``narrow`` whiten prior and posterior.
    """

    inducing: Array
    scale: Array
    mean: Array
    wide: Array
    narrow: Array

    @classmethod
    def fit(cls, rows_NF: Array, target_N: Array, weight_N: Array, seed: int) -> Process:
        """Fit to ``target``, whose noise variance is proportional to ``1 / weight``.

        Length scale, signal and noise are those of greatest marginal likelihood on a grid.
        ``seed`` is unused, since the fit is deterministic.
        """
        n = len(rows_NF)
        order = farthest_first(rows_NF, n if n <= MOST_EXACT else MOST_INDUCING)
        weight = weight_N / weight_N.mean()
        length, signal, noise = _hyperparameters(rows_NF, target_N, weight)
        inducing = rows_NF[order]
        precision = weight / noise
        between = signal * _kernel(inducing, inducing, length).astype(float)
        between[np.diag_indices_from(between)] += _JITTER * signal
        cross = signal * _kernel(inducing, rows_NF, length).astype(float)
        posterior = between + (cross * precision) @ cross.T
        mean = cho_solve((cholesky(posterior, lower=True), True), cross @ (precision * target_N))
        few = slice(0, _MOST_FOR_DEVIATION)
        # Whitening of prior and posterior makes the variance a difference of squares.
        wide = _inverse_root(between[few, few])
        narrow = _inverse_root(between[few, few] + (cross[few] * precision) @ cross[few].T)
        return cls(inducing, np.array([length, signal]), mean, wide, narrow)

    def predict(self, rows_NF: Array) -> Array:
        """Return the posterior mean, shape ``(N,)``."""
        result: Array = (self._cross(rows_NF) @ self.mean.astype(np.float32)).astype(float)
        return result

    def predict_with_deviation(self, rows_NF: Array) -> tuple[Array, Array]:
        """Return posterior mean and standard deviation without label noise, each ``(N,)``."""
        cross = self._cross(rows_NF)
        few = cross[:, : len(self.wide)]
        wide = few @ self.wide.astype(np.float32)
        narrow = few @ self.narrow.astype(np.float32)
        signal = self.scale[1]
        variance = (
            signal - np.einsum("ij,ij->i", wide, wide) + np.einsum("ij,ij->i", narrow, narrow)
        )
        mean = (cross @ self.mean.astype(np.float32)).astype(float)
        return mean, np.sqrt(np.clip(variance.astype(float), 1e-12, signal))

    def _cross(self, rows_NF: Array) -> Narrow:
        length, signal = self.scale
        return np.float32(signal) * _kernel(rows_NF, self.inducing, float(length))


def farthest_first(rows_NF: Array, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` positions, each the farthest from all before (Gonzalez 1985)."""
    order = [int(np.argmin(((rows_NF - rows_NF.mean(axis=0)) ** 2).sum(axis=1)))]
    distance = ((rows_NF - rows_NF[order[0]]) ** 2).sum(axis=1)
    while len(order) < min(most, len(rows_NF)):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, ((rows_NF - rows_NF[order[-1]]) ** 2).sum(axis=1))
    return np.array(order)


def _kernel(a_NF: Array, b_MF: Array, length: float) -> Narrow:
    """Return the squared exponential; ``length`` is in units of the root of the feature count."""
    # Single precision: errors of 1e-6 are far below any label's noise, and it is twice as fast.
    a, b = a_NF.astype(np.float32), b_MF.astype(np.float32)
    squared = a @ (-2 * b.T)
    squared += (a**2).sum(axis=1)[:, None]
    squared += (b**2).sum(axis=1)
    np.maximum(squared, 0, out=squared)
    squared *= np.float32(-0.5 / (length**2 * a_NF.shape[1]))
    result: Narrow = np.exp(squared, out=squared)
    return result


def _hyperparameters(rows: Array, target: Array, weight: Array) -> tuple[float, float, float]:
    """Return length, signal and noise variance of greatest marginal likelihood."""
    step = max(1, len(rows) // _ROWS_FOR_LIKELIHOOD)
    rows, target, root = rows[::step], target[::step], np.sqrt(weight[::step])
    n = len(rows)
    best = (-np.inf, 1.0, 1.0, 1.0)
    for length in _LENGTHS:
        # Scaling rows and columns by root weights makes the noise equal for all rows.
        kernel = _kernel(rows, rows, length).astype(float) * root[:, None] * root
        values, vectors = np.linalg.eigh(kernel)
        projected = (vectors.T @ (target * root)) ** 2
        for noise in _NOISES:
            spectrum = np.maximum(values, 0) + noise
            # Signal variance in closed form, given the noise-to-signal ratio.
            signal = max(float(np.mean(projected / spectrum)), 1e-10)
            likelihood = -0.5 * (n * np.log(signal) + np.log(spectrum).sum())
            if likelihood > best[0]:
                best = (likelihood, length, signal, noise * signal)
    return best[1:]


def _inverse_root(matrix: Array) -> Array:
    lower = cholesky(matrix, lower=True)
    result: Array = solve_triangular(lower, np.eye(len(matrix)), lower=True).T
    return result
