"""Ridge regressions: on the features, and on products of the strongest of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STRONGEST = 8
_PENALTIES = np.logspace(-2, 5, 15)


class Ridge:
    """Linear ridge regression on standardised features."""

    def __init__(self, coefficients: Array) -> None:
        """The first coefficient is the intercept."""
        self.coefficients = coefficients

    @classmethod
    def fit(cls, rows_NF: Array, target_N: Array, weight_N: Array, seed: int) -> Ridge:
        """Fit with the penalty of least leave-one-out error (PRESS, Allen 1974).

        ``seed`` is not used: the fit has no chance in it.
        """
        return cls(_ridge(rows_NF, target_N, weight_N))

    def predict(self, rows_NF: Array) -> Array:
        """Shape ``(N,)``."""
        found: Array = self.coefficients[0] + rows_NF @ self.coefficients[1:]
        return found

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Plain arrays; ``from_arrays`` reads them back."""
        return {"coefficients": self.coefficients}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Ridge:
        """Read ``to_arrays``'s form."""
        return cls(np.asarray(arrays["coefficients"], dtype=float))


class QuadraticRidge:
    """Ridge regression on the features and on the products of the strongest eight of them."""

    def __init__(self, chosen: NDArray[np.int64], ridge: Ridge) -> None:
        """``chosen`` are the features multiplied."""
        self._chosen, self._ridge = chosen, ridge

    @classmethod
    def fit(cls, rows_NF: Array, target_N: Array, weight_N: Array, seed: int) -> QuadraticRidge:
        """As ``Ridge.fit``; the strongest features are those that correlate with the target."""
        centred = target_N - np.average(target_N, weights=weight_N)
        strength = np.abs((rows_NF * weight_N[:, None]).T @ centred)
        chosen = np.sort(np.argsort(-strength, kind="stable")[:_STRONGEST])
        return cls(chosen, Ridge.fit(_expanded(rows_NF, chosen), target_N, weight_N, seed))

    def predict(self, rows_NF: Array) -> Array:
        """Shape ``(N,)``."""
        coefficients = self._ridge.coefficients
        n_linear, picked = 1 + rows_NF.shape[1], rows_NF[:, self._chosen]
        # The products' part is a quadratic form: no need to write them out.
        form = np.zeros((len(self._chosen), len(self._chosen)))
        form[np.triu_indices(len(self._chosen))] = coefficients[n_linear:]
        linear = coefficients[0] + rows_NF @ coefficients[1:n_linear]
        found: Array = linear + np.einsum("nf,nf->n", picked @ form, picked)
        return found

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Plain arrays; ``from_arrays`` reads them back."""
        return {"chosen": self._chosen, **self._ridge.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> QuadraticRidge:
        """Read ``to_arrays``'s form."""
        return cls(np.asarray(arrays["chosen"], dtype=np.int64), Ridge.from_arrays(arrays))


def _expanded(rows_NF: Array, chosen: NDArray[np.int64]) -> Array:
    picked = rows_NF[:, chosen]
    first, second = np.triu_indices(len(chosen))
    return np.hstack([rows_NF, picked[:, first] * picked[:, second]])


def _ridge(rows: Array, target: Array, weight: Array) -> Array:
    """Intercept and coefficients; the intercept is not penalised."""
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
    found: Array = np.concatenate([[intercept], coefficients])
    return found
