"""Surrogate of joules or seconds: a Gaussian process with a cost predictor as its prior.

With fewer than ten labels the ``CostPredictor`` (roofline, another device's predictor, a file of
``nas predictor fit``) predicts alone. From then on its prior is a feature of the process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.searching.gating.architecture_process import ArchitectureProcess, LogLabel
from predictors.energy.features import counted
from predictors.energy.models import CostPredictor, Observation
from predictors.energy.regressor import LEAST_ROWS, Predictions
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

Array = NDArray[np.float64]


class CostSurrogate:
    """Predicts a cost per unit of one workload, with intervals."""

    def __init__(self, workload: Workload, predictor: CostPredictor) -> None:
        """Start with ``predictor`` alone."""
        self._workload, self._predictor = workload, predictor
        self._process = ArchitectureProcess(workload)

    def fit(self, predictor: CostPredictor, labels: Sequence[Observation]) -> None:
        """Fit the process to ``labels``, given a ``predictor`` that may be fitted to them."""
        self._predictor = predictor
        self._process.fit([_log_label(label) for label in labels], self._log_prior)

    def add(self, labels: Sequence[Observation]) -> None:
        """Condition on further labels; predictor, hyperparameters and intervals stay."""
        self._process.add([_log_label(label) for label in labels])

    @property
    def log_cost(self) -> ArchitectureProcess | None:
        """The process of the logarithm of the cost; ``None`` with fewer than ten labels."""
        return self._process if self._process.n_labels >= LEAST_ROWS else None

    def predict(self, batch: ArchitectureBatch, confidence: float) -> Predictions:
        """Predict costs with two-sided intervals."""
        process = self.log_cost
        predictions = None if process is None else process.predict(batch, confidence)
        if predictions is not None:
            return predictions
        return self._predictor.predict(batch, self._workload, confidence)

    def _log_prior(self, batch: ArchitectureBatch) -> Array:
        """Return the logarithm of the predictor's prior, without its fitted residual.

        The residual is fitted to the same labels, so the process would trust it too far.
        """
        prior = self._predictor.prior
        counts, rows = counted(batch, self._workload, prior.device)
        return self._predictor.fitted.log(prior.terms(batch, counts, rows, self._workload))


def _log_label(label: Observation) -> LogLabel:
    return LogLabel(label.architecture, math.log(label.cost), label.relative_sd**2)
