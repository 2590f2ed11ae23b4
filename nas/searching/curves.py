"""What a stopped trial would have come to, told from those that were trained to their end.

Errors fall by much the same factor from a rung to the end: the logarithm of the final error is
regressed on that of the rung's error, over complete trials, for each rung by itself. Wang et al.
2013 and Domhan, Springenberg & Hutter 2015 extrapolate single curves by families of functions;
two or three points do not tell those apart. With few complete trials nothing is said at all: that
a trial was stopped does not tell how bad it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.searching.halving import RungPoint
from nas.searching.trial import TrialRecord

# Complete trials that a rung must have before anything is told from it.
LEAST_CURVES = 8
# Half an error in a thousand samples: keeps the log finite where nothing was wrong.
_FLOOR = 5e-4


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """The final accuracy of a stopped trial, and the deviation of that guess."""

    record: TrialRecord
    accuracy: float
    standard_error: float


def extrapolate(records: Sequence[TrialRecord]) -> list[Extrapolated]:
    """Of each stopped trial among ``records`` whose rung enough complete ones have passed."""
    found: list[Extrapolated] = []
    laws: dict[int, _Law | None] = {}
    for record in records:
        if record.state != "stopped":
            continue
        point = record.curve[-1]
        if point.epoch not in laws:
            laws[point.epoch] = _Law.fit(records, point.epoch)
        law = laws[point.epoch]
        if law is not None:
            found.append(Extrapolated(record, *law.final(point)))
    return found


@dataclass(frozen=True)
class _Law:
    """``log(final error) = level + slope * (log(rung error) - middle)``, with its residual sd."""

    level: float
    slope: float
    middle: float
    spread: float
    sd: float
    n: int

    @classmethod
    def fit(cls, records: Sequence[TrialRecord], epoch: int) -> _Law | None:
        """By least squares, ``None`` with too few complete trials."""
        pairs = [
            (point.accuracy, record.accuracy)
            for record in records
            if record.state == "complete" and record.accuracy is not None
            for point in record.curve
            if point.epoch == epoch
        ]
        n = len(pairs)
        if n < LEAST_CURVES:
            return None
        x, y = _log_errors(np.array(pairs)).T
        apart = x - x.mean()
        spread = float((apart**2).sum())
        # A final error that fell where the rung's rose would be chance.
        slope = max(0.0, float(apart @ y) / spread) if spread > 0 else 0.0
        residuals = y - y.mean() - slope * apart
        sd = math.sqrt(float((residuals**2).sum()) / (n - 2))
        return cls(float(y.mean()), slope, float(x.mean()), spread, sd, n)

    def final(self, point: RungPoint) -> tuple[float, float]:
        """Accuracy and its deviation, that of a new observation."""
        x = float(_log_errors(np.array(point.accuracy)))
        apart = x - self.middle
        error = min(1.0, math.exp(self.level + self.slope * apart))
        distance = apart**2 / self.spread if self.spread > 0 else 0.0
        # The rung's own noise is in the residuals of the law already.
        return 1 - error, error * self.sd * math.sqrt(1 + 1 / self.n + distance)


def _log_errors(accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.log(np.maximum(1 - accuracies, _FLOOR))
    return found
