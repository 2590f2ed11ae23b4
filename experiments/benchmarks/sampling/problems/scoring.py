"""How a table's objectives become losses: which columns, which direction, which scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.benchmarks.sampling.problems.noise import Measured
from experiments.benchmarks.sampling.problems.problem import Array

DIRECTIONS, SCALES = ("min", "max"), ("linear", "log")


@dataclass(frozen=True)
class Scoring:
    """Two columns, each with a direction (min, max) and a scale (linear, log).

    Raises:
        ValueError: a direction or a scale has another name.
    """

    objectives: tuple[str, str]
    directions: tuple[str, str] = ("min", "min")
    scales: tuple[str, str] = ("linear", "linear")

    def __post_init__(self) -> None:
        """Reject unknown names."""
        for field, names in (("directions", DIRECTIONS), ("scales", SCALES)):
            values = getattr(self, field)
            if set(values) - set(names):
                raise ValueError(f"{field} must be {' or '.join(names)}, got {','.join(values)}")

    def losses(self, path: Path, data: pd.DataFrame) -> Array:
        """Return the losses ``(N, 2)``: decades where the scale is log, negated where maximised.

        Raises:
            ValueError: a value that is scored in logarithms is not positive.
        """
        columns = []
        for name, direction, scale in zip(
            self.objectives, self.directions, self.scales, strict=True
        ):
            values = data[name].to_numpy(float)
            if scale == "log":
                if values.min() <= 0:
                    raise ValueError(
                        f"table {path} must have values > 0 in {name!r} to be scored in "
                        f"logarithms, got {values.min():g}: use linear"
                    )
                values = np.log10(values)
            columns.append(values if direction == "min" else -values)
        return np.column_stack(columns)

    def measured(self, losses_N2: Array) -> Measured | None:
        """Return how the losses were made, ``None`` if not from a rate and a positive cost."""
        is_accuracy = self.directions[0] == "max"
        rates = -losses_N2[:, 0] if is_accuracy else losses_N2[:, 0]
        is_rate = self.scales[0] == "linear" and rates.min() >= 0 and rates.max() <= 1
        is_log_cost = self.scales[1] == "log"
        is_cost = self.directions[1] == "min" and (is_log_cost or losses_N2[:, 1].min() > 0)
        return Measured(is_accuracy, is_log_cost) if is_rate and is_cost else None

    @property
    def about(self) -> str:
        """Both objectives in words, with directions and scales."""
        words = [
            f"{'minus ' * (direction == 'max')}{'log10 ' * (scale == 'log')}{name}"
            for name, direction, scale in zip(
                self.objectives, self.directions, self.scales, strict=True
            )
        ]
        return f"losses {words[0]} and {words[1]}"
