"""``nas measure --active``: measure where the predictor is least certain, near the front."""

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
# Candidates drawn from the space; the predicted front is theirs.
_POOL = 2000
_CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Bench:
    """The device, meter and protocol of one command.

    ``board`` and ``source`` are the device's name and the meter's source, as in readings;
    ``limits`` are the board's power limits in words, empty if it reports none.
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
        """The device with its power limits: under others, an item is measured again."""
        return f"{self.device} limited to {self.limits}" if self.limits else self.device


@dataclass(frozen=True, slots=True)
class ActiveBench:
    """The space and workload to measure, and the bench to measure them on."""

    space: SearchSpace
    workload: Workload
    on: Bench


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
    n_asked: int
    n_measured: int
    batches: tuple[ActiveBatch, ...]
    width: float | None
    basis: str
    is_exhausted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without the items."""
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
    state = _State(bench, path, _pool(bench))
    batches: list[ActiveBatch] = []
    due: list[PlanItem] = []
    before = None
    while True:
        state.read(retry_failed=retry_failed)
        left_s = None if budget_s is None else budget_s - (clock() - started_s)
        wanted = min(_BATCH, n - len(state.measured), state.n_open)
        # A batch without a result ran out of time; the next one would too.
        if wanted < 1 or state.n_written == before or (left_s is not None and left_s <= 0):
            break
        before = state.n_written
        choice = state.choose(wanted)
        batches.append(
            ActiveBatch(len(state.measured), len(choice.rows), choice.width, choice.expected_width)
        )
        say(_expectation(batches[-1], n))
        due = [state.item(state.candidates[row]) for row in choice.rows]
        state.tried |= {item.architecture.hash for item in due}
        measure(due, left_s)
    predictor = state.predictor()
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
    """Render the number measured and the predictor's interval width."""
    lines = [f"active: {done.n_measured} of {done.n_asked} measured"]
    if done.is_exhausted:
        lines[0] += ", and no other candidate of the space is left"
    if done.width is not None:
        first = next((b.width for b in done.batches if b.width is not None), None)
        before = "" if first is None else f", ±{first:.1%} before"
        lines.append(
            f"prediction intervals near the front are ±{done.width:.1%} on average "
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


def _pool(bench: ActiveBench) -> list[Architecture]:
    """Draw distinct members of the space that fit workload and device."""
    import numpy as np

    from search_spaces.cost.kernels import kernel_fault
    from search_spaces.space.sampling import sample

    rng = np.random.default_rng(bench.on.seed)
    found: dict[str, Architecture] = {}
    for _ in range(4 * _POOL):
        drawn = sample(bench.space, rng)
        if drawn.hash in found or len(found) >= _POOL:
            continue
        try:
            bench.workload.check_fits(drawn)
        except ValueError:
            continue
        if kernel_fault(drawn, bench.on.device) is None:
            found[drawn.hash] = drawn
    if not found:
        raise ValueError(
            f"space {bench.space.name!r} must have members that fit workload "
            f"{bench.workload.key!r} on {bench.on.device}, found none"
        )
    return list(found.values())


class _State:
    """Measured and failed architectures, and the remaining candidates."""

    def __init__(self, bench: ActiveBench, path: Path, pool: Sequence[Architecture]) -> None:
        from predictors.campaign.plan import plan_items

        self._bench, self._path, self._pool = bench, path, pool
        self._naming: Plan = plan_items((), protocol=bench.on.protocol, device=bench.on.place)
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
        from predictors.campaign.plan import PlanItem

        return PlanItem(architecture, self._bench.workload)

    def read(self, *, retry_failed: bool) -> None:
        """Read the records again and correct them for drift."""
        from predictors.campaign.failures import failures_path, read_failures
        from predictors.measurement.drift import correct_drift
        from predictors.measurement.records import read_records

        bench = self._bench
        every = read_records(self._path).records if self._path.exists() else ()
        on = bench.on
        mine = (on.board, on.source, on.protocol.hash, on.limits)
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
        # Retry each earlier failure once.
        out = found.keys() | (failed.keys() & self.tried if retry_failed else failed.keys())
        self.candidates = [*self.measured, *(a for a in self._pool if a.hash not in out)]
        files = (self._path, failures_path(self._path))
        self.n_written = sum(file.stat().st_size for file in files if file.exists())

    def predictor(self) -> CostPredictor:
        """Fit a predictor to all records of the device and protocol, of any workload."""
        from predictors.energy.models import CostPredictor, Observation

        return CostPredictor.fit(
            [Observation.of_record(record) for record in self._records], seed=self._bench.on.seed
        )

    def choose(self, n: int) -> Choice:
        """Return the positions in ``candidates`` to measure next."""
        from predictors.energy.active import FIRST_ROWS, candidates_of, first_rows, next_rows
        from search_spaces.space.batch import ArchitectureBatch

        predictor = self.predictor()
        batch = ArchitectureBatch.of(self.candidates)
        rows = candidates_of(batch, self._bench.workload, predictor)
        measured = range(len(self.measured))
        if len(measured) < FIRST_ROWS:
            return first_rows(rows.features, min(n, FIRST_ROWS - len(measured)), measured=measured)
        return next_rows(rows, self._interval(predictor, batch), n, measured=measured)

    def width(self, predictor: CostPredictor) -> float | None:
        """Return the mean interval width near the front; ``None`` before there is a model."""
        from predictors.energy.active import candidates_of, width_near_front
        from search_spaces.space.batch import ArchitectureBatch

        if predictor.regressor is None or not self.candidates:
            return None
        batch = ArchitectureBatch.of(self.candidates)
        rows = candidates_of(batch, self._bench.workload, predictor)
        return width_near_front(rows.size, self._interval(predictor, batch))

    def _interval(self, predictor: CostPredictor, batch: ArchitectureBatch) -> Predictions:
        return predictor.predict(batch, self._bench.workload, _CONFIDENCE)
