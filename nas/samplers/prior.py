"""Prior trials: training data from outside a study, never part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.samplers.columns import Columns
from nas.samplers.evaluated import Evaluated

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PriorTrial:
    """One trial of another study, or of any other source.

    ``values`` are in this study's units, one for each objective; NaN marks a value that is
    unknown or not comparable. ``variances`` are the noise variances of the values, if known.

    Raises:
        ValueError: a value is infinite, or a variance is negative or missing.
    """

    params: Mapping[str, Any]
    values: Sequence[float]
    variances: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Reject infinite values and invalid variances."""
        if np.isinf(self.values).any():
            raise ValueError(f"values must be finite or NaN, got {self.values}")
        if self.variances is not None and (
            len(self.variances) != len(self.values)
            or not all(np.isfinite(v) and v >= 0 for v in self.variances)
        ):
            raise ValueError(
                f"variances must be {len(self.values)} numbers >= 0, got {self.variances}"
            )


def prior_rows(trials: Sequence[PriorTrial], columns: Columns, n_objectives: int) -> Evaluated:
    """Return ``trials`` as rows, with values in the study's units.

    Trials outside the space of ``columns`` and trials whose values are all NaN are ignored.

    Raises:
        ValueError: the number of a trial's values is not the number of objectives.
    """
    used = []
    for trial in trials:
        if len(trial.values) != n_objectives:
            raise ValueError(
                f"prior_trials must have {n_objectives} values each, one for each objective, "
                f"got {trial.values}"
            )
        if columns.holds(trial.params) and not np.isnan(trial.values).all():
            used.append(trial)
    n = len(used)
    variances = [[0.0] * n_objectives if t.variances is None else t.variances for t in used]
    return Evaluated(
        np.array([columns.row(t.params) for t in used]).reshape(n, len(columns.parameters)),
        np.array([t.values for t in used], dtype=float).reshape(n, n_objectives),
        np.array(variances, dtype=float).reshape(n, n_objectives),
        np.empty((n, 0)),
    )
