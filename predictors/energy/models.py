"""The energy predictor: joules per sample of architectures, with calibrated intervals.

A roofline-like prior summed layer by layer, whose few costs are fitted, and a validated residual
(``regressor``). With few rows it falls back, in words that ``basis`` says, to the prior scaled by
them; with none to stated costs. A predictor of another device may be its prior (``adapt``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from predictors.energy.costs import fit_costs, scaled
from predictors.energy.features import (
    ROOFLINES,
    TERM_GROUPS,
    Roofline,
    counted,
    stated_costs,
    terms,
)
from predictors.energy.regressor import (
    FLOOR_SD,
    LEAST_ROWS,
    CostRegressor,
    Interval,
    Standard,
    Terms,
    TrainingRows,
)
from predictors.energy.transfer import transfer_terms
from predictors.measurement.records import EnergyRecord
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.cost.counts import BatchCounts
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

Array = NDArray[np.float64]

_STATED_LOG_SD = math.log(10) / 1.645
# Few rows hold the stated proportions loosely; the same as a regressor's own prior.
_PULL = 0.1
# Architectures whose arrays fit a cache together: batches are predicted in pieces of this size.
_PIECE = 8192


@dataclass(frozen=True, slots=True)
class Observation:
    """One measured label. ``relative_sd`` is its standard deviation over ``energy_j``.

    Observations of one ``group`` (a measuring session, say) err together and are held out
    together; an empty name makes each architecture a group of its own.
    """

    architecture: Architecture
    workload: Workload
    energy_j: float
    relative_sd: float
    group: str = ""

    def __post_init__(self) -> None:
        """Refuse labels that no device gives."""
        if not (math.isfinite(self.energy_j) and self.energy_j > 0):
            raise ValueError(f"energy_j must be finite and > 0, got {self.energy_j!r}")

    @classmethod
    def from_reading(
        cls, architecture: Architecture, workload: Workload, reading: EnergyReading
    ) -> Observation:
        """The label in a reading; its 95% interval gives the deviation."""
        return cls(architecture, workload, reading.energy_j, reading.half_width / 1.96)

    @classmethod
    def from_record(cls, record: EnergyRecord) -> Observation:
        """The label in a record, in the group of the session that measured it."""
        reading = record.reading
        return cls(
            record.architecture,
            record.workload,
            reading.energy_j,
            reading.half_width / 1.96,
            record.session,
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """Joules per sample, arrays of shape ``(N,)``; ``in_range`` is False outside the training."""

    mean_j: Array
    low_j: Array
    high_j: Array
    in_range: NDArray[np.bool_]


@dataclass(frozen=True)
class Prior:
    """How terms follow from counts: a roofline, or another device's predictor beside it."""

    roofline: Roofline
    source: EnergyPredictor | None = None

    def terms(
        self, batch: ArchitectureBatch, counts: BatchCounts, rows: Array, workload: Workload
    ) -> Terms:
        """Terms of a batch whose counts and features are known."""
        values = terms(counts, workload, self.roofline)
        if self.source is None:
            return Terms(values, stated_costs(), _PULL)
        predicted = self.source.predict_counted(batch, counts, rows, workload, 0.9).mean
        own = terms(counts, workload, self.source.prior.roofline)
        return transfer_terms(own, self.source.term_costs, predicted, TERM_GROUPS)


class EnergyPredictor:
    """Predicts joules per sample; made by ``fit`` or ``adapt``, never changed after."""

    def __init__(
        self,
        prior: Prior,
        costs: Array,
        log_sd: float,
        regressor: CostRegressor | None,
        standard: Standard | None,
        n_records: int,
    ) -> None:
        """See ``fit``; ``costs`` and ``log_sd`` serve where there is no ``regressor``."""
        self.prior, self.costs, self.log_sd = prior, costs, log_sd
        self.regressor, self.standard = regressor, standard
        self.n_records = n_records

    @property
    def basis(self) -> str:
        """What predictions rest on, in words."""
        if self.n_records == 0 and self.prior.source is None:
            return "a stated prior: nothing was measured yet"
        what = f"{self.n_records} measured records"
        if self.prior.source is not None:
            what += f" and another device's predictor ({self.prior.source.n_records} records)"
        if self.regressor is None:
            return f"costs scaled by {what}"
        parts = [
            f"{name} {weight:.0%}"
            for name, weight in self.regressor.weights.items()
            if name != "nothing" and weight >= 0.005
        ]
        learnt = f" and a residual ({', '.join(parts)})" if parts else ""
        return f"costs{learnt} fitted to {what}"

    @property
    def term_costs(self) -> Array:
        """Joules per unit of each of ``features.TERMS``; a transferred one gives its source's."""
        if self.prior.source is not None:
            return self.prior.source.term_costs
        return self.costs if self.regressor is None else self.regressor.costs

    @classmethod
    def fit(cls, observations: Sequence[Observation], *, seed: int = 0) -> EnergyPredictor:
        """Fit to ``observations``; none gives the stated prior.

        Below ``regressor.LEAST_ROWS`` the stated costs are scaled and bent by what there is.
        """
        return _fit(observations, [Prior(roofline) for roofline in ROOFLINES], seed)

    def adapt(self, observations: Sequence[Observation], *, seed: int = 0) -> EnergyPredictor:
        """A predictor for another device, from this one and a dozen observations there.

        What this predictor learned is the prior of the new one (``transfer``); observations
        of its own device would be better used by ``fit``.
        """
        return _fit(observations, [Prior(self.prior.roofline, self)], seed)

    def predict(
        self,
        architectures: Sequence[Architecture] | ArchitectureBatch,
        workload: Workload,
        confidence: float = 0.9,
    ) -> Prediction:
        """Joules per sample with two-sided intervals at ``confidence``.

        Raises:
            ValueError: ``confidence`` is not in (0, 1), or a patch size does not fit.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")
        batch = (
            architectures
            if isinstance(architectures, ArchitectureBatch)
            else ArchitectureBatch.of(architectures)
        )
        pieces = []
        for start in range(0, max(1, len(batch)), _PIECE):
            piece = batch.rows(slice(start, start + _PIECE))
            counts, rows = counted(piece, workload)
            pieces.append(self.predict_counted(piece, counts, rows, workload, confidence))
        return Prediction(
            np.concatenate([p.mean for p in pieces]),
            np.concatenate([p.low for p in pieces]),
            np.concatenate([p.high for p in pieces]),
            np.concatenate([p.in_range for p in pieces]),
        )

    def predict_counted(
        self,
        batch: ArchitectureBatch,
        counts: BatchCounts,
        rows: Array,
        workload: Workload,
        confidence: float,
    ) -> Interval:
        """As ``predict``, of a batch whose counts and features are known."""
        values = self.prior.terms(batch, counts, rows, workload).values
        if self.regressor is not None:
            return self.regressor.predict(values, rows, confidence)
        excess = np.full(len(rows), 1.0) if self.standard is None else self.standard.excess(rows)
        in_range = excess <= 0 if self.standard is not None else np.zeros(len(rows), dtype=bool)
        middle = np.log(values @ self.costs)
        width = self.log_sd * float(norm.ppf(0.5 + confidence / 2))
        if self.standard is None:
            widths = np.full(len(rows), width)
        else:
            widths = np.where(in_range, width, 2 * width)
        return Interval(np.exp(middle), np.exp(middle - widths), np.exp(middle + widths), in_range)


def _fit(
    observations: Sequence[Observation], priors: Sequence[Prior], seed: int
) -> EnergyPredictor:
    n = len(observations)
    if n == 0:
        # A source alone predicts the new device as if it were the old one, tenfold unsure.
        prior = priors[0]
        costs = stated_costs() if prior.source is None else _source_costs(prior.source)
        return EnergyPredictor(prior, costs, _STATED_LOG_SD, None, None, 0)
    candidates, rows = _candidates(observations, priors)
    target = np.array([o.energy_j for o in observations])
    sd = np.maximum(np.array([o.relative_sd for o in observations]), FLOOR_SD)
    if n < LEAST_ROWS:
        first = candidates[0]
        assert first.prior is not None
        stated = scaled(first.prior, first.values, target)
        costs = fit_costs(first.values, target, sd, stated, pull=first.pull)
        residual = np.log(target) - np.log(first.values @ costs)
        # Few rows scale the prior well but say little of its error.
        log_sd = float(np.sqrt(np.mean(residual**2) + (_STATED_LOG_SD / (n + 1)) ** 2))
        return EnergyPredictor(priors[0], costs, log_sd, None, Standard.of(rows), n)
    regressor = CostRegressor.fit(
        TrainingRows(candidates, rows, target, sd, _groups(observations)), seed=seed
    )
    prior = priors[regressor.choice]
    return EnergyPredictor(prior, regressor.costs, 0.0, regressor, regressor.standard, n)


def _source_costs(source: EnergyPredictor) -> Array:
    """Costs of transferred terms by which the target is the source's prediction."""
    parts = len(source.term_costs)
    return np.concatenate([np.ones(parts), np.zeros(len(TERM_GROUPS))])


def _candidates(
    observations: Sequence[Observation], priors: Sequence[Prior]
) -> tuple[tuple[Terms, ...], Array]:
    """Terms by each prior and features, with rows in the observations' order."""
    by_workload: dict[Workload, list[int]] = {}
    for index, observation in enumerate(observations):
        by_workload.setdefault(observation.workload, []).append(index)
    order = np.concatenate([np.array(found) for found in by_workload.values()])
    back = np.argsort(order)
    pieces = []
    for workload, found in by_workload.items():
        batch = ArchitectureBatch.of([observations[i].architecture for i in found])
        counts, rows = counted(batch, workload)
        pieces.append((rows, [prior.terms(batch, counts, rows, workload) for prior in priors]))
    candidates = tuple(
        Terms(
            np.vstack([terms_[choice].values for _, terms_ in pieces])[back],
            pieces[0][1][choice].prior,
            pieces[0][1][choice].pull,
        )
        for choice in range(len(priors))
    )
    return candidates, np.vstack([rows for rows, _ in pieces])[back]


def _groups(observations: Sequence[Observation]) -> NDArray[np.int64]:
    """An integer for each session; one architecture is never on both sides of a fold."""
    names = [o.group or o.architecture.hash for o in observations]
    if len(set(names)) < 2:
        names = [o.architecture.hash for o in observations]
    found: NDArray[np.int64] = np.unique(names, return_inverse=True)[1]
    return found
