"""Learning curves: error of predictor and baselines against the number of training rows.

Each seed holds out a quarter of the architectures and trains on growing nested sets of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.core.estimate import Estimate
from predictors.energy.evaluation import BASELINES, OURS, LabelledRows
from predictors.energy.metrics import judge
from predictors.energy.splits import LEAST_TEST, LEAST_TRAINING, SplitRefusedError
from predictors.measurement.records import EnergyRecord

SIZES = (10, 20, 40, 80, 160, 320, 640, 1280)
N_SEEDS = 5
_TEST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Median and quartiles over seeds with ``n`` training rows; ``tau`` as in ``Metrics``."""

    predictor: str
    n: int
    mape: Estimate
    tau: Estimate | None


def learning_curve(
    records: Sequence[EnergyRecord],
    *,
    n_seeds: int = N_SEEDS,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[CurvePoint, ...]:
    """Return the curve on drift-corrected records of one device.

    ``on_step`` is called with the number of completed steps and the total.

    Raises:
        SplitRefusedError: there are too few architectures.
    """
    rows = LabelledRows.of(records)
    architecture = np.unique(list(rows.by.architecture), return_inverse=True)[1]
    n_architectures = int(architecture.max()) + 1
    n_test = max(LEAST_TEST, round(_TEST_SHARE * n_architectures))
    most = n_architectures - n_test
    if most < LEAST_TRAINING:
        raise SplitRefusedError(
            f"a learning curve needs {LEAST_TEST + LEAST_TRAINING} architectures or more, "
            f"and the records hold {n_architectures}"
        )
    sizes = [n for n in SIZES if n < most] + [most]
    scores: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for repeat in range(n_seeds):
        order = np.random.default_rng([seed, repeat]).permutation(n_architectures)
        test = np.flatnonzero(np.isin(architecture, order[:n_test]))
        # One row per architecture in training, so that n rows are n distinct architectures.
        first_row = _first_rows(architecture)[order[n_test:]]
        for step, n in enumerate(sizes):
            parts = rows.predictions(first_row[:n], test, seed)
            for name, (mean, _) in parts.items():
                metrics = judge(rows.target[test], mean, rows.workload[test])
                tau = float("nan") if metrics.tau is None else metrics.tau
                scores.setdefault((name, n), []).append((metrics.mape, tau))
            if on_step is not None:
                on_step(repeat * len(sizes) + step + 1, n_seeds * len(sizes))
    return tuple(
        _point(name, n, np.array(scores[name, n])) for name in (OURS, *BASELINES) for n in sizes
    )


def _first_rows(architecture: NDArray[np.int64]) -> NDArray[np.int64]:
    result: NDArray[np.int64] = np.unique(architecture, return_index=True)[1]
    return result


def _point(name: str, n: int, values: NDArray[np.float64]) -> CurvePoint:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    mape, tau = (
        None if np.isnan(m) else Estimate(float(m), float(a), float(b), "quartiles")
        for m, a, b in zip(middle, low, high, strict=True)
    )
    assert mape is not None
    return CurvePoint(name, n, mape, tau)
