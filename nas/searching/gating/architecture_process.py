"""Gaussian process over architectures of the logarithm of a positive target.

Quality and costs of a search have this surrogate. Intervals are conformal, by leave-one-out errors
in closed form (Rasmussen & Williams 2006, equation 5.12). A prior prediction may be one more
feature: the process learns how far to trust it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.samplers.gaussian import clipped
from nas.samplers.gaussian_process import GaussianProcess, Hyperparameters
from nas.searching.gating.architecture_features import ArchitectureFeatures
from predictors.energy.calibration import Conformal
from predictors.energy.features import counted
from predictors.energy.regressor import Predictions, Standard
from search_spaces.architecture import Architecture
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

Array = NDArray[np.float64]
# Maps architectures to the logarithm of a prior prediction, ``(N,)``.
LogPrior = Callable[[ArchitectureBatch], Array]

# Most labels of a fit, since the cost of a process is their cube; and most between two fits.
MOST_LABELS = 1000
_MOST_ROWS = 1500
# Added to the prior mean of the log relevance of a prior prediction.
_PRIOR_SHIFT = 0.0
# A prediction is flagged this far outside the training range, in ranges of the worst size.
_SLACK = 0.05


@dataclass(frozen=True, slots=True)
class LogLabel:
    """The logarithm of a target, with its noise variance."""

    architecture: Architecture
    value: float
    variance: float


class ArchitectureProcess:
    """Gaussian process that is fitted now and then, and conditioned on each label at once."""

    def __init__(self, workload: Workload, *, clips: bool = False) -> None:
        """Start without labels; with ``clips``, the worst count as bad only."""
        self._workload, self._clips = workload, clips
        self._prior: LogPrior | None = None
        self._prior_scale = (0.0, 1.0)
        self._features: ArchitectureFeatures | None = None
        self._standard: Standard | None = None
        self._hyper: Hyperparameters | None = None
        self._rows = np.empty((0, 0))
        self._values = np.empty(0)
        self._variance = np.empty(0)
        self._new: list[LogLabel] = []
        self._process: GaussianProcess | None = None
        self._conformal: Conformal | None = None

    @property
    def n_labels(self) -> int:
        """Number of labels, those included that wait for the next prediction."""
        return len(self._values) + len(self._new)

    def fit(self, labels: Sequence[LogLabel], prior: LogPrior | None = None) -> None:
        """Fit features, hyperparameters and intervals to ``labels``, which replace all before."""
        self._new, self._process, self._features = [], None, None
        self._values, self._prior = np.empty(0), prior
        if len(labels) < 2:
            self._new = list(labels)
            return
        batch = ArchitectureBatch.of([label.architecture for label in labels])
        self._features = ArchitectureFeatures.of(batch, self._workload)
        self._standard = Standard.of(counted(batch, self._workload)[1])
        expected = self._features.expected
        if prior is not None:
            values = prior(batch)
            self._prior_scale = float(values.mean()), float(values.std()) or 1.0
            expected = np.append(expected, _PRIOR_SHIFT)
        self._rows = self.features(batch)
        self._values = np.array([label.value for label in labels])
        self._variance = np.array([label.variance for label in labels])
        hyper = self._hyper
        if hyper is not None and len(hyper.relevance) != len(expected):
            # Other features vary than before: start from the prior.
            hyper = None
        self._process = GaussianProcess.fit(
            self._rows, self._targets, self._variance, hyper, expected_F=expected
        )
        self._hyper = self._process.hyper
        scores = self._process.leave_one_out_scores()
        self._conformal = Conformal(scores, float(len(scores)))

    def add(self, labels: Sequence[LogLabel]) -> None:
        """Condition on further labels; hyperparameters and intervals stay."""
        self._new += labels

    @property
    def process(self) -> GaussianProcess | None:
        """The process, conditioned on all labels; ``None`` with fewer than two."""
        if not self._new:
            return self._process
        if self._features is None or self._hyper is None:
            self.fit(self._new, self._prior)
            return self._process
        batch = ArchitectureBatch.of([label.architecture for label in self._new])
        values, variance = zip(
            *((label.value, label.variance) for label in self._new), strict=True
        )
        self._rows = np.vstack([self._rows, self.features(batch)])[-_MOST_ROWS:]
        self._values = np.concatenate([self._values, values])[-_MOST_ROWS:]
        self._variance = np.concatenate([self._variance, variance])[-_MOST_ROWS:]
        self._new = []
        self._process = GaussianProcess(self._rows, self._targets, self._variance, self._hyper)
        return self._process

    @property
    def _targets(self) -> Array:
        return clipped(self._values) if self._clips else self._values

    def features(self, batch: ArchitectureBatch) -> Array:
        """Return the features of ``batch`` for ``process``."""
        assert self._features is not None
        features = self._features(batch)
        if self._prior is None:
            return features
        centre, scale = self._prior_scale
        return np.column_stack([features, (self._prior(batch) - centre) / scale])

    def predict(self, batch: ArchitectureBatch, confidence: float) -> Predictions | None:
        """Predict the target with two-sided intervals; ``None`` without a process."""
        process = self.process
        if process is None or self._conformal is None:
            return None
        assert self._standard is not None
        posterior = process.posterior(self.features(batch))
        noise = process.noise_variance + float(np.median(self._variance))
        half = np.sqrt(posterior.variance + noise) * self._conformal.half_width(confidence)
        excess = self._standard.excess(counted(batch, self._workload)[1])
        with np.errstate(over="ignore"):
            # Far outside the range an infinite bound is intended.
            return Predictions(
                np.exp(posterior.mean),
                np.exp(posterior.mean - half),
                np.exp(posterior.mean + half),
                excess <= _SLACK,
            )
