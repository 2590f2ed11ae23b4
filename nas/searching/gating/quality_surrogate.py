"""Surrogate of the quality of untrained candidates, with calibrated intervals.

The error rate falls as powers of sizes (Hestness et al. 2017; Hoffmann et al. 2022), so the
logarithm of the error rate is modelled, with a linear kernel over logarithms of sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas.searching.gating.architecture_process import ArchitectureProcess, LogLabel
from nas.searching.gating.warm_start_data import QualityLabel
from predictors.energy.regressor import LEAST_ROWS, Predictions
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

# Half an error in a thousand samples: keeps the logarithm finite at a quality of 1.
_FLOOR = 5e-4


class QualitySurrogate:
    """Predicts the quality of architectures of one workload, with intervals."""

    def __init__(self, workload: Workload) -> None:
        """Start without labels."""
        #: Process of the logarithm of the error rate.
        self.log_error = ArchitectureProcess(workload, clips=True)

    def fit(self, labels: Sequence[QualityLabel]) -> None:
        """Fit to ``labels``, which replace all before."""
        self.log_error.fit([_log_error(label) for label in labels])

    def add(self, labels: Sequence[QualityLabel]) -> None:
        """Condition on further labels; hyperparameters and intervals stay."""
        self.log_error.add([_log_error(label) for label in labels])

    def predict(self, batch: ArchitectureBatch, confidence: float) -> Predictions | None:
        """Qualities with two-sided intervals; ``None`` with fewer than ten labels."""
        if self.log_error.n_labels < LEAST_ROWS:
            return None
        errors = self.log_error.predict(batch, confidence)
        if errors is None:
            return None
        return Predictions(1 - errors.mean, 1 - errors.high, 1 - errors.low, errors.in_range)


def _log_error(label: QualityLabel) -> LogLabel:
    error = max(1 - label.quality, _FLOOR)
    return LogLabel(label.architecture, math.log(error), (label.standard_error / error) ** 2)
