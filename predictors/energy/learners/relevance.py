"""A Gaussian process with a length scale for each feature, and a linear part.

Its kernel is linear plus squared-exponential with automatic relevance determination (Rasmussen &
Williams 2006, chapters 2 and 5). Hyperparameters maximise the marginal likelihood with weak
priors, so that scales of features differ only as far as the rows show. On logarithms of sizes the
linear part is a power law. With many rows the posterior is that of inducing rows, as ``process``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, lapack
from scipy.optimize import minimize

from predictors.energy.learners.process import MOST_EXACT, MOST_INDUCING, Array, farthest_first

_JITTER = 1e-8
# Least noise variance of a target with unit variance; with less, the kernel matrix is singular.
_LEAST_NOISE = 1e-5
_ROWS_FOR_LIKELIHOOD = 100
_ITERATIONS, _FEW_ITERATIONS = 25, 3
# Medians and deviations of the priors of logarithms, for a target of unit variance.
_LENGTH, _LENGTH_SD = 1.5, 1.0
_SIGNAL, _LINEAR, _NOISE, _OTHER_SD = 0.3, 0.5, 0.03, 1.5


@dataclass(frozen=True)
class RelevanceProcess:
    """Posterior mean of a process; ``inducing`` rows have the weights ``mean``.

    ``relevance`` is the inverse length scale of each feature. ``line`` is the intercept followed
    by the slope of each feature. ``hyper`` are the logarithms of all hyperparameters.
    """

    inducing: Array
    relevance: Array
    mean: Array
    line: Array
    hyper: Array

    @classmethod
    def fit(
        cls,
        rows_NF: Array,
        target_N: Array,
        weight_N: Array,
        seed: int,
        near: RelevanceProcess | None = None,
    ) -> RelevanceProcess:
        """Fit to ``target``, whose noise variance is proportional to ``1 / weight``.

        ``seed`` is unused, since the fit is deterministic. The search of hyperparameters begins
        at those of ``near``, a fit to almost the same rows, and is then short.
        """
        n, n_features = rows_NF.shape
        weight = weight_N / weight_N.mean()
        centre = float(np.average(target_N, weights=weight))
        unit = float(np.sqrt(np.average((target_N - centre) ** 2, weights=weight))) or 1.0
        target = (target_N - centre) / unit
        step = max(1, n // _ROWS_FOR_LIKELIHOOD)
        hyper = _hyperparameters(
            rows_NF[::step], target[::step], weight[::step], None if near is None else near.hyper
        )
        relevance = np.exp(hyper[:n_features])
        signal, linear, noise = np.exp(hyper[n_features:])
        noises, slope = max(noise, _LEAST_NOISE) / weight, linear / n_features
        if n <= MOST_EXACT:
            inducing = rows_NF
            kernel = signal * _radial(rows_NF, rows_NF, relevance)
            kernel += slope * rows_NF @ rows_NF.T + 1.0
            kernel[np.diag_indices(n)] += noises
            found = cho_solve((cholesky(kernel, lower=True), True), target)
            radial, slopes, constant = signal * found, slope * rows_NF.T @ found, found.sum()
        else:
            inducing = rows_NF[farthest_first(rows_NF, MOST_INDUCING)]
            n_inducing = len(inducing)
            # Weights of radial functions around inducing rows, of the features, of a constant.
            cross = np.vstack(
                [
                    signal * _radial(inducing, rows_NF, relevance),
                    np.sqrt(slope) * rows_NF.T,
                    np.ones((1, n)),
                ]
            )
            posterior = (cross / noises) @ cross.T
            posterior[:n_inducing, :n_inducing] += signal * _radial(inducing, inducing, relevance)
            posterior[np.diag_indices_from(posterior)] += np.concatenate(
                [np.zeros(n_inducing), np.ones(n_features + 1)]
            ) + _JITTER * np.mean(np.diag(posterior))
            factor = (cholesky(posterior, lower=True), True)
            found = cho_solve(factor, cross @ (target / noises))
            radial, constant = signal * found[:n_inducing], found[-1]
            slopes = np.sqrt(slope) * found[n_inducing:-1]
        line = np.concatenate([[centre + unit * constant], unit * slopes])
        return cls(inducing, relevance, unit * radial, line, hyper)

    def predict(self, rows_NF: Array) -> Array:
        """Return the posterior mean, shape ``(N,)``."""
        radial = _radial(rows_NF, self.inducing, self.relevance) @ self.mean
        result: Array = radial + self.line[0] + rows_NF @ self.line[1:]
        return result


def _radial(a_NF: Array, b_MF: Array, relevance: Array) -> Array:
    a, b = a_NF * relevance, b_MF * relevance
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    result: Array = np.exp(-0.5 * np.maximum(squared, 0))
    return result


def _hyperparameters(rows: Array, target: Array, weight: Array, near: Array | None) -> Array:
    """Return logarithms of relevances, of variances of signal and linear part, and of the noise.

    They begin at ``near``, or at the medians of their priors.
    """
    n, n_features = rows.shape
    linear_kernel = rows @ rows.T / n_features
    medians = np.concatenate(
        [
            np.full(n_features, -np.log(_LENGTH * np.sqrt(n_features))),
            np.log([_SIGNAL, _LINEAR, _NOISE]),
        ]
    )
    deviations = np.concatenate([np.full(n_features, _LENGTH_SD), np.full(3, _OTHER_SD)])
    squares = rows**2

    def loss(parameters: Array) -> tuple[float, Array]:
        relevance = np.exp(parameters[:n_features])
        signal, linear, noise = np.exp(parameters[n_features:])
        radial = signal * _radial(rows, rows, relevance)
        noises = max(noise, _LEAST_NOISE) / weight
        kernel = radial + linear * linear_kernel + 1.0
        kernel[np.diag_indices(n)] += noises
        lower, failed = lapack.dpotrf(kernel, lower=1)
        if failed:
            return 1e10, np.zeros_like(parameters)
        inverse, _ = lapack.dpotri(lower, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        alpha = inverse @ target
        value = 0.5 * float(target @ alpha) + float(np.log(np.diag(lower)).sum())
        away = 0.5 * (inverse - np.outer(alpha, alpha))
        shaped = away * radial
        gradient = np.empty_like(parameters)
        moments = shaped.sum(axis=1) @ squares - (rows * (shaped @ rows)).sum(axis=0)
        gradient[:n_features] = -2 * relevance**2 * moments
        gradient[n_features:] = (
            shaped.sum(),
            linear * (away * linear_kernel).sum(),
            float(np.diag(away) @ noises) if noise > _LEAST_NOISE else 0.0,
        )
        apart = (parameters - medians) / deviations
        return value + 0.5 * float(apart @ apart), gradient + apart / deviations

    start, iterations = (medians, _ITERATIONS) if near is None else (near, _FEW_ITERATIONS)
    options = {"maxiter": iterations}
    found: Array = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return found
