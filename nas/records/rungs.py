"""Early stopping: rungs, points of learning curves, and the progress of a trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nas.core.plain import require_int
from nas.records.spent import Spent
from nas.training.config import Start
from search_spaces.architecture import require_positive_int


@dataclass(frozen=True, slots=True)
class HalvingConfig:
    """Settings of successive halving, with rungs at epochs ``min_epochs * eta**k``.

    The first ``startup_trials`` of a search are never stopped.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    eta: int = 3
    min_epochs: int = 5
    startup_trials: int = 2

    def __post_init__(self) -> None:
        require_int("halving eta", self.eta, 2)
        require_int("halving startup_trials", self.startup_trials, 0)
        require_positive_int("halving min_epochs", self.min_epochs)

    @classmethod
    def for_epochs(cls, epochs: int) -> HalvingConfig:
        """Return the default for ``epochs``: rungs at 1/12, 3/12 and 9/12 of them."""
        return cls(min_epochs=max(1, round(epochs / 12)))

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs of the rungs, all below ``epochs``."""
        rungs = []
        epoch = self.min_epochs
        while epoch < epochs:
            rungs.append(epoch)
            epoch *= self.eta
        return tuple(rungs)


@dataclass(frozen=True, slots=True)
class RungPoint:
    """Point of a learning curve: validation quality after ``epoch``."""

    epoch: int
    quality: float
    standard_error: float

    def __post_init__(self) -> None:
        require_positive_int("curve epoch", self.epoch)
        if not 0 <= self.quality <= 1:
            raise ValueError(f"curve quality must be in [0, 1], got {self.quality!r}")
        if not (math.isfinite(self.standard_error) and self.standard_error >= 0):
            raise ValueError(
                f"curve standard_error must be finite and >= 0, got {self.standard_error!r}"
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a trial in training: its curve, planned epochs and cost so far."""

    curve: tuple[RungPoint, ...]
    planned_epochs: int
    start: Start = "random"
    spent: Spent = Spent()


# Callback for a trial's progress at each rung; it stops the trial by raising an error.
OnProgress = Callable[[Progress], None]
