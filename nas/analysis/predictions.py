"""Coverage of prediction intervals: joules predicted before training, against measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.core.estimate import Estimate
from nas.records.trial import Trial


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predicted and measured joules per unit of one trial, each with its interval."""

    trial: int
    predicted: Estimate
    measured: Estimate

    @property
    def inside(self) -> bool:
        """Whether the prediction interval contains the measured joules."""
        return self.measured.mean in self.predicted


@dataclass(frozen=True, slots=True)
class Coverage:
    """Share of prediction intervals that contain the measured value, with its 95% interval."""

    n: int
    n_inside: int
    share: Estimate


def predictions_of(records: Sequence[Trial]) -> list[Predicted]:
    """Return the trials with a prediction and a reading, except finalists, which repeat others."""
    return [
        Predicted(record.number, record.prediction, record.reading.estimate)
        for record in records
        if record.reading is not None
        and record.prediction is not None
        and record.finalist_of is None
    ]


def coverage_of(predictions: Sequence[Predicted]) -> Coverage | None:
    """Return the coverage of ``predictions``, ``None`` if there are none."""
    n, inside = len(predictions), sum(p.inside for p in predictions)
    return Coverage(n, inside, Estimate.of_share(inside, n)) if n else None
