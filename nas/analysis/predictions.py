"""Joules predicted before training, against measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.core.estimate import Estimate
from nas.records.trial import Trial


@dataclass(frozen=True, slots=True)
class Predicted:
    """One trial's joules per sample: predicted with an interval, and measured with its own."""

    trial: int
    predicted_j: float
    low_j: float
    high_j: float
    measured_j: float
    measured_low_j: float
    measured_high_j: float

    @property
    def inside(self) -> bool:
        """Whether the measured joules lie in the predicted interval."""
        return self.low_j <= self.measured_j <= self.high_j


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many intervals contained the measured value; ``share`` with its exact 95% interval."""

    n: int
    n_inside: int
    share: Estimate


def predictions_of(records: Sequence[Trial]) -> list[Predicted]:
    """Return each trial that was predicted and measured, except finalists, counted already."""
    found = []
    for r in records:
        reading, predicted = r.reading, r.prediction
        if reading is None or predicted is None or r.finalist_of is not None:
            continue
        found.append(
            Predicted(
                *(r.number, predicted.mean, predicted.low, predicted.high),
                *(reading.energy_j, reading.low_j, reading.high_j),
            )
        )
    return found


def coverage_of(predictions: Sequence[Predicted]) -> Coverage | None:
    """The coverage of ``predictions``, ``None`` where there are none."""
    n, inside = len(predictions), sum(p.inside for p in predictions)
    return Coverage(n, inside, Estimate.of_share(inside, n)) if n else None
