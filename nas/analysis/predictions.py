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
    predicted: Estimate
    measured: Estimate

    @property
    def inside(self) -> bool:
        """Whether the measured joules lie in the predicted interval."""
        return self.measured.mean in self.predicted


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many intervals contained the measured value; ``share`` with its exact 95% interval."""

    n: int
    n_inside: int
    share: Estimate


def predictions_of(records: Sequence[Trial]) -> list[Predicted]:
    """Return each trial that was predicted and measured, except finalists, counted already."""
    return [
        Predicted(record.number, record.prediction, record.reading.estimate)
        for record in records
        if record.reading is not None
        and record.prediction is not None
        and record.finalist_of is None
    ]


def coverage_of(predictions: Sequence[Predicted]) -> Coverage | None:
    """The coverage of ``predictions``, ``None`` where there are none."""
    n, inside = len(predictions), sum(p.inside for p in predictions)
    return Coverage(n, inside, Estimate.of_share(inside, n)) if n else None
