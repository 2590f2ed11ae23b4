"""V-optimal experimental design: choose the rows that reduce prediction variance most.

In Bayesian linear regression on the prior's relative terms and on a few radial features, the
variance of a prediction does not depend on the labels. Rows are chosen one by one so that the
weighted mean variance falls most (Fedorov 1972; Cohn, Ghahramani & Jordan 1996).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from predictors.energy.learners.process import farthest_first

Array = NDArray[np.float64]

_RADIAL = 48
_LENGTH = 1.0
# Standard deviation of a relative term's cost and of the residual, over that of a label's noise.
_TERM_SD, _RADIAL_SD = 10.0, 2.0
_EXCHANGES = 2


def design_features(terms_NK: Array, prediction_N: Array, features_NF: Array | None) -> Array:
    """Return the design matrix, shape ``(N, D)``.

    ``terms`` over ``prediction`` is the derivative of a relative error by each cost.
    Standardised ``features``, unless ``None``, add radial functions for the residual.
    """
    relative = terms_NK / prediction_N[:, None]
    size = np.sqrt((relative**2).mean(axis=0))
    columns = [_TERM_SD * relative[:, size > 0] / size[size > 0]]
    if features_NF is not None:
        centres = features_NF[farthest_first(features_NF, _RADIAL)]
        squared = (
            (features_NF**2).sum(axis=1)[:, None]
            + (centres**2).sum(axis=1)
            - 2 * features_NF @ centres.T
        )
        radial = np.exp(-0.5 * np.maximum(squared, 0) / (_LENGTH**2 * features_NF.shape[1]))
        columns.append(_RADIAL_SD * radial)
    return np.hstack(columns)


def choose_rows(
    design_ND: Array,
    n: int,
    *,
    measured: Sequence[int] = (),
    weights_N: Array | None = None,
) -> list[int]:
    """Choose ``n`` rows to measure, excluding ``measured``; return their positions in order.

    ``weights`` weigh the rows in the mean variance; they are equal by default.

    Raises:
        ValueError: fewer than ``n`` rows are left.
    """
    total = len(design_ND)
    taken = np.zeros(total, dtype=bool)
    taken[list(measured)] = True
    if n > total - int(taken.sum()):
        raise ValueError(f"n must be at most {total - int(taken.sum())}, the rows left, got {n}")
    weights = np.ones(total) if weights_N is None else weights_N
    target = (design_ND * (weights / weights.sum())[:, None]).T @ design_ND
    covariance = np.eye(design_ND.shape[1])
    for row in measured:
        covariance = _updated(covariance, design_ND[row], 1.0)
    chosen: list[int] = []
    for _ in range(n):
        best = _best(design_ND, covariance, target, taken)
        chosen.append(best)
        taken[best] = True
        covariance = _updated(covariance, design_ND[best], 1.0)
    for _ in range(_EXCHANGES if len(chosen) > 1 else 0):
        for position, row in enumerate(chosen):
            taken[row] = False
            covariance = _updated(covariance, design_ND[row], -1.0)
            best = _best(design_ND, covariance, target, taken)
            chosen[position] = best
            taken[best] = True
            covariance = _updated(covariance, design_ND[best], 1.0)
    return chosen


def posterior_variance(design_ND: Array, measured: Sequence[int]) -> Array:
    """Return each row's variance given ``measured`` ones, in units of label noise, ``(N,)``."""
    covariance = np.eye(design_ND.shape[1])
    for row in measured:
        covariance = _updated(covariance, design_ND[row], 1.0)
    variance: Array = np.einsum("ij,ij->i", design_ND @ covariance, design_ND)
    return variance


def _best(design: Array, covariance: Array, target: Array, taken: NDArray[np.bool_]) -> int:
    spread = design @ covariance
    gain = np.einsum("ij,ij->i", spread @ target, spread)
    gain /= 1 + np.einsum("ij,ij->i", spread, design)
    return int(np.where(taken, -np.inf, gain).argmax())


def _updated(covariance: Array, row: Array, sign: float) -> Array:
    """Return the posterior covariance with one unit-noise observation added or removed."""
    direction = covariance @ row
    result: Array = covariance - sign * np.outer(direction, direction) / (
        1 + sign * float(row @ direction)
    )
    return result
