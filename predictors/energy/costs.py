"""The prior: non-negative costs of closed-form terms, fitted robustly to relative errors.

A basis may multiply the sum of the terms: ``log target = log(terms @ costs) + basis @ b``, where
``b`` has a standard normal prior, so that the basis states how other devices differ (``shape``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
PULL = 0.1
# Least relative standard deviation of a label, even if its repeats agree better.
FLOOR_SD = 0.01
# Errors around terms and basis: Student's t, whose scale is worth as many rows before any is seen.
_DEGREES = 4.0
_ERROR_SD, _ERROR_ROWS = 0.03, 4.0
_BASIS_ROUNDS = 8


@dataclass(frozen=True)
class Terms:
    """One candidate for the prior: ``values`` of shape ``(N, K)``, all ``>= 0``.

    ``prior`` has shape ``(K,)``: costs in the expected proportion, whose scale is fitted without
    penalty; ``None`` gives each term an equal share. ``pull`` is the strength of the
    regularisation towards it, see ``fit_costs``. ``basis`` has shape ``(N, B)``.
    """

    values: Array
    prior: Array | None = None
    pull: float | Array = PULL
    basis: Array | None = None

    @classmethod
    def stacked(cls, parts: Sequence[Terms]) -> Terms:
        """Return the rows of parts that share prior and pull, one part after the other."""
        basis = None
        if parts[0].basis is not None:
            basis = np.vstack([part.basis for part in parts if part.basis is not None])
        values = np.vstack([part.values for part in parts])
        return cls(values, parts[0].prior, parts[0].pull, basis)

    def rows(self, selection: NDArray[Any]) -> Terms:
        """Return the rows selected by a mask or by positions."""
        basis = None if self.basis is None else self.basis[selection]
        return Terms(self.values[selection], self.prior, self.pull, basis)


@dataclass(frozen=True)
class FittedPrior:
    """Fitted ``costs`` of the terms, and coefficients of the basis, which may be none."""

    costs: Array
    coefficients: Array

    @classmethod
    def fit(cls, terms: Terms, target_N: Array, relative_sd_N: Array) -> FittedPrior:
        """Fit costs, then the coefficients of the basis together with the costs' level."""
        prior = (
            equal_shares(terms.values, target_N)
            if terms.prior is None
            else scaled(terms.prior, terms.values, target_N)
        )
        # Labels differ by more than their own noise, so only clearly noisy rows get less weight.
        weighted = np.sqrt(relative_sd_N**2 + np.median(relative_sd_N) ** 2 + FLOOR_SD**2)
        costs = fit_costs(terms.values, target_N, weighted, prior, pull=terms.pull)
        if terms.basis is None:
            return cls(costs, np.zeros(0))
        ratio = np.log(target_N) - np.log(terms.values @ costs)
        level, coefficients = fit_log_linear(terms.basis, ratio, weighted)
        return cls(costs * np.exp(level), coefficients)

    def log(self, terms: Terms) -> Array:
        """Return logarithms of the prior's predictions, shape ``(N,)``."""
        result: Array = np.log(terms.values @ self.costs)
        if len(self.coefficients):
            assert terms.basis is not None
            result = result + terms.basis @ self.coefficients
        return result


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


def fit_log_linear(basis_NB: Array, ratio_N: Array, relative_sd_N: Array) -> tuple[float, Array]:
    """Return level and coefficients ``b`` of ``ratio = level + basis @ b``, ``b ~ N(0, I)``.

    Errors are Student's t, by reweighted least squares (Lange, Little & Taylor 1989), since some
    readings are far off. Their scale is estimated with a weak prior, relative to ``relative_sd``.
    """
    n, n_basis = basis_NB.shape
    columns = np.hstack([np.ones((n, 1)), basis_NB])
    penalty = np.diag(np.concatenate([[0.0], np.ones(n_basis)]))
    noise = relative_sd_N / np.sqrt(np.mean(relative_sd_N**2))
    # The first round must not take the basis for outliers, nor outliers for the level.
    residual, variance = ratio_N - np.median(ratio_N), _ERROR_SD**2
    robust = np.ones(n)
    found = np.zeros(1 + n_basis)
    for step in range(_BASIS_ROUNDS):
        weight = robust / noise**2
        curvature = (columns * weight[:, None]).T @ columns / variance + penalty
        found = np.linalg.solve(curvature, (columns * weight[:, None]).T @ ratio_N / variance)
        residual = ratio_N - columns @ found
        hat = np.linalg.solve(curvature, columns.T) * (weight / variance)
        used = float(np.einsum("ij,ji->", columns, hat))
        squares = float((weight * residual**2).sum())
        variance = (_ERROR_ROWS * _ERROR_SD**2 + squares) / (_ERROR_ROWS + max(n - used, 0.0))
        if step < _BASIS_ROUNDS - 1:
            scaled_squares = residual**2 / (noise**2 * variance)
            robust = (_DEGREES + 1) / (_DEGREES + scaled_squares)
    return float(found[0]), found[1:]
