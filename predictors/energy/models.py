"""The cost predictor: joules or seconds of architectures, with calibrated intervals.

Both depend on the same closed-form counts, so one class predicts either. Its unit is that
of its observations, per unit of the workload (a sample, or a token of a decoder).

The prior is a roofline summed layer by layer, whose few costs are fitted; a validated residual
(``regressor``) is added to it. With few rows the prior is only scaled; without rows it has stated
costs in joules. On a CUDA device it may be the shape that other GPUs have (``shape``), and is
with few rows or none. ``basis`` describes the case. A predictor of another device may be the
prior (``adapt``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from predictors.energy.costs import FittedPrior
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
    Predictions,
    Standard,
    Terms,
    TrainingRows,
)
from predictors.energy.shape import N_PHI, Shape, shipped_shape
from predictors.energy.transfer import transfer_terms
from predictors.measurement.records import EnergyRecord
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.cost.counts import BatchCounts
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

Array = NDArray[np.float64]

_STATED_LOG_SD = math.log(10) / 1.645
# Factor of an interval outside the range of the rows, or of the networks of a shape.
_BEYOND = 2.0
# Batches are predicted in pieces of this size, whose arrays fit the CPU's cache.
_PIECE = 8192


@dataclass(frozen=True, slots=True)
class Observation:
    """One measured label: ``cost`` is joules or seconds per unit of the workload.

    ``relative_sd`` is the label's standard deviation over ``cost``. Observations of one ``group``
    (a measuring session, say) have correlated errors and are held out together; with an empty
    name each architecture is a group of its own. ``device`` is the type of the measured device.
    """

    architecture: Architecture
    workload: Workload
    cost: float
    relative_sd: float
    group: str = ""
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check that the label is finite and positive."""
        if not (math.isfinite(self.cost) and self.cost > 0):
            raise ValueError(f"cost must be finite and > 0, got {self.cost!r}")

    @classmethod
    def of_energy(
        cls,
        architecture: Architecture,
        workload: Workload,
        reading: EnergyReading,
        group: str = "",
    ) -> Observation:
        """Return the joules of a reading, with their standard deviation."""
        sd = reading.relative_sd
        return cls(architecture, workload, reading.energy_j, sd, group, reading.device_type)

    @classmethod
    def of_latency(
        cls, architecture: Architecture, workload: Workload, reading: EnergyReading
    ) -> Observation:
        """Return the seconds per unit of a reading, with the relative deviation of its joules."""
        sd = reading.relative_sd
        cost_s = reading.latency_s / workload.n_units
        return cls(architecture, workload, cost_s, sd, device=reading.device_type)

    def scaled(self, factor: float) -> Observation:
        """Return this observation with its cost times ``factor``."""
        return replace(self, cost=self.cost * factor)

    @classmethod
    def of_record(cls, record: EnergyRecord) -> Observation:
        """Return the joules of a record, grouped by its measuring session."""
        return cls.of_energy(record.architecture, record.workload, record.reading, record.session)


@dataclass(frozen=True)
class Prior:
    """Source of the terms: a roofline, optionally with another device's predictor or a shape.

    Counts assume that weights are stored as on ``device``.
    """

    roofline: Roofline
    source: CostPredictor | None = None
    device: str = "cpu"
    shape: Shape | None = None

    def terms(
        self, batch: ArchitectureBatch, counts: BatchCounts, rows: Array, workload: Workload
    ) -> Terms:
        """Return the terms of a batch with these counts and features (``rows``)."""
        values = terms(counts, workload, self.roofline)
        if self.shape is not None:
            return self.shape.terms(values, rows)
        if self.source is None:
            return Terms(values, stated_costs())
        predicted = self.source.predict_counted(batch, counts, rows, workload, 0.9).mean
        own = terms(counts, workload, self.source.prior.roofline)
        return transfer_terms(own, self.source.term_costs, predicted, TERM_GROUPS)

    @property
    def other_costs(self) -> Array | None:
        """Cost per unit of each of ``features.TERMS`` on other devices, ``None`` if unknown."""
        if self.shape is not None:
            return self.shape.costs
        return None if self.source is None else self.source.term_costs

    def unfitted(self) -> FittedPrior:
        """Return the costs that reproduce the source's, the shape's or the stated prediction."""
        if self.other_costs is None:
            return FittedPrior(stated_costs(), np.zeros(0))
        parts = len(self.other_costs)
        costs = np.concatenate([np.ones(parts), np.zeros(len(TERM_GROUPS))])
        return FittedPrior(costs, np.zeros(0 if self.shape is None else N_PHI))


class CostPredictor:
    """Immutable predictor of joules or seconds; ``fit`` or ``adapt`` makes it."""

    def __init__(
        self,
        prior: Prior,
        fitted: FittedPrior,
        log_sd: float,
        regressor: CostRegressor | None,
        standard: Standard | None,
        n_records: int,
    ) -> None:
        """See ``fit``; ``fitted`` and ``log_sd`` are used without a ``regressor``."""
        self.prior, self.fitted, self.log_sd = prior, fitted, log_sd
        self.regressor, self.standard = regressor, standard
        self.n_records = n_records

    @property
    def basis(self) -> str:
        """Description of the data that predictions are based on."""
        shape = self.prior.shape
        if self.n_records == 0 and self.prior.source is None:
            if shape is None:
                return "a stated prior: nothing was measured yet"
            return f"a prior at a stated level with {shape.describe()}: nothing was measured yet"
        what = f"{self.n_records} measured records"
        if shape is not None:
            what += f" and {shape.describe()}"
        if self.prior.source is not None:
            what += f" and another device's predictor ({self.prior.source.n_records} records)"
        if self.regressor is None:
            return f"costs scaled by {what}"
        parts = [
            f"{name} {weight:.0%}"
            for name, weight in self.regressor.weights.items()
            if name != "nothing" and weight >= 0.005
        ]
        residual = f" and a residual ({', '.join(parts)})" if parts else ""
        return f"costs{residual} fitted to {what}"

    @property
    def term_costs(self) -> Array:
        """Cost per unit of each of ``features.TERMS``; those of the source after a transfer."""
        other = self.prior.other_costs
        return self.fitted.costs if other is None else other

    @classmethod
    def fit(
        cls, observations: Sequence[Observation], *, seed: int = 0, device: str | None = None
    ) -> CostPredictor:
        """Fit to ``observations``, all joules or all seconds; none gives the prior.

        Below ``regressor.LEAST_ROWS`` observations the prior is only adjusted by them. ``device``
        is a place such as ``cuda:0``, by default the observations' type of device.
        """
        device = (device or _device(observations)).partition(":")[0]
        priors = [Prior(roofline, None, device) for roofline in ROOFLINES]
        if device == "cuda":
            shape = shipped_shape()
            priors.insert(0, Prior(shape.roofline, None, device, shape))
        return _fit(observations, priors, seed)

    def adapt(self, observations: Sequence[Observation], *, seed: int = 0) -> CostPredictor:
        """Fit to a dozen observations of another device, with this predictor as the prior.

        For observations of this predictor's own device ``fit`` is better.
        """
        return _fit(observations, [Prior(self.prior.roofline, self, _device(observations))], seed)

    def predict(
        self,
        architectures: Sequence[Architecture] | ArchitectureBatch,
        workload: Workload,
        confidence: float = 0.9,
    ) -> Predictions:
        """Predict costs per unit of the workload, with two-sided intervals at ``confidence``.

        Raises:
            ValueError: ``confidence`` is not in (0, 1), or a patch size does not fit.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")
        batch = architectures
        if not isinstance(batch, ArchitectureBatch):
            batch = ArchitectureBatch.of(batch)
        pieces = []
        for start in range(0, max(1, len(batch)), _PIECE):
            piece = batch.rows(slice(start, start + _PIECE))
            counts, rows = counted(piece, workload, self.prior.device)
            pieces.append(self.predict_counted(piece, counts, rows, workload, confidence))
        return Predictions(
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
    ) -> Predictions:
        """Predict as ``predict``, for a batch with these counts and features (``rows``)."""
        values = self.prior.terms(batch, counts, rows, workload)
        if self.regressor is not None:
            return self.regressor.predict(values, rows, confidence)
        middle = self.fitted.log(values)
        widths = np.full(len(rows), self.log_sd * float(norm.ppf(0.5 + confidence / 2)))
        in_range = np.zeros(len(rows), dtype=bool)
        if self.standard is not None:
            in_range = self.standard.excess(rows) <= 0
            widths = np.where(in_range, widths, _BEYOND * widths)
        # Without records of this device nothing is in range, even if other GPUs were measured.
        in_range &= self.n_records > 0
        return Predictions(
            np.exp(middle), np.exp(middle - widths), np.exp(middle + widths), in_range
        )


def _fit(observations: Sequence[Observation], priors: Sequence[Prior], seed: int) -> CostPredictor:
    n, prior = len(observations), priors[0]
    shape_range = None if prior.shape is None else prior.shape.range
    if n == 0:
        # Without observations the prior is unchanged, with an interval of a factor of ten.
        return CostPredictor(prior, prior.unfitted(), _STATED_LOG_SD, None, shape_range, 0)
    candidates, rows = _candidates(observations, priors)
    target = np.array([o.cost for o in observations])
    sd = np.maximum(np.array([o.relative_sd for o in observations]), FLOOR_SD)
    if n < LEAST_ROWS:
        fitted = FittedPrior.fit(candidates[0], target, sd)
        residual = np.log(target) - fitted.log(candidates[0])
        unknown = _STATED_LOG_SD / (n + 1)
        if shape_range is not None and np.any(shape_range.excess(rows) > 0):
            unknown *= _BEYOND
        # Few rows determine the prior's scale well and its error badly.
        log_sd = float(np.sqrt(np.mean(residual**2) + unknown**2))
        return CostPredictor(prior, fitted, log_sd, None, Standard.of(rows), n)
    if prior.shape is not None and prior.shape.is_enough(rows):
        candidates = candidates[:1]
    regressor = CostRegressor.fit(
        TrainingRows(candidates, rows, target, sd, _groups(observations)), seed=seed
    )
    prior = priors[regressor.choice]
    return CostPredictor(prior, regressor.prior, 0.0, regressor, regressor.standard, n)


def _device(observations: Sequence[Observation]) -> str:
    """Return the device type that observations share, a CPU if there are none."""
    return observations[0].device if observations else "cpu"


def _candidates(
    observations: Sequence[Observation], priors: Sequence[Prior]
) -> tuple[tuple[Terms, ...], Array]:
    """Return terms under each prior, and features, in the order of the observations."""
    by_workload: dict[Workload, list[int]] = {}
    for index, observation in enumerate(observations):
        by_workload.setdefault(observation.workload, []).append(index)
    order = np.concatenate([np.array(indices) for indices in by_workload.values()])
    back = np.argsort(order)
    pieces = []
    for workload, indices in by_workload.items():
        batch = ArchitectureBatch.of([observations[i].architecture for i in indices])
        counts, rows = counted(batch, workload, priors[0].device)
        pieces.append((rows, [prior.terms(batch, counts, rows, workload) for prior in priors]))
    candidates = tuple(
        Terms.stacked([terms_[choice] for _, terms_ in pieces]).rows(back)
        for choice in range(len(priors))
    )
    return candidates, np.vstack([rows for rows, _ in pieces])[back]


def _groups(observations: Sequence[Observation]) -> NDArray[np.int64]:
    """Number the sessions, or the architectures if there is only one session."""
    names = [o.group or o.architecture.hash for o in observations]
    if len(set(names)) < 2:
        names = [o.architecture.hash for o in observations]
    result: NDArray[np.int64] = np.unique(names, return_inverse=True)[1]
    return result
