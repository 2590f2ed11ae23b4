"""Ridge regressions: on the features, and on products of the strongest of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STRONGEST = 8
_PENALTIES = np.logspace(-2, 5, 15)


@dataclass(frozen=True)
class Ridge:
    """Linear ridge regression on standardised features; the first coefficient is the intercept."""

    coefficients: Array

    @classmethod
    def fit(cls, rows_NF: Array, target_N: Array, weight_N: Array, seed: int) -> Ridge:
        """Fit with the penalty of least leave-one-out error (PRESS, Allen 1974).

        ``seed`` is unused, since the fit is deterministic.
        """
        return cls(_ridge(rows_NF, target_N, weight_N))

    def predict(self, rows_NF: Array) -> Array:
        """Return predictions, shape ``(N,)``."""
        result: Array = self.coefficients[0] + rows_NF @ self.coefficients[1:]
        return result


@dataclass(frozen=True)
class QuadraticRidge:
    """Ridge regression on the features and on products of the eight strongest (``chosen``)."""

    chosen: NDArray[np.int64]
    coefficients: Array

    @classmethod
    def fit(cls, rows_NF: Array, target_N: Array, weight_N: Array, seed: int) -> QuadraticRidge:
        """Fit as ``Ridge.fit``; the strongest features correlate most with the target."""
        centred = target_N - np.average(target_N, weights=weight_N)
        strength = np.abs((rows_NF * weight_N[:, None]).T @ centred)
        chosen = np.sort(np.argsort(-strength, kind="stable")[:_STRONGEST])
        return cls(chosen, _ridge(_expanded(rows_NF, chosen), target_N, weight_N))

    def predict(self, rows_NF: Array) -> Array:
        """Return predictions, shape ``(N,)``."""
        coefficients = self.coefficients
        n_linear, picked = 1 + rows_NF.shape[1], rows_NF[:, self.chosen]
        # The products are a quadratic form, which avoids writing them out.
        form = np.zeros((len(self.chosen), len(self.chosen)))
        form[np.triu_indices(len(self.chosen))] = coefficients[n_linear:]
        linear = coefficients[0] + rows_NF @ coefficients[1:n_linear]
        result: Array = linear + np.einsum("nf,nf->n", picked @ form, picked)
        return result


def _expanded(rows_NF: Array, chosen: NDArray[np.int64]) -> Array:
    picked = rows_NF[:, chosen]
    first, second = np.triu_indices(len(chosen))
    return np.hstack([rows_NF, picked[:, first] * picked[:, second]])


def _ridge(rows: Array, target: Array, weight: Array) -> Array:
    """Return intercept and coefficients; the intercept is not penalised."""
    weight = weight / weight.mean()
    row_mean = np.average(rows, axis=0, weights=weight)
    target_mean = float(np.average(target, weights=weight))
    root = np.sqrt(weight)
    left, values, right = np.linalg.svd((rows - row_mean) * root[:, None], full_matrices=False)
    centred = (target - target_mean) * root
    projected = left.T @ centred
    best = (np.inf, np.zeros(len(values)))
    for penalty in _PENALTIES:
        shrink = values**2 / (values**2 + penalty)
        # Leave-one-out errors in closed form; 1/n is the intercept's part of the leverage.
        leverage = (left**2) @ shrink + 1 / len(target)
        press = float(np.mean(((centred - left @ (shrink * projected)) / (1 - leverage)) ** 2))
        if press < best[0]:
            best = (press, values / (values**2 + penalty) * projected)
    coefficients = right.T @ best[1]
    intercept = target_mean - row_mean @ coefficients
    result: Array = np.concatenate([[intercept], coefficients])
    return result
