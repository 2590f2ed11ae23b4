"""Metrics of predictions of a positive target: rank correlation, relative error, coverage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics over ``n`` rows; errors are relative to the label.

    ``tau`` (Kendall's tau-b) and ``spearman`` are means over workloads, weighted by their rows,
    since the order between workloads is easy to predict; ``None`` if undefined. ``p95`` is the
    95th percentile of absolute relative errors. ``coverage`` is the share of labels inside the
    intervals, ``None`` without intervals. ``within_5`` and ``within_10`` are the shares of rows
    whose error is at most 5% and 10%.
    """

    n: int
    tau: float | None
    spearman: float | None
    mape: float
    p95: float
    coverage: float | None
    within_5: float
    within_10: float


def judge(
    truth_N: Array,
    mean_N: Array,
    workload_N: NDArray[np.int64],
    interval: tuple[Array, Array] | None = None,
) -> Metrics:
    """Return the metrics of predictions; ``workload`` is the index of each row's workload.

    Raises:
        ValueError: no rows, or a label that is not above 0.
    """
    if len(truth_N) == 0:
        raise ValueError("truth must have one or more rows, got none")
    if not np.all(truth_N > 0):
        raise ValueError(f"truth must be > 0 in every row, got {float(truth_N.min())!r}")
    # An error that equals a bound is within it, in spite of rounding.
    error = np.abs(mean_N / truth_N - 1) - 1e-12
    coverage = None
    if interval is not None:
        coverage = float(np.mean((interval[0] <= truth_N) & (truth_N <= interval[1])))
    return Metrics(
        n=len(truth_N),
        tau=ranked(kendalltau, mean_N, truth_N, workload_N),
        spearman=ranked(spearmanr, mean_N, truth_N, workload_N),
        mape=max(0.0, float(error.mean())),
        p95=max(0.0, float(np.quantile(error, 0.95))),
        coverage=coverage,
        within_5=float(np.mean(error <= 0.05)),
        within_10=float(np.mean(error <= 0.10)),
    )


def ranked(
    statistic: Callable[[Array, Array], Any],
    a_N: Array,
    b_N: Array,
    workload_N: NDArray[np.int64],
) -> float | None:
    """Return the mean rank statistic over workloads of two or more rows, weighted by rows."""
    total, weight = 0.0, 0
    for workload in np.unique(workload_N):
        rows = workload_N == workload
        n = int(rows.sum())
        if n < 2 or np.ptp(b_N[rows]) == 0:
            continue
        # Equal predictions have no order and count as 0.
        value = 0.0 if np.ptp(a_N[rows]) == 0 else float(statistic(a_N[rows], b_N[rows]).statistic)
        total += n * value
        weight += n
    return total / weight if weight else None
