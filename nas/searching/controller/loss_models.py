"""A search's surrogates as models of the sampler's losses; see ``nas.samplers.surrogate``.

The losses of joules and latency are logarithms, which the cost predictors model as normal. Their
intervals are the acquisition's deviations. Costs in closed form have none. The loss of quality is
the error rate, whose logarithm has a Gaussian process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nas.records.goals import Cost
from nas.samplers.gaussian_process import GaussianProcess, ProcessPosterior
from nas.samplers.surrogate import Points, SurrogateModel, SurrogateModels
from nas.searching.gating.architecture_process import ArchitectureProcess
from nas.searching.gating.surrogates import ArchitectureSurrogates
from predictors.energy.regressor import Predictions
from search_spaces.space.batch import ArchitectureBatch

Array = NDArray[np.float64]
# Maps canonical rows ``(N, P)``, with NaN for absent genes, to architectures.
BatchOf = Callable[[Array], ArchitectureBatch]
# Maps architectures to means and standard deviations of logarithms of a cost.
LogCost = Callable[[ArchitectureBatch], tuple[Array, Array]]

_CONFIDENCE = 0.9
# Least variance of a logarithm; the acquisition divides by its root.
_LEAST_VARIANCE = 1e-12
# Largest standard deviation of a logarithm, so that intervals without bounds stay finite.
_MOST_SD = 5.0


@dataclass
class IndependentPosterior:
    """Posterior without covariances: conditioning on one candidate changes no other."""

    mean: Array
    variance: Array

    def condition(self, index: int) -> None:
        """Condition on candidate ``index``."""
        self.variance[index] = _LEAST_VARIANCE


@dataclass(frozen=True)
class PredictedLoss:
    """Logarithm of a cost by a predictor without covariances, minus ``offset``."""

    predict: LogCost
    batch_of: BatchOf
    offset: float
    points: Points

    @property
    def is_log(self) -> bool:
        """The loss is a logarithm itself."""
        return False

    def posterior(self, points: Points) -> IndependentPosterior:
        """Return the predictions at candidates."""
        mean, sd = self.predict(self.batch_of(points.rows))
        variance = np.clip(sd**2, _LEAST_VARIANCE, _MOST_SD**2)
        return IndependentPosterior(mean - self.offset, variance)

    def mean(self, points: Points) -> Array:
        """Return the mean predictions at candidates."""
        return self.posterior(points).mean

    def smoothed(self) -> Array:
        """Return the mean predictions at the training points."""
        return self.mean(self.points)

    def with_pending(self, points: Points) -> PredictedLoss:
        """Return the same surrogate, whose predictions are independent."""
        return self


@dataclass(frozen=True)
class ProcessLoss:
    """A loss by a Gaussian process over architectures, minus ``offset``."""

    process: GaussianProcess
    features_of: Callable[[Array], Array]
    is_log: bool
    offset: float
    points: Points

    def posterior(self, points: Points) -> ProcessPosterior:
        """Return the posterior at candidates."""
        posterior = self.process.posterior(self.features_of(points.rows))
        posterior.mean = posterior.mean - self.offset
        return posterior

    def mean(self, points: Points) -> Array:
        """Return the posterior mean at candidates."""
        return self.process.mean(self.features_of(points.rows)) - self.offset

    def smoothed(self) -> Array:
        """Return the losses of the training points without their noise."""
        mean = self.mean(self.points)
        return np.exp(mean) if self.is_log else mean

    def with_pending(self, points: Points) -> ProcessLoss:
        """Return a fantasy model, conditioned on pending points at their posterior means."""
        if not len(points):
            return self
        return replace(self, process=self.process.with_pending(self.features_of(points.rows)))


@dataclass(frozen=True)
class LossModel:
    """Model of a loss whose surrogate is fitted elsewhere, to the same trials.

    ``process`` returns the process of the loss (with ``is_log``, of its logarithm), ``None`` while
    ``predict`` serves. ``offset`` is subtracted: the logarithm of a limit.
    """

    batch_of: BatchOf
    process: Callable[[], ArchitectureProcess | None]
    predict: LogCost | None = None
    is_log: bool = False
    offset: float = 0.0

    def fit(
        self, points: Points, losses_N: Array, variance_N: Array, *, is_due: bool, is_exact: bool
    ) -> PredictedLoss | ProcessLoss:
        """Return the surrogate as it is now."""
        fitted = self.process()
        process = None if fitted is None else fitted.process
        if fitted is not None and process is not None:
            features = fitted.features
            return ProcessLoss(
                process,
                lambda rows: features(self.batch_of(rows)),
                self.is_log,
                self.offset,
                points,
            )
        if self.predict is None:
            raise ValueError("the surrogate of quality must have two labels or more, and has not")
        return PredictedLoss(self.predict, self.batch_of, self.offset, points)


def loss_models(surrogates: ArchitectureSurrogates, batch_of: BatchOf) -> SurrogateModels:
    """Return the models of all objectives and measured limits of a search."""
    goals, workload = surrogates.goals, surrogates.workload

    def log_joules(batch: ArchitectureBatch) -> tuple[Array, Array]:
        return _log(surrogates.energy_j(batch, _CONFIDENCE))

    def log_seconds_per_unit(batch: ArchitectureBatch) -> tuple[Array, Array]:
        per_batch, sd = _log(surrogates.latency_s(batch, _CONFIDENCE))
        return per_batch - float(np.log(workload.n_units)), sd

    def log_counted(cost: Cost, batch: ArchitectureBatch) -> tuple[Array, Array]:
        values = goals.counted(batch, workload)[cost]
        return np.log(values), np.zeros(len(batch))

    def nothing() -> None:
        return None

    joules = LossModel(batch_of, lambda: surrogates.log_energy, log_joules)
    # Latency is predicted per unit of the workload, and counts per batch.
    log_units = -float(np.log(workload.n_units))
    seconds = LossModel(
        batch_of, lambda: surrogates.log_latency, log_seconds_per_unit, offset=log_units
    )
    objectives: list[SurrogateModel] = [
        LossModel(batch_of, lambda: surrogates.log_error, is_log=True),
        joules,
    ]
    for cost in goals.costs:
        counted = LossModel(batch_of, nothing, partial(log_counted, cost))
        objectives.append(seconds if cost == "latency" else counted)
    limits = (
        ("max_joules", goals.max_joules, joules),
        ("max_latency_s", goals.max_latency_s, seconds),
    )
    return SurrogateModels(
        objectives,
        {
            name: replace(model, offset=model.offset + float(np.log(limit)))
            for name, limit, model in limits
            if limit is not None
        },
    )


def _log(predictions: Predictions) -> tuple[Array, Array]:
    return np.log(predictions.mean), predictions.log_sd(_CONFIDENCE)
