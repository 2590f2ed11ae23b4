"""A line through a few features that forward selection chooses, on logarithms a power law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MOST = 4
# A feature must lower the squared leave-one-out error to this share.
_LEAST_GAIN = 0.97
_MOST_LEVERAGE = 0.99


@dataclass(frozen=True)
class Line:
    """Linear regression on chosen features; the first coefficient is the intercept."""

    coefficients: Array

    @classmethod
    def fit(cls, rows_NF: Array, target_N: Array, weight_N: Array, seed: int) -> Line:
        """Add features one by one while the leave-one-out error falls (PRESS, Allen 1974).

        ``seed`` is unused, since the fit is deterministic.
        """
        n, n_features = rows_NF.shape
        root = np.sqrt(weight_N / weight_N.mean())
        # Columns are kept orthogonal to those that are chosen, the first of which is the constant.
        constant = root / np.linalg.norm(root)
        residual = root * target_N
        residual = residual - constant * (constant @ residual)
        columns = rows_NF * root[:, None]
        columns = columns - np.outer(constant, constant @ columns)
        least = 1e-6 * np.linalg.norm(rows_NF, axis=0) + 1e-12
        leverage = constant**2
        error = _press(residual, leverage)
        chosen: list[int] = []
        for _ in range(min(_MOST, n_features, n // 5)):
            length = np.linalg.norm(columns, axis=0)
            usable = length > least
            usable[chosen] = False
            unit = columns / np.where(usable, length, 1.0)
            errors = np.mean(
                (
                    (residual[:, None] - unit * (residual @ unit))
                    / (1 - np.minimum(leverage[:, None] + unit**2, _MOST_LEVERAGE))
                )
                ** 2,
                axis=0,
            )
            errors = np.where(usable, errors, np.inf)
            best = int(errors.argmin())
            if not errors[best] < _LEAST_GAIN * error:
                break
            error, step = float(errors[best]), unit[:, best]
            chosen.append(best)
            residual = residual - step * (step @ residual)
            leverage = leverage + step**2
            columns = columns - np.outer(step, step @ columns)
        design = np.hstack([np.ones((n, 1)), rows_NF[:, chosen]]) * root[:, None]
        found = np.linalg.lstsq(design, root * target_N, rcond=None)[0]
        coefficients = np.zeros(1 + n_features)
        coefficients[[0, *(1 + feature for feature in chosen)]] = found
        return cls(coefficients)

    def predict(self, rows_NF: Array) -> Array:
        """Return predictions, shape ``(N,)``."""
        result: Array = self.coefficients[0] + rows_NF @ self.coefficients[1:]
        return result


def _press(residual: Array, leverage: Array) -> float:
    return float(np.mean((residual / (1 - np.minimum(leverage, _MOST_LEVERAGE))) ** 2))
