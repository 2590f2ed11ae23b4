"""``nas measure --active``: what to measure is chosen by what the predictor does not know yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictors.campaign.plan import Plan, PlanItem
    from predictors.energy.active import Choice
    from predictors.energy.models import CostPredictor
    from predictors.energy.regressor import Predictions
    from predictors.measurement.protocol import Protocol
    from predictors.measurement.records import EnergyRecord
    from search_spaces.architecture import Architecture
    from search_spaces.space import SearchSpace
    from search_spaces.space.batch import ArchitectureBatch
    from search_spaces.workload import Workload

# One block of a protocol: a batch costs one reference more than measuring them all at once.
_BATCH = 8
# Members of the space that are candidates; the front is looked for among them.
_POOL = 2000
_CONFIDENCE = 0.9


def place_of(device: str, limits: str) -> str:
    """``device`` under ``limits`` of its board: joules under others are measured anew."""
    return f"{device} limited to {limits}" if limits else device


@dataclass(frozen=True, slots=True)
class ActiveBench:
    """What is measured and on what; ``source`` and ``board`` are a reading's source and device.

    ``limits`` are those of the board in words, empty where it reports none.
    """

    space: SearchSpace
    workload: Workload
    protocol: Protocol
    device: str
    meter: str
    source: str
    board: str
    limits: str = ""

    @property
    def place(self) -> str:
        """The device under the limits of its board, by which items are known as measured."""
        return place_of(self.device, self.limits)


@dataclass(frozen=True, slots=True)
class ActiveBatch:
    """One batch: how many were measured before it, and the widths near the front.

    ``width`` is the mean relative half-width of 90% intervals near the predicted front before
    the batch, ``expected_width`` what the design expected after it, an estimate; ``None`` while
    the first rows fill the space.
    """

    n_measured: int
    n_chosen: int
    width: float | None
    expected_width: float | None


@dataclass(frozen=True, slots=True)
class ActiveResult:
    """Items that were asked for, and how far it came; ``width`` is as in ``ActiveBatch``."""

    items: tuple[PlanItem, ...]
    n_asked: int
    n_measured: int
    batches: tuple[ActiveBatch, ...]
    width: float | None
    basis: str
    is_exhausted: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the items."""
        return {
            "asked": self.n_asked,
            "measured": self.n_measured,
            "confidence": _CONFIDENCE,
            "width_near_front": self.width,
            "basis": self.basis,
            "exhausted": self.is_exhausted,
            "batches": [asdict(batch) for batch in self.batches],
        }


def measure_actively(
    bench: ActiveBench,
    path: Path,
    n: int,
    measure: Callable[[Sequence[PlanItem], float | None], None],
    *,
    seed: int,
    budget_s: float | None,
    retry_failed: bool,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> ActiveResult:
    """Measure batch by batch until the records at ``path`` hold ``n`` members of the space.

    ``measure`` measures items within some seconds and appends to ``path``. Candidates are drawn
    anew from ``seed``, so that a later command chooses among the same ones.

    Raises:
        ValueError: the space has no member that fits workload and device.
    """
    started_s = clock()
    state = _State(bench, path, _pool(bench, seed))
    batches: list[ActiveBatch] = []
    due: list[PlanItem] = []
    before = None
    while True:
        state.read(retry_failed=retry_failed)
        left_s = None if budget_s is None else budget_s - (clock() - started_s)
        wanted = min(_BATCH, n - len(state.measured), state.n_open)
        # A batch that left no trace was out of time: the next one would be too.
        if wanted < 1 or state.n_written == before or (left_s is not None and left_s <= 0):
            break
        before = state.n_written
        choice = state.choose(wanted, seed)
        batches.append(
            ActiveBatch(len(state.measured), len(choice.rows), choice.width, choice.expected_width)
        )
        say(_expectation(batches[-1], n))
        due = [state.item(state.candidates[row]) for row in choice.rows]
        state.tried |= {item.architecture.hash for item in due}
        measure(due, left_s)
    predictor = state.predictor(seed)
    measured = [state.item(architecture) for architecture in state.measured]
    return ActiveResult(
        items=tuple(dict.fromkeys([*measured, *state.failed_items, *due])),
        n_asked=n,
        n_measured=len(measured),
        batches=tuple(batches),
        width=state.width(predictor),
        basis=predictor.basis,
        is_exhausted=state.n_open == 0 and len(measured) < n,
    )


def render_active(done: ActiveResult) -> str:
    """How far it came, and how sure the predictor is."""
    lines = [f"active: {done.n_measured} of {done.n_asked} measured"]
    if done.is_exhausted:
        lines[0] += ", and no other candidate of the space is left"
    if done.width is not None:
        first = next((b.width for b in done.batches if b.width is not None), None)
        before = "" if first is None else f", ±{first:.1%} before"
        lines.append(
            f"predicted joules near the front are known to ±{done.width:.1%} on average "
            f"({_CONFIDENCE:.0%} intervals{before}); {done.basis}"
        )
    return "\n".join(lines)


def _expectation(batch: ActiveBatch, n: int) -> str:
    done = f"active: {batch.n_measured} of {n} measured"
    if batch.width is None or batch.expected_width is None:
        return f"{done}; the next {batch.n_chosen} fill the space"
    return (
        f"{done}; intervals near the front ±{batch.width:.1%} on average, the next "
        f"{batch.n_chosen} should bring about ±{batch.expected_width:.1%} (estimate)"
    )


def _pool(bench: ActiveBench, seed: int) -> list[Architecture]:
    """Different members of the space that fit workload and device."""
    import numpy as np

    from search_spaces.cost.kernels import kernel_fault
    from search_spaces.space.sampling import sample

    rng = np.random.default_rng(seed)
    found: dict[str, Architecture] = {}
    for _ in range(4 * _POOL):
        drawn = sample(bench.space, rng)
        if drawn.hash in found or len(found) >= _POOL:
            continue
        try:
            bench.workload.check_fits(drawn)
        except ValueError:
            continue
        if kernel_fault(drawn, bench.device) is None:
            found[drawn.hash] = drawn
    if not found:
        raise ValueError(
            f"space {bench.space.name!r} must have members that fit workload "
            f"{bench.workload.key!r} on {bench.device}, found none"
        )
    return list(found.values())


class _State:
    """What is measured, what failed, and what can be chosen."""

    def __init__(self, bench: ActiveBench, path: Path, pool: Sequence[Architecture]) -> None:
        from predictors.campaign.plan import plan_items

        self._bench, self._path, self._pool = bench, path, pool
        self._naming: Plan = plan_items((), protocol=bench.protocol, device=bench.place)
        self._records: list[EnergyRecord] = []
        self.measured: list[Architecture] = []
        self.failed_items: list[PlanItem] = []
        # Measured ones first, then those of the pool that can still be chosen.
        self.candidates: list[Architecture] = []
        self.tried: set[str] = set()
        # Bytes of records and failures: a batch that ends nothing leaves them as they were.
        self.n_written = 0

    @property
    def n_open(self) -> int:
        """How many candidates are left to choose."""
        return len(self.candidates) - len(self.measured)

    def item(self, architecture: Architecture) -> PlanItem:
        """The first measurement of an architecture on the workload."""
        from predictors.campaign.plan import PlanItem

        return PlanItem(architecture, self._bench.workload)

    def read(self, *, retry_failed: bool) -> None:
        """Read the records anew, corrected for drift."""
        from predictors.campaign.failures import failures_path, read_failures
        from predictors.measurement.drift import correct_drift
        from predictors.measurement.records import read_records

        bench = self._bench
        every = read_records(self._path).records if self._path.exists() else ()
        mine = (bench.board, bench.source, bench.protocol.hash, bench.limits)
        alike = [
            r
            for r in every
            if (
                r.reading.device,
                r.reading.source,
                r.reading.protocol_hash,
                r.reading.limits_text,
            )
            == mine
        ]
        self._records, _ = correct_drift(alike)
        found = {
            record.architecture.hash: record.architecture
            for record in self._records
            if record.workload == bench.workload and bench.space.contains(record.architecture)
        }
        causes = read_failures(self._path)
        failed = {
            a.hash: self.item(a)
            for a in self._pool
            if a.hash not in found and self._naming.key(self.item(a)) in causes
        }
        self.measured = list(found.values())
        self.failed_items = list(failed.values())
        # What failed before this command may be tried again, once.
        out = found.keys() | (failed.keys() & self.tried if retry_failed else failed.keys())
        self.candidates = [*self.measured, *(a for a in self._pool if a.hash not in out)]
        files = (self._path, failures_path(self._path))
        self.n_written = sum(file.stat().st_size for file in files if file.exists())

    def predictor(self, seed: int) -> CostPredictor:
        """Fitted to all records of the device and protocol, whatever their workload."""
        from predictors.energy.models import CostPredictor, Observation

        return CostPredictor.fit(
            [Observation.of_record(record) for record in self._records], seed=seed
        )

    def choose(self, n: int, seed: int) -> Choice:
        """Positions in ``candidates`` to measure next."""
        from predictors.energy.active import FIRST_ROWS, candidates_of, first_rows, next_rows
        from search_spaces.space.batch import ArchitectureBatch

        predictor = self.predictor(seed)
        batch = ArchitectureBatch.of(self.candidates)
        rows = candidates_of(batch, self._bench.workload, predictor)
        measured = range(len(self.measured))
        if len(measured) < FIRST_ROWS:
            return first_rows(rows.features, min(n, FIRST_ROWS - len(measured)), measured=measured)
        return next_rows(rows, self._interval(predictor, batch), n, measured=measured)

    def width(self, predictor: CostPredictor) -> float | None:
        """Mean width near the front among all candidates; ``None`` before there is a model."""
        from predictors.energy.active import candidates_of, width_near_front
        from search_spaces.space.batch import ArchitectureBatch

        if predictor.regressor is None or not self.candidates:
            return None
        batch = ArchitectureBatch.of(self.candidates)
        rows = candidates_of(batch, self._bench.workload, predictor)
        return width_near_front(rows.size, self._interval(predictor, batch))

    def _interval(self, predictor: CostPredictor, batch: ArchitectureBatch) -> Predictions:
        return predictor.predict(batch, self._bench.workload, _CONFIDENCE)
