"""What every adapter gives: labels, features, and counts in closed form where they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.energy.regressor import Terms, TrainingRows

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """``N`` labelled rows of one device.

    ``raw`` are the table's own columns, what a learner without counts is given; ``counts`` are
    features in closed form beside them. ``terms`` are non-negative candidates for the prior.
    ``term_groups`` name columns of ``terms`` that share a unit. ``flops`` is the proxy that the
    learned predictors are held against. Rows of equal ``groups`` were measured together. ``logs``
    are the inputs of our predictor where they are others than ``features``.

    Raises:
        ValueError: columns differ in length, or a label is not finite and above 0.
    """

    name: str
    raw: Array
    counts: Array
    terms: Array
    term_groups: Mapping[str, Sequence[int]]
    flops: Array
    target: Array
    relative_sd: Array
    groups: NDArray[np.int64]
    logs: Array | None = None

    def __post_init__(self) -> None:
        """Check lengths and labels."""
        n = len(self.target)
        for field in ("raw", "counts", "terms", "flops", "relative_sd", "groups"):
            if len(getattr(self, field)) != n:
                raise ValueError(f"{field} of table {self.name!r} must have {n} rows")
        if not np.all(np.isfinite(self.target) & (self.target > 0)):
            raise ValueError(f"labels of table {self.name!r} must be finite and > 0")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.target)

    @property
    def features(self) -> Array:
        """Own columns and counts, those that vary."""
        return _varying(np.hstack([self.raw, self.counts]))

    @property
    def inputs(self) -> Array:
        """What our predictor is given."""
        return self.features if self.logs is None else _varying(self.logs)

    def training(self, rows: NDArray[np.int64]) -> TrainingRows:
        """The given rows, as the regressor takes them."""
        return TrainingRows(
            (Terms(self.terms[rows]),),
            self.inputs[rows],
            self.target[rows],
            self.relative_sd[rows],
            self.groups[rows],
        )


def _varying(columns: Array) -> Array:
    return columns[:, columns.std(axis=0) > 1e-9]
