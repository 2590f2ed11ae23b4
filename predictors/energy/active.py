"""Active learning: choose measurements that most narrow intervals near the predicted front.

The first rows fill the space of features (farthest first); on a GPU they determine what the shape
of other GPUs leaves open (V-optimal for its basis). After that, each batch is V-optimal
(``design``) for a weighted mean over all candidates. Half of the weight lies near the front of
closed-form size against predicted joules, where searches need predictions, and half is spread
evenly, because that front is uncertain. (With a fifth spread evenly, errors near the front were
no smaller and those elsewhere were larger.) A choice depends on closed-form numbers and
predictions only, so a whole batch can be chosen before any of it is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.energy.design import choose_rows, design_features, posterior_variance
from predictors.energy.features import counted, terms
from predictors.energy.learners.process import farthest_first
from predictors.energy.models import CostPredictor
from predictors.energy.regressor import LEAST_ROWS, Predictions, Standard
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

Array = NDArray[np.float64]

# The first rows fill the space; a predictor needs as many to be fitted.
FIRST_ROWS = LEAST_ROWS
# Share of the weight that is spread evenly over all candidates.
_EVEN_SHARE = 0.5
# A candidate this far above the front, in logarithms, has 0.6 times the weight of one on it.
_NEAR = 0.1
# Standard deviations of a device's level and of a label's noise, in logarithms.
_LEVEL_SD, _NOISE_SD = 2.0, 0.03
# Relative half-widths are capped here, infinite ones included.
_WIDEST = 10.0


@dataclass(frozen=True)
class Candidates:
    """``N`` candidates: the prior's ``terms``, ``features``, and ``size``, here parameters.

    ``size`` stands for quality in the front against joules. ``basis`` is that of a shape of other
    devices, if the prior has one.
    """

    terms: Array
    features: Array
    size: Array
    basis: Array | None = None

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths."""
        n = len(self.size)
        if len(self.terms) != n or len(self.features) != n:
            raise ValueError(
                f"terms and features must have {n} rows, as size has, got {len(self.terms)} "
                f"and {len(self.features)}"
            )


@dataclass(frozen=True)
class Choice:
    """Positions to measure next, with their expected effect.

    ``width`` is the mean relative half-width of the predictor's intervals near the front, and
    ``expected_width`` the design's estimate of it after these measurements, which takes the
    labels' noise as known. Both are ``None`` before there are intervals.
    """

    rows: tuple[int, ...]
    width: float | None = None
    expected_width: float | None = None


def candidates_of(
    architectures: ArchitectureBatch, workload: Workload, predictor: CostPredictor
) -> Candidates:
    """Return candidates for ``architectures``, with the terms of the predictor's prior."""
    counts, features = counted(architectures, workload, predictor.prior.device)
    values, shape = terms(counts, workload, predictor.prior.roofline), predictor.prior.shape
    basis = None if shape is None else shape.terms(values, features).basis
    return Candidates(values, features, counts.total("params"), basis)


def first_rows(
    features_NF: Array, n: int, *, measured: Sequence[int] = (), basis: Array | None = None
) -> Choice:
    """Choose ``n`` rows that fill the space together with the ``measured`` ones.

    With a ``basis`` of a shape, shape ``(N, B)``, the rows determine its coefficients.

    Raises:
        ValueError: fewer than ``n`` rows are left.
    """
    if basis is not None:
        level = np.full((len(basis), 1), _LEVEL_SD)
        design = np.hstack([level, basis]) / _NOISE_SD
        return Choice(tuple(choose_rows(design, n, measured=measured)))
    left = len(features_NF) - len(measured)
    if n > left:
        raise ValueError(f"n must be at most {left}, the rows left, got {n}")
    rows = Standard.of(features_NF).apply(features_NF)
    if not measured:
        return Choice(tuple(int(row) for row in farthest_first(rows, n)))
    distance = np.min(
        [((rows - rows[row]) ** 2).sum(axis=1) for row in measured], axis=0, initial=np.inf
    )
    distance[list(measured)] = -1.0
    chosen: list[int] = []
    for _ in range(n):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
        distance[chosen[-1]] = -1.0
    return Choice(tuple(chosen))


def next_rows(
    candidates: Candidates, predicted: Predictions, n: int, *, measured: Sequence[int] = ()
) -> Choice:
    """Choose ``n`` new rows that narrow intervals near the predicted front most.

    Raises:
        ValueError: fewer than ``n`` rows are left.
    """
    standard = Standard.of(candidates.features)
    design = design_features(candidates.terms, predicted.mean, standard.apply(candidates.features))
    near = front_weights(candidates.size, predicted.mean)
    weights = (1 - _EVEN_SHARE) * near + _EVEN_SHARE / len(near)
    rows = choose_rows(design, n, measured=measured, weights_N=weights)
    now = posterior_variance(design, measured)
    then = posterior_variance(design, [*measured, *rows])
    width = _half_width(predicted)
    # One unit of the design's variance is a label's own noise, which remains.
    shrunk = width * np.sqrt((1 + then) / (1 + now))
    return Choice(tuple(rows), float(near @ width), float(near @ shrunk))


def width_near_front(size_N: Array, predicted: Predictions) -> float:
    """Return the mean relative half-width of intervals, weighted towards the predicted front."""
    return float(front_weights(size_N, predicted.mean) @ _half_width(predicted))


def _half_width(predicted: Predictions) -> Array:
    width: Array = (predicted.high - predicted.low) / (2 * predicted.mean)
    return np.minimum(width, _WIDEST)


def front_weights(size_N: Array, energy_N: Array) -> Array:
    """Return weights that sum to 1 and decrease with the distance above the front."""
    weights = np.exp(-0.5 * (above_front(size_N, energy_N) / _NEAR) ** 2)
    result: Array = weights / weights.sum()
    return result


def above_front(size_N: Array, energy_N: Array) -> Array:
    """Return the log ratio of energy to the least energy of rows at least as large."""
    order = np.lexsort((energy_N, -size_N))
    least = np.empty(len(size_N))
    least[order] = np.minimum.accumulate(energy_N[order])
    # Among rows of one size the cheapest comes first, so the others lie above the front.
    result: Array = np.log(energy_N / least)
    return result
