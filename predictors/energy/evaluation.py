"""Evaluate the energy predictor on measured records, against baselines and label noise.

Every tested row is held out by one of the ``splits``. Baselines are power laws (energy against
FLOPs, parameters, bytes or measured latency) fitted to the same training rows. ``ceiling``
estimates the best possible accuracy from the noise of the records.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, pearsonr

from predictors.energy.metrics import Metrics, judge, ranked
from predictors.energy.models import CostPredictor, Observation
from predictors.energy.splits import (
    DESCRIPTIONS,
    SPLITS,
    Fold,
    SplitKind,
    SplitRefusedError,
    SplitRows,
    make_folds,
)
from predictors.measurement.records import EnergyRecord
from search_spaces.cost.counting import count

Array = NDArray[np.float64]

OURS = "predictor"
BASELINES = ("flops", "params", "bytes", "latency")
CONFIDENCE = 0.9
N_FOLDS = 5
_LEAST_HALVES = 2


@dataclass(frozen=True, slots=True)
class SplitResult:
    """One kind of split: metrics by predictor, or ``refusal``, the reason why there are none.

    ``n_train`` is the median over folds.
    """

    kind: SplitKind
    description: str
    n_folds: int
    n_train: int
    metrics: Mapping[str, Metrics]
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Agreement between repeats of the labels, which bounds any predictor.

    Halves are medians of a record's odd and of its even windows. ``tau`` and ``mape`` compare
    them; ``reliability`` is the correlation of their logarithms, stepped up to the whole record by
    Spearman-Brown, 2r / (1 + r). ``floor_mape`` is the error of a perfect predictor: half of
    ``mape``, since a half has twice the variance and a difference has two of them. ``jobs_mape``
    is the mean relative difference of an architecture between two processes, and
    ``jobs_floor_mape`` is that over the root of 2, since halves of one process exclude the noise
    between processes. ``None`` means that the records do not determine a value.
    """

    n_halved: int
    tau: float | None
    mape: float | None
    reliability: float | None
    floor_mape: float | None
    n_repeated: int
    jobs_mape: float | None
    jobs_floor_mape: float | None

    @property
    def noise_mape(self) -> float | None:
        """The larger of the two floors, ``None`` if both are undetermined."""
        floors = [m for m in (self.floor_mape, self.jobs_floor_mape) if m is not None]
        return max(floors, default=None)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Evaluation on one device under one protocol and one set of board limits.

    ``limits`` describes the board limits; it is empty if the board reports none.
    """

    device: str
    source: str
    protocol_hash: str
    is_estimate: bool
    n_records: int
    n_architectures: int
    n_sessions: int
    workloads: tuple[str, ...]
    splits: tuple[SplitResult, ...]
    ceiling: Ceiling
    limits: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"confidence": CONFIDENCE}


@dataclass(frozen=True)
class LabelledRows:
    """Records of one device and protocol, prepared for predictors and baselines."""

    records: tuple[EnergyRecord, ...]
    observations: tuple[Observation, ...]
    target: Array
    workload: NDArray[np.int64]
    baselines: Mapping[str, Array]
    by: SplitRows

    @classmethod
    def of(cls, records: Sequence[EnergyRecord]) -> LabelledRows:
        """Prepare records that are corrected for drift.

        Raises:
            ValueError: there are none.
        """
        if not records:
            raise ValueError("records must hold one or more measurements, got none")
        counts = [count(r.architecture, r.workload) for r in records]
        flops = np.array([float(c.flops) for c in counts])
        sizes = [r.workload.batch_size for r in records]
        workloads = [r.workload.key for r in records]
        return cls(
            tuple(records),
            tuple(Observation.of_record(r) for r in records),
            np.array([r.reading.energy_j for r in records]),
            np.unique(workloads, return_inverse=True)[1],
            {
                "flops": flops,
                "params": np.array([float(c.params) for c in counts]),
                "bytes": np.array(
                    [
                        c.activation_bytes + c.weight_bytes / n
                        for c, n in zip(counts, sizes, strict=True)
                    ]
                ),
                # Seconds per unit, as joules are; measured, so no prediction.
                "latency": np.array([r.reading.latency_s / r.workload.n_units for r in records]),
            },
            SplitRows(
                [r.architecture.hash for r in records],
                [r.session for r in records],
                [f"{r.workload.key} d{r.architecture.d_model}" for r in records],
                flops,
            ),
        )

    def predictions(
        self, train: NDArray[np.int64], test: NDArray[np.int64], seed: int
    ) -> dict[str, tuple[Array, tuple[Array, Array] | None]]:
        """Fit to ``train``; return each predictor's mean and interval at ``test``, by its name."""
        predictor = CostPredictor.fit([self.observations[i] for i in train], seed=seed)
        mean, low, high = np.empty(len(test)), np.empty(len(test)), np.empty(len(test))
        for workload in np.unique(self.workload[test]):
            of_workload = self.workload[test] == workload
            chosen = [self.observations[i] for i in test[of_workload]]
            predicted = predictor.predict(
                [o.architecture for o in chosen], chosen[0].workload, CONFIDENCE
            )
            mean[of_workload] = predicted.mean
            low[of_workload], high[of_workload] = predicted.low, predicted.high
        lines: dict[str, tuple[Array, tuple[Array, Array] | None]] = {
            name: (line(values[train], self.target[train])(values[test]), None)
            for name, values in self.baselines.items()
        }
        return {OURS: (mean, (low, high)), **lines}


def by_device(records: Sequence[EnergyRecord]) -> list[tuple[EnergyRecord, ...]]:
    """Group records by place, source, protocol and limits, within which joules are comparable."""
    groups: dict[tuple[object, ...], list[EnergyRecord]] = defaultdict(list)
    for record in records:
        reading = record.reading
        key = (reading.place, reading.source, reading.protocol_hash, reading.limits)
        groups[key].append(record)
    return [tuple(group) for group in groups.values()]


def evaluate(
    records: Sequence[EnergyRecord],
    *,
    kinds: Sequence[SplitKind] = SPLITS,
    seed: int = 0,
    on_fold: Callable[[SplitKind, int, int], None] | None = None,
) -> Evaluation:
    """Evaluate on corrected records of one device and protocol.

    ``on_fold`` is called with the kind, the number of completed folds and the total.

    Raises:
        ValueError: there are no records, or they differ in device, source, protocol or limits.
    """
    if len(by_device(records)) > 1:
        raise ValueError("records must be of one device, source, protocol and limits of the board")
    rows = LabelledRows.of(records)
    first = rows.records[0].reading
    return Evaluation(
        device=first.place,
        source=first.source,
        protocol_hash=first.protocol_hash,
        is_estimate=any(r.reading.is_estimate for r in rows.records),
        n_records=len(rows.records),
        n_architectures=len(set(rows.by.architecture)),
        n_sessions=len({s for s in rows.by.session if s}),
        workloads=tuple(sorted({r.workload.key for r in rows.records})),
        splits=tuple(_split(kind, rows, seed, on_fold) for kind in kinds),
        ceiling=ceiling(rows.records),
        limits=first.limits_text,
    )


def _split(
    kind: SplitKind,
    rows: LabelledRows,
    seed: int,
    on_fold: Callable[[SplitKind, int, int], None] | None,
) -> SplitResult:
    try:
        folds = make_folds(kind, rows.by, n_folds=N_FOLDS, seed=seed)
    except SplitRefusedError as refusal:
        return SplitResult(kind, DESCRIPTIONS[kind], 0, 0, {}, str(refusal))
    parts = []
    for done, fold in enumerate(folds, start=1):
        parts.append(rows.predictions(fold.train, fold.test, seed))
        if on_fold is not None:
            on_fold(kind, done, len(folds))
    return SplitResult(
        kind,
        DESCRIPTIONS[kind],
        len(folds),
        int(median(len(fold.train) for fold in folds)),
        {name: _pooled(name, parts, folds, rows) for name in parts[0]},
    )


def _pooled(
    name: str,
    parts: Sequence[Mapping[str, tuple[Array, tuple[Array, Array] | None]]],
    folds: Sequence[Fold],
    rows: LabelledRows,
) -> Metrics:
    """Return the metrics over the test rows of all folds together."""
    test = np.concatenate([fold.test for fold in folds])
    predictions = [part[name] for part in parts]
    intervals = [interval for _, interval in predictions if interval is not None]
    interval = None
    if intervals:
        interval = (
            np.concatenate([low for low, _ in intervals]),
            np.concatenate([high for _, high in intervals]),
        )
    mean = np.concatenate([mean for mean, _ in predictions])
    return judge(rows.target[test], mean, rows.workload[test], interval)


def line(values_N: Array, target_N: Array) -> Callable[[Array], Array]:
    """Fit a power law by least squares of logarithms; return its prediction function."""
    x, y = np.log(values_N), np.log(target_N)
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 1e-12 else 0.0
    level = float(y.mean() - slope * x.mean())

    def predict(new_N: Array) -> Array:
        result: Array = np.exp(level + slope * np.log(new_N))
        return result

    return predict


def ceiling(records: Sequence[EnergyRecord]) -> Ceiling:
    """Return the agreement between repeats of the labels of ``records``."""
    halved = [r for r in records if len(r.repeats_j) >= _LEAST_HALVES]
    odd = np.array([median(r.repeats_j[::2]) for r in halved])
    even = np.array([median(r.repeats_j[1::2]) for r in halved])
    keys = [r.workload.key for r in halved]
    workload = np.unique(keys, return_inverse=True)[1] if keys else np.empty(0, dtype=np.int64)
    mape = float(np.mean(np.abs(odd / even - 1))) if halved else None
    correlation = ranked(_log_correlation, odd, even, workload)
    jobs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        jobs[record.architecture.hash, record.workload.key].append(record.reading.energy_j)
    apart = [abs(repeats[1] / repeats[0] - 1) for repeats in jobs.values() if len(repeats) > 1]
    jobs_mape = float(np.mean(apart)) if apart else None
    return Ceiling(
        n_halved=len(halved),
        tau=ranked(kendalltau, odd, even, workload),
        mape=mape,
        reliability=None if correlation is None else _stepped_up(correlation),
        floor_mape=None if mape is None else mape / 2,
        n_repeated=len(apart),
        jobs_mape=jobs_mape,
        jobs_floor_mape=None if jobs_mape is None else jobs_mape / math.sqrt(2),
    )


def _log_correlation(a_N: Array, b_N: Array) -> Any:
    return pearsonr(np.log(a_N), np.log(b_N))


def _stepped_up(correlation: float) -> float:
    """Return the reliability at twice the length (Spearman 1910, Brown 1910), at least 0."""
    return 2 * correlation / (1 + correlation) if correlation > 0 else 0.0
