"""The prior: non-negative costs of closed-form terms, fitted robustly to relative errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]

_ROUNDS = 8
# Errors beyond this many deviations have a linear loss, smaller ones a quadratic (Huber 1964).
_HUBER = 1.345
_LEAST_SPREAD = 2e-3
# Relative errors assumed in the first round.
_FIRST_SPREAD = 0.1
# Least cost, as a share of its prior, since a term absent in training still costs joules.
_LEAST_FACTOR = 1e-3


def fit_costs(
    terms_NK: Array, target_N: Array, relative_sd_N: Array, prior_K: Array, *, pull: float | Array
) -> Array:
    """Fit costs ``c >= 0`` so that ``terms @ c`` approximates ``target``; shape ``(K,)``.

    The loss is Huber's, of relative errors over their standard deviations, minimised by reweighted
    non-negative least squares (Lawson & Hanson 1974). The penalty is ``pull`` (a scalar, or one
    for each cost) times the squared distance of ``c / prior`` from 1, in units of the errors'
    variance: doubling one cost adds as much loss as ``pull`` rows with an error of one deviation.
    The prior determines costs that the rows hardly depend on.
    """
    weights = 1 / relative_sd_N
    weights = weights / np.sqrt(np.mean(weights**2))
    # In units of the prior each cost is around 1, whatever its unit.
    relative = terms_NK * prior_K / target_N[:, None]
    root_pull, ones = np.broadcast_to(np.sqrt(pull), len(prior_K)), np.ones(len(prior_K))
    robust, spread = np.ones(len(target_N)), _FIRST_SPREAD
    factors = ones
    for _ in range(_ROUNDS):
        row, tie = weights * robust, root_pull * spread
        factors, _ = nnls(
            np.vstack([relative * row[:, None], np.diag(tie)]), np.concatenate([row, tie])
        )
        error = weights * np.abs(relative @ factors - 1)
        spread = max(1.4826 * float(np.median(error)), _LEAST_SPREAD)
        updated = np.sqrt(np.minimum(1, _HUBER * spread / np.maximum(error, 1e-12)))
        if np.allclose(updated, robust, atol=1e-3):
            break
        robust = updated
    costs: Array = np.maximum(factors, _LEAST_FACTOR) * prior_K
    return costs


def scaled(prior_K: Array, terms_NK: Array, target_N: Array) -> Array:
    """Scale ``prior`` so that its median relative error is zero."""
    ratio = float(np.median(np.log(target_N) - np.log(terms_NK @ prior_K)))
    result: Array = prior_K * np.exp(ratio)
    return result


def equal_shares(terms_NK: Array, target_N: Array) -> Array:
    """Return the neutral prior: each term that occurs has the same mean cost."""
    size = terms_NK.mean(axis=0)
    occurs = size > 0
    shares = np.where(occurs, 1 / np.where(occurs, size, 1.0), 0.0)
    # A term that occurs in no row gets the least unit cost of the others.
    shares = np.where(occurs, shares, shares[occurs].min() if occurs.any() else 1.0)
    result: Array = shares * float(np.mean(target_N)) / max(1, int(occurs.sum()))
    return result
