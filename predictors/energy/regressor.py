"""Regression of a positive target: a fitted prior, a validated residual, calibrated intervals.

``log target = log(terms @ costs) + residual(features)``. The prior is a sum of terms with
non-negative costs (``costs``); cross-validation selects among candidates for its terms. The
residual is an ensemble of zero ("nothing") and several learners (``ensemble``), weighted by
ensemble selection (Caruana et al. 2004) on errors of held-out groups, for which prior and learners
are fitted again. The same errors calibrate the intervals. This module is
independent of architectures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from nas.core.estimate import Estimate
from predictors.energy.calibration import Conformal, calibrate
from predictors.energy.costs import FLOOR_SD, FittedPrior, Terms
from predictors.energy.learners.ensemble import (
    LEARNERS,
    LINE,
    NOTHING,
    PROCESS,
    Learner,
    builds_on_line,
    fit_learners,
    learner_names,
    parts,
)
from predictors.energy.learners.mixture import mixture
from predictors.energy.learners.process import Process
from predictors.energy.splits import deal

__all__ = [
    "FLOOR_SD",
    "LEARNERS",
    "LEAST_ROWS",
    "CostRegressor",
    "Predictions",
    "Standard",
    "Terms",
    "TrainingRows",
]

Array = NDArray[np.float64]

# Cross-validation needs this many rows; with fewer the caller uses the prior alone.
LEAST_ROWS = 10
# With fewer rows no residual is fitted, since learners would be selected by chance.
_LEAST_RESIDUAL_ROWS = 30
_MOST_FOLDS = 10
_FEW_FOLDS = 5
_FEW_FOLDS_FROM = 30
_ROWS_TO_CHOOSE_TERMS = 300
# Weights of the Gaussian process's deviation in the interval's width; 0 is a constant width.
_KAPPAS = (0.0, 0.5, 1.0, 2.0)
_SLACK = 0.05


@dataclass(frozen=True)
class TrainingRows:
    """``N`` labelled rows.

    ``terms`` are candidates for the prior. ``relative_sd`` is the labels' standard deviation over
    the label. Rows with equal ``groups`` (integers) are held out together.

    Raises:
        ValueError: shapes differ, or a label is not finite and above 0.
    """

    terms: tuple[Terms, ...]
    features: Array
    target: Array
    relative_sd: Array
    groups: NDArray[np.int64]

    def __post_init__(self) -> None:
        n = len(self.target)
        for name in ("features", "relative_sd", "groups"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} must have {n} rows, got {len(getattr(self, name))}")
        if not self.terms or any(len(terms.values) != n for terms in self.terms):
            raise ValueError(f"terms must be one or more candidates of {n} rows each")
        if not np.all(np.isfinite(self.target) & (self.target > 0)):
            raise ValueError("target must be finite and > 0 in every row")

    def rows(self, selection: NDArray[Any]) -> TrainingRows:
        """Return the rows selected by a mask or by positions."""
        return TrainingRows(
            tuple(terms.rows(selection) for terms in self.terms),
            self.features[selection],
            self.target[selection],
            self.relative_sd[selection],
            self.groups[selection],
        )

    def only(self, choice: int) -> TrainingRows:
        """Return the same rows with only one candidate for the terms."""
        return TrainingRows(
            (self.terms[choice],), self.features, self.target, self.relative_sd, self.groups
        )


@dataclass(frozen=True)
class Predictions:
    """Predictions with two-sided intervals, arrays of shape ``(N,)``.

    ``in_range`` is False outside the range of the training rows.
    """

    mean: Array
    low: Array
    high: Array
    in_range: NDArray[np.bool_]

    def __getitem__(self, index: int) -> Estimate:
        """Return one prediction with its interval."""
        mean, low, high = (float(part[index]) for part in (self.mean, self.low, self.high))
        return Estimate(mean, low, high, "predicted")

    def scaled(self, factor: float) -> Predictions:
        """Return the predictions times ``factor``, for another unit."""
        return Predictions(
            self.mean * factor, self.low * factor, self.high * factor, self.in_range
        )

    def log_sd(self, confidence: float) -> Array:
        """Return the standard deviations of logarithms, from intervals at ``confidence``."""
        result: Array = np.log(self.high / self.low) / (2 * float(norm.ppf(0.5 + confidence / 2)))
        return result


@dataclass(frozen=True)
class Standard:
    """Centre and scale of features, and the range that training covered."""

    centre: Array
    scale: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, features_NF: Array) -> Standard:
        """Return the centre, scale and range of training rows."""
        deviation = features_NF.std(axis=0)
        return cls(
            features_NF.mean(axis=0),
            np.where(deviation > 1e-9, deviation, 1.0),
            features_NF.min(axis=0),
            features_NF.max(axis=0),
        )

    def apply(self, features_NF: Array) -> Array:
        """Standardise, after clipping to the training range plus half of it on either side."""
        margin = (self.high - self.low) / 2
        clipped = np.clip(features_NF, self.low - margin, self.high + margin)
        result: Array = (clipped - self.centre) / self.scale
        return result

    def excess(self, features_NF: Array) -> Array:
        """Return the distance outside the training range, in ranges of the worst feature."""
        span = self.high - self.low
        # A feature that was constant in training has no range: any change is outside.
        unit = np.where(span > 1e-9, span, 1e-9 + 0.1 * np.abs(self.centre) + 0.1)
        excess = np.zeros(len(features_NF))
        for low, high, scale, column in zip(self.low, self.high, unit, features_NF.T, strict=True):
            np.maximum(excess, np.maximum(low - column, column - high) / scale, out=excess)
        return excess


class CostRegressor:
    """Immutable predictor of a positive target with intervals; ``fit`` makes it."""

    def __init__(
        self,
        choice: int,
        prior: FittedPrior,
        standard: Standard,
        weights: Mapping[str, float],
        learners: Mapping[str, Learner],
        conformal: Conformal,
        kappa: float,
        label_sd: float,
    ) -> None:
        """See ``fit``; ``choice`` is the position of the chosen terms."""
        self.choice, self.prior, self.standard = choice, prior, standard
        self.weights, self.learners = dict(weights), dict(learners)
        self.conformal, self.kappa, self.label_sd = conformal, kappa, label_sd

    @classmethod
    def fit(cls, rows: TrainingRows, *, seed: int = 0) -> CostRegressor:
        """Fit to ``rows``.

        Raises:
            ValueError: fewer than ``LEAST_ROWS`` rows.
        """
        n = len(rows.target)
        if n < LEAST_ROWS:
            raise ValueError(f"rows must be {LEAST_ROWS} or more, got {n}")
        sd = np.maximum(rows.relative_sd, FLOOR_SD)
        rows = TrainingRows(rows.terms, rows.features, rows.target, sd, rows.groups)
        folds = _folds(rows.groups, seed)
        choice = _choose_terms(rows, folds) if len(rows.terms) > 1 else 0
        rows = rows.only(choice)
        prior, standard, log_prior = _fit_prior(rows)
        row_weights, features = _row_weights(sd), standard.apply(rows.features)
        names = learner_names(n) if n >= _LEAST_RESIDUAL_ROWS else (PROCESS,)
        learners = fit_learners(
            features, np.log(rows.target), log_prior, row_weights, seed, names=names
        )
        held_out, deviation, truth = _held_out(rows, folds, seed, learners)
        weights = {NOTHING: 1.0}
        if n >= _LEAST_RESIDUAL_ROWS:
            weights = mixture(held_out, truth, np.sqrt(row_weights), seed)
        error = np.abs(truth - sum(weights[name] * held_out[name] for name in weights))
        label_sd = float(np.median(sd))
        kappa, conformal = _calibrated(error, deviation, label_sd, rows.groups)
        used = {name: learners[name] for name in _used(weights)}
        return cls(choice, prior, standard, weights, used, conformal, kappa, label_sd)

    @property
    def costs(self) -> Array:
        """Fitted cost of each of the terms."""
        return self.prior.costs

    def predict(
        self, terms: Terms | Array, features_NF: Array, confidence: float = 0.9
    ) -> Predictions:
        """Predict with two-sided intervals at ``confidence``; ``terms`` are those of ``choice``.

        An array of ``terms`` has no basis.

        Raises:
            ValueError: ``confidence`` is not in (0, 1).
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")
        features = self.standard.apply(features_NF)
        prior = self.prior.log(terms if isinstance(terms, Terms) else Terms(terms))
        process = self.learners[PROCESS]
        assert isinstance(process, Process)
        mean, deviation = process.predict_with_deviation(features)
        others = {name: each for name, each in self.learners.items() if name != PROCESS}
        predicted = parts(others, features, prior) | {PROCESS: mean}
        middle = prior.copy()
        for name, weight in self.weights.items():
            if weight > 0 and name != NOTHING:
                middle += weight * predicted[name]
        excess = self.standard.excess(features_NF)
        width = _deviations(deviation, self.kappa, self.label_sd)
        width = width * self.conformal.half_width(confidence)
        outside = excess > _SLACK
        # Outside the training range the residual is extrapolated: at least double the width.
        width = np.where(outside, (2 + excess) * width, width)
        with np.errstate(over="ignore"):
            # Far outside the range an infinite bound is intended.
            return Predictions(
                np.exp(middle), np.exp(middle - width), np.exp(middle + width), ~outside
            )


def _row_weights(sd: Array) -> Array:
    weights = 1 / sd**2
    # A row whose windows agree by chance must not outweigh all others.
    result: Array = np.minimum(weights, 9 * np.median(weights))
    return result


def _fit_prior(rows: TrainingRows) -> tuple[FittedPrior, Standard, Array]:
    """Fit the prior of the only candidate; return it, the standardiser and its log predictions."""
    prior = FittedPrior.fit(rows.terms[0], rows.target, rows.relative_sd)
    return prior, Standard.of(rows.features), prior.log(rows.terms[0])


def _used(weights: Mapping[str, float]) -> list[str]:
    """Return the learners with a weight, those that they build on, and the process.

    The process is always used: its deviation grows with the distance from training rows.
    """
    used = {name for name, weight in weights.items() if weight > 0 and name != NOTHING}
    if any(builds_on_line(name) for name in used):
        used.add(LINE)
    return [name for name in LEARNERS if name in used | {PROCESS}]


def _folds(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Assign a fold to each row; folds consist of whole groups and are of about equal size."""
    unit = np.unique(groups, return_inverse=True)[1]
    if unit.max() == 0:
        # With a single group, rows are held out one by one.
        unit = np.arange(len(groups))
    n_folds = _FEW_FOLDS if len(groups) >= _FEW_FOLDS_FROM else _MOST_FOLDS
    return deal(unit, n_folds, np.random.default_rng(seed))


def _choose_terms(rows: TrainingRows, folds: NDArray[np.int64]) -> int:
    """Return the candidate of least cross-validation error, on some hundred rows."""
    step = max(1, len(folds) // _ROWS_TO_CHOOSE_TERMS)
    part, part_folds = rows.rows(np.arange(0, len(folds), step)), folds[::step]
    losses = []
    for terms in part.terms:
        loss = 0.0
        for fold in np.unique(part_folds):
            test = part_folds == fold
            prior = FittedPrior.fit(terms.rows(~test), part.target[~test], part.relative_sd[~test])
            error = np.log(part.target[test]) - prior.log(terms.rows(test))
            loss += float(np.abs(error).sum())
        losses.append(loss)
    return int(np.argmin(losses))


def _held_out(
    rows: TrainingRows, folds: NDArray[np.int64], seed: int, learners: Mapping[str, Learner]
) -> tuple[dict[str, Array], Array, Array]:
    """Return out-of-fold predictions by learner, the process's deviation, and true residuals.

    ``learners`` are those of all rows: the same ones are fitted, near to them.
    """
    n = len(folds)
    predicted = {name: np.zeros(n) for name in (NOTHING, *learners)}
    deviation, truth = np.zeros(n), np.zeros(n)
    for fold in np.unique(folds):
        test = folds == fold
        train = rows.rows(~test)
        prior, standard, log_prior = _fit_prior(train)
        nearby = fit_learners(
            standard.apply(train.features),
            np.log(train.target),
            log_prior,
            _row_weights(train.relative_sd),
            seed,
            names=tuple(learners),
            near=learners,
        )
        unseen = standard.apply(rows.features[test])
        without = prior.log(rows.terms[0].rows(test))
        truth[test] = np.log(rows.target[test]) - without
        for name, part in parts(nearby, unseen, without).items():
            predicted[name][test] = part
        process = nearby[PROCESS]
        assert isinstance(process, Process)
        deviation[test] = process.predict_with_deviation(unseen)[1]
    return predicted, deviation, truth


def _deviations(process: Array, kappa: float, label_sd: float) -> Array:
    result: Array = np.sqrt(label_sd**2 + (kappa * process) ** 2)
    return result


def _calibrated(
    error: Array, deviation: Array, label_sd: float, groups: NDArray[np.int64]
) -> tuple[float, Conformal]:
    """Return the weight of the process's deviation for the narrowest intervals, calibrated."""
    options = []
    for kappa in _KAPPAS:
        deviations = _deviations(deviation, kappa, label_sd)
        conformal = calibrate(error / deviations, groups)
        length = float(np.mean(np.log(deviations))) + np.log(conformal.half_width(0.9))
        options.append((length, kappa, conformal))
    _, kappa, conformal = min(options, key=lambda item: item[0])
    return kappa, conformal
