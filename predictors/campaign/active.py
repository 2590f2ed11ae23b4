"""Active learning: measure a space near the front, where its predictor is least certain."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from predictors.campaign.failures import failures_path, read_failures
from predictors.campaign.plan import PlanItem, plan_items
from predictors.energy.active import (
    FIRST_ROWS,
    Choice,
    candidates_of,
    first_rows,
    next_rows,
    width_near_front,
)
from predictors.energy.models import CostPredictor, Observation
from predictors.energy.regressor import Predictions
from predictors.measurement.drift import correct_drift
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord, read_records
from search_spaces.architecture import Architecture
from search_spaces.cost.kernels import kernel_fault
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

# One block of a protocol: a batch costs one reference more than measuring them all at once.
_BATCH = 8
# Candidates drawn from the space; the predicted front is theirs.
_POOL = 2000
CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Bench:
    """The device, meter and protocol to measure with.

    ``board`` and ``source`` are the device's name and the meter's source, as in readings;
    ``limits`` describes the board limits; it is empty if the board reports none.
    """

    device: str
    meter: str
    source: str
    board: str
    protocol: Protocol
    seed: int = 0
    limits: str = ""

    @property
    def place(self) -> str:
        """The device and its power limits; under other limits an item is measured again."""
        return f"{self.device} limited to {self.limits}" if self.limits else self.device


@dataclass(frozen=True, slots=True)
class ActiveTarget:
    """The space and workload to measure, and the bench to measure them on."""

    space: SearchSpace
    workload: Workload
    bench: Bench


@dataclass(frozen=True, slots=True)
class ActiveBatch:
    """A batch: the number measured before it, and interval widths near the front.

    ``width`` is the mean relative half-width of 90% intervals near the predicted front before
    the batch, ``expected_width`` the estimate after it; both are ``None`` while the first rows
    fill the space.
    """

    n_measured: int
    n_chosen: int
    width: float | None
    expected_width: float | None


@dataclass(frozen=True, slots=True)
class ActiveResult:
    """Measured, failed and pending items; ``width`` is as in ``ActiveBatch``."""

    items: tuple[PlanItem, ...]
    n_requested: int
    n_measured: int
    batches: tuple[ActiveBatch, ...]
    width: float | None
    basis: str
    is_exhausted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without the items."""
        return {
            "requested": self.n_requested,
            "measured": self.n_measured,
            "confidence": CONFIDENCE,
            "width_near_front": self.width,
            "basis": self.basis,
            "exhausted": self.is_exhausted,
            "batches": [asdict(batch) for batch in self.batches],
        }


def measure_actively(
    target: ActiveTarget,
    path: Path,
    n: int,
    measure: Callable[[Sequence[PlanItem], float | None], None],
    *,
    budget_s: float | None,
    retry_failed: bool,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> ActiveResult:
    """Measure in batches until the records at ``path`` contain ``n`` members of the space.

    ``measure`` measures items within a number of seconds and appends to ``path``. Candidates
    depend on the seed alone, so that a later command resumes with the same ones.

    Raises:
        ValueError: the space has no member that fits workload and device.
    """
    started_s = clock()
    state = _State(target, path, _pool(target))
    batches: list[ActiveBatch] = []
    batch: list[PlanItem] = []
    written_before = None
    while True:
        state.read(retry_failed=retry_failed)
        left_s = None if budget_s is None else budget_s - (clock() - started_s)
        size = min(_BATCH, n - len(state.measured), state.n_open)
        is_over = left_s is not None and left_s <= 0
        # A batch without a result exceeded the budget, as the next one would.
        if size < 1 or state.n_written == written_before or is_over:
            break
        written_before = state.n_written
        choice = state.choose(size)
        batches.append(
            ActiveBatch(len(state.measured), len(choice.rows), choice.width, choice.expected_width)
        )
        say(_expectation(batches[-1], n))
        batch = [state.item(state.candidates[row]) for row in choice.rows]
        state.tried |= {item.architecture.hash for item in batch}
        measure(batch, left_s)
    predictor = state.predictor()
    measured = [state.item(architecture) for architecture in state.measured]
    return ActiveResult(
        items=tuple(dict.fromkeys([*measured, *state.failed_items, *batch])),
        n_requested=n,
        n_measured=len(measured),
        batches=tuple(batches),
        width=state.width(predictor),
        basis=predictor.basis,
        is_exhausted=state.n_open == 0 and len(measured) < n,
    )


def _expectation(batch: ActiveBatch, n: int) -> str:
    done = f"active: {batch.n_measured} of {n} measured"
    if batch.width is None or batch.expected_width is None:
        return f"{done}; the next {batch.n_chosen} fill the space"
    return (
        f"{done}; intervals near the front ±{batch.width:.1%} on average, the next "
        f"{batch.n_chosen} should bring about ±{batch.expected_width:.1%} (estimate)"
    )


def _pool(target: ActiveTarget) -> list[Architecture]:
    """Draw distinct members of the space that fit workload and device."""
    rng = np.random.default_rng(target.bench.seed)
    pool: dict[str, Architecture] = {}
    for _ in range(4 * _POOL):
        drawn = sample(target.space, rng)
        if drawn.hash in pool or len(pool) >= _POOL:
            continue
        try:
            target.workload.check_fits(drawn)
        except ValueError:
            continue
        if kernel_fault(drawn, target.bench.device) is None:
            pool[drawn.hash] = drawn
    if not pool:
        raise ValueError(
            f"space {target.space.name!r} must have members that fit workload "
            f"{target.workload.key!r} on {target.bench.device}, found none"
        )
    return list(pool.values())


def _conditions(record: EnergyRecord) -> tuple[str, ...]:
    """Return the conditions under which joules compare: place, source, protocol and limits."""
    reading = record.reading
    return (reading.place, reading.source, reading.protocol_hash, reading.limits_text)


class _State:
    """Measured and failed architectures, and the remaining candidates."""

    def __init__(self, target: ActiveTarget, path: Path, pool: Sequence[Architecture]) -> None:
        self._target, self._path, self._pool = target, path, pool
        bench = target.bench
        self._plan = plan_items((), protocol=bench.protocol, device=bench.place)
        self._records: list[EnergyRecord] = []
        self.measured: list[Architecture] = []
        self.failed_items: list[PlanItem] = []
        # Measured architectures first, then the remaining candidates.
        self.candidates: list[Architecture] = []
        self.tried: set[str] = set()
        # Bytes of records and failures: a batch without a result does not change them.
        self.n_written = 0

    @property
    def n_open(self) -> int:
        """Number of remaining candidates."""
        return len(self.candidates) - len(self.measured)

    def item(self, architecture: Architecture) -> PlanItem:
        """Return the first measurement of an architecture on the workload."""
        return PlanItem(architecture, self._target.workload)

    def read(self, *, retry_failed: bool) -> None:
        """Read the records again and correct them for drift."""
        target, bench = self._target, self._target.bench
        conditions = (bench.board, bench.source, bench.protocol.hash, bench.limits)
        records = read_records(self._path).records if self._path.exists() else ()
        self._records, _ = correct_drift([r for r in records if _conditions(r) == conditions])
        measured = {
            record.architecture.hash: record.architecture
            for record in self._records
            if record.workload == target.workload and target.space.contains(record.architecture)
        }
        causes = read_failures(self._path)
        failed = {
            a.hash: self.item(a)
            for a in self._pool
            if a.hash not in measured and self._plan.key(self.item(a)) in causes
        }
        self.measured = list(measured.values())
        self.failed_items = list(failed.values())
        # Retry each earlier failure once.
        excluded = measured.keys() | (
            failed.keys() & self.tried if retry_failed else failed.keys()
        )
        self.candidates = [*self.measured, *(a for a in self._pool if a.hash not in excluded)]
        files = (self._path, failures_path(self._path))
        self.n_written = sum(file.stat().st_size for file in files if file.exists())

    def predictor(self) -> CostPredictor:
        """Fit a predictor to all records of the device and protocol, of any workload."""
        return CostPredictor.fit(
            [Observation.of_record(record) for record in self._records],
            seed=self._target.bench.seed,
            device=self._target.bench.device,
        )

    def choose(self, n: int) -> Choice:
        """Return the positions in ``candidates`` to measure next."""
        predictor = self.predictor()
        batch = ArchitectureBatch.of(self.candidates)
        rows = candidates_of(batch, self._target.workload, predictor)
        measured = range(len(self.measured))
        if len(measured) < FIRST_ROWS:
            n = min(n, FIRST_ROWS - len(measured))
            return first_rows(rows.features, n, measured=measured, basis=rows.basis)
        return next_rows(rows, self._interval(predictor, batch), n, measured=measured)

    def width(self, predictor: CostPredictor) -> float | None:
        """Return the mean interval width near the front; ``None`` before there is a model."""
        if predictor.regressor is None or not self.candidates:
            return None
        batch = ArchitectureBatch.of(self.candidates)
        rows = candidates_of(batch, self._target.workload, predictor)
        return width_near_front(rows.size, self._interval(predictor, batch))

    def _interval(self, predictor: CostPredictor, batch: ArchitectureBatch) -> Predictions:
        return predictor.predict(batch, self._target.workload, CONFIDENCE)
