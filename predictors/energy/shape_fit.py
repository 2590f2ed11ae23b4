"""Fit a ``Shape`` to rows of several GPUs by empirical Bayes; levels of sessions are removed.

The common costs are fitted to all rows, each GPU with equal weight, then each GPU's coefficients
of ``phi`` by robust regression beside a level for each of its sessions. How much of what the GPUs
differ in is kept, beside independent deviations of each coefficient, is chosen by leaving one GPU
out: the shape of the others and a dozen of its rows predict its remaining rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from predictors.energy.costs import FLOOR_SD, Array, FittedPrior, fit_costs, fit_log_linear
from predictors.energy.features import CLASSES, ROOFLINES, stated_costs
from predictors.energy.regressor import Standard
from predictors.energy.shape import N_PHI, Shape

# Standard deviation of a coefficient when it is fitted to all rows of a GPU, and of a level.
_WIDE, _LEVEL_SD = 1.0, 10.0
# Parts of the covariance between GPUs that are tried, and deviations of each coefficient beside
# it. A handful of GPUs cannot show that a coefficient never differs, so there is a least one.
_SHARES = (0.3, 1.0, 3.0)
_DEVIATIONS = (0.05, 0.1, 0.2)
# Rows of a left-out GPU, and draws of them.
_FEW, _DRAWS = 12, 6
_LEAST_DEVICES = 3
# Rows of each GPU that determine the few common costs.
_ROWS_FOR_COSTS = 200
_ROUNDS = 3
_CLASS = CLASSES.index("bf16_dense")


@dataclass(frozen=True)
class ShapeRows:
    """Rows of one GPU: ``terms`` under each of ``ROOFLINES``, features, joules and sessions.

    Multiply-accumulates must be dense and in bf16; other classes keep their stated proportions.
    """

    device: str
    terms: tuple[Array, ...]
    features: Array
    target: Array
    session: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse other classes."""
        others = np.delete(np.arange(2 * len(CLASSES)), [_CLASS, _CLASS + len(CLASSES)])
        if np.any(self.terms[0][:, others]):
            raise ValueError(f"rows of {self.device} must be of dense products in bf16")

    def some(self, n: int) -> ShapeRows:
        """Return about ``n`` rows, evenly spread over all."""
        every = slice(None, None, max(1, len(self.target) // n))
        terms = tuple(values[every] for values in self.terms)
        chosen = (self.features[every], self.target[every], self.session[every])
        return ShapeRows(self.device, terms, *chosen)

    @property
    def sessions(self) -> Array:
        """Indicators of the sessions, shape ``(N, S)``."""
        index = np.unique(self.session, return_inverse=True)[1]
        return np.eye(int(index.max()) + 1)[index]


def fit_shape(rows: Sequence[ShapeRows], source: str, *, seed: int = 0) -> Shape:
    """Fit the shape that GPUs have in common, and the covariance of what they differ in.

    Raises:
        ValueError: there are fewer than three GPUs.
    """
    if len(rows) < _LEAST_DEVICES:
        raise ValueError(f"rows must be of {_LEAST_DEVICES} GPUs or more, got {len(rows)}")
    left_out = [_Common.of([*rows[:i], *rows[i + 1 :]]) for i in range(len(rows))]
    pairs = list(product(_SHARES, _DEVIATIONS))
    losses = [
        sum(
            _loss(common.shape(source, *pair), tested, common.choice, seed)
            for common, tested in zip(left_out, rows, strict=True)
        )
        for pair in pairs
    ]
    return _Common.of(rows).shape(source, *pairs[int(np.argmin(losses))])


@dataclass(frozen=True)
class _Common:
    """What GPUs share, and the coefficients of ``phi`` of each, shape ``(G, N_PHI)``."""

    devices: tuple[str, ...]
    n_rows: int
    choice: int
    costs: Array
    standard: Standard
    coefficients: Array

    @classmethod
    def of(cls, rows: Sequence[ShapeRows]) -> _Common:
        some = [part.some(_ROWS_FOR_COSTS) for part in rows]
        fits = [_common_costs(some, choice) for choice in range(len(ROOFLINES))]
        choice = int(np.argmin([error for error, _ in fits]))
        devices, n_rows = tuple(part.device for part in rows), sum(len(p.target) for p in rows)
        standard = Standard.of(np.vstack([part.features for part in rows]))
        plain = cls(devices, n_rows, choice, fits[choice][1], standard, np.zeros((1, N_PHI)))
        shape = plain.shape("", 0.0, _WIDE)
        found = np.array([_coefficients(shape, part, choice) for part in rows])
        return cls(devices, n_rows, choice, plain.costs, standard, found)

    def shape(self, source: str, share: float, deviation: float) -> Shape:
        """Return the shape that keeps ``share`` of the covariance between GPUs."""
        mean = self.coefficients.mean(axis=0)
        away = self.coefficients - mean
        covariance = share * away.T @ away / max(1, len(away) - 1) + deviation**2 * np.eye(N_PHI)
        return Shape(
            source=source,
            devices=self.devices,
            n_rows=self.n_rows,
            roofline=ROOFLINES[self.choice],
            costs=self.costs,
            centre=self.standard.centre,
            scale=self.standard.scale,
            low=self.standard.low,
            high=self.standard.high,
            mean=mean,
            factor=np.linalg.cholesky(covariance),
        )


def _common_costs(rows: Sequence[ShapeRows], choice: int) -> tuple[float, Array]:
    """Return the mean absolute log error of common costs under a roofline, and the costs."""
    terms = np.vstack([part.terms[choice] for part in rows])
    weights = np.concatenate([np.full(len(p.target), len(p.target) ** -0.5) for p in rows])
    stated = stated_costs()
    target = np.concatenate([_levelled(p, p.terms[choice] @ stated) for p in rows])
    costs = stated
    for _ in range(_ROUNDS):
        costs = fit_costs(terms, target, FLOOR_SD / weights, stated, pull=0.1)
        # At the stated level again: only the proportions of costs are those of the rows.
        costs = costs * np.exp(np.average(np.log(terms @ stated / (terms @ costs))))
        target = np.concatenate([_levelled(p, p.terms[choice] @ costs) for p in rows])
    for kind in (0, len(CLASSES)):
        of_class = slice(kind, kind + len(CLASSES))
        costs[of_class] = costs[kind + _CLASS] * stated[of_class] / stated[kind + _CLASS]
    error = np.abs(np.log(target / (terms @ costs)))
    return float(np.average(error, weights=weights**2)), costs


def _levelled(part: ShapeRows, predicted: Array) -> Array:
    """Return labels scaled so that their median ratio to ``predicted`` is 1 in each session."""
    ratio = np.log(part.target / predicted)
    levels = np.array([np.median(ratio[column > 0]) for column in part.sessions.T])
    levelled: Array = np.exp(np.log(part.target) - part.sessions @ levels)
    return levelled


def _coefficients(shape: Shape, part: ShapeRows, choice: int) -> Array:
    """Return a GPU's coefficients of ``phi``, beside a level of each session."""
    ratio = np.log(part.target / (part.terms[choice] @ shape.costs))
    basis = np.hstack([_WIDE * shape.phi(part.features), _LEVEL_SD * part.sessions])
    _, found = fit_log_linear(basis, ratio, np.ones(len(ratio)))
    return _WIDE * found[:N_PHI]


def _loss(shape: Shape, part: ShapeRows, choice: int, seed: int) -> float:
    """Return the mean absolute log error on a left-out GPU after a few rows of one session."""
    rng, losses = np.random.default_rng(seed), []
    terms = shape.terms(part.terms[choice], part.features)
    for _ in range(_DRAWS):
        session = rng.choice(np.unique(part.session))
        order = rng.permutation(np.flatnonzero(part.session == session))
        few, others = order[:_FEW], order[_FEW:]
        fitted = FittedPrior.fit(terms.rows(few), part.target[few], np.full(len(few), FLOOR_SD))
        error = np.log(part.target[others]) - fitted.log(terms.rows(others))
        losses.append(float(np.mean(np.abs(error))))
    return float(np.mean(losses))
