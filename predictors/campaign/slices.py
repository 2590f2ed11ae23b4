"""Work through a plan for as long as there is time; what is measured is on disk at once.

Resuming is reading the records: an item whose key is there is done. Items that failed are kept in
a file beside the records and left out too, unless asked for again.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Protocol as Interface

from predictors.campaign.plan import Plan, PlanItem
from predictors.campaign.process import MeasureError, MeasureTimeout
from predictors.campaign.records import EnergyRecord, Role, append_records, read_records

# Failures in a row after which the fault is the device's and not the architectures'.
_MAX_FAILURES_IN_A_ROW = 5


class MeasureItem(Interface):
    """Measures one item in a fresh process, with a protocol that is not its business here."""

    def __call__(self, item: PlanItem, timeout_s: float | None, /) -> EnergyRecord:
        """The record, or ``MeasureError``; ``MeasureTimeout`` after ``timeout_s`` at most."""
        ...


class SliceListener(Interface):
    """Hears of each measurement that ends."""

    def on_item(
        self, progress: SliceProgress, item: PlanItem, role: Role, result: EnergyRecord | str
    ) -> None:
        """``result`` is a record, or why there is none."""
        ...


@dataclass(frozen=True, slots=True)
class SliceProgress:
    """How far a plan is. ``eta_s`` is to the plan's end, ``None`` before the first item."""

    done: int
    failed: int
    total: int
    eta_s: float | None


def pending_items(plan: Plan, path: Path, *, retry_failed: bool = False) -> list[PlanItem]:
    """What of ``plan`` is not in the records at ``path`` yet, in order of priority.

    Raises:
        ValueError: the file holds what is no record; names file and line.
    """
    done = {record.item for record in read_records(path).records} if path.exists() else set()
    if not retry_failed:
        done |= read_failures(path).keys()
    return [item for item in plan.items if plan.key(item) not in done]


def run_slice(
    plan: Plan,
    path: Path,
    measure: MeasureItem,
    *,
    budget_s: float | None = None,
    ahead: int = 0,
    retry_failed: bool = False,
    listener: SliceListener | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SliceProgress:
    """Measure what is pending, best first, and append each record to ``path``.

    No item is started that would, at the median pace so far, end after ``budget_s``, and what
    does not end by then after all is broken off and stays pending. ``ahead``
    items are started early, so that their imports overlap another's windows (the device's lock
    keeps windows apart).

    Raises:
        MeasureError: the reference, or several items in a row, failed.
        ValueError: the file holds what is no record.
    """
    pending = deque(pending_items(plan, path, retry_failed=retry_failed))
    deadline_s = None if budget_s is None else clock() + budget_s
    state = _Slice(plan, path, listener, clock, len(pending), deadline_s)
    block_size = plan.protocol.block_size
    with ThreadPoolExecutor(max_workers=1 + ahead) as pool:
        running: deque[tuple[PlanItem, Role, Future[EnergyRecord]]] = deque()
        since_reference = block_size
        last_was_reference = True
        try:
            while pending or running:
                while pending and len(running) <= ahead:
                    # One for the item and one for the reference that closes its block.
                    if state.is_late(2 + len(running)):
                        pending.clear()
                        break
                    if plan.reference is not None and since_reference >= block_size:
                        item, role = plan.reference, _REFERENCE
                        since_reference = 0
                    else:
                        item, role = pending.popleft(), _CANDIDATE
                        since_reference += 1
                    last_was_reference = role == "reference"
                    running.append((item, role, pool.submit(state.start, measure, item)))
                if running:
                    state.take(*running[0])
                    running.popleft()
            if plan.reference is not None and not last_was_reference and not state.is_late(1):
                # Closes the last block, so that its candidates have a neighbour on both sides.
                closing = pool.submit(state.start, measure, plan.reference)
                state.take(plan.reference, _REFERENCE, closing)
        except KeyboardInterrupt:
            for item, role, future in running:
                if not future.cancel():
                    # Half measured already: what it cost is kept. A second Ctrl-C ends it.
                    state.take(item, role, future)
            raise
        except MeasureError:
            for _, _, future in running:
                future.cancel()
            raise
    return state.progress()


_REFERENCE: Role = "reference"
_CANDIDATE: Role = "candidate"


class _Slice:
    """What happened so far in one run of the command."""

    def __init__(
        self,
        plan: Plan,
        path: Path,
        listener: SliceListener | None,
        clock: Callable[[], float],
        n_pending: int,
        deadline_s: float | None,
    ) -> None:
        self._plan, self._path, self._listener, self._clock = plan, path, listener, clock
        self._session = uuid.uuid4().hex[:12]
        self._deadline_s = deadline_s
        self._order = 0
        self._reference = ""
        self._failed_in_a_row = 0
        self._n_pending, self._n_ended, self._n_failed = n_pending, 0, 0
        self._last_end_s = clock()
        self._intervals_s: list[float] = []

    @property
    def pace_s(self) -> float:
        """Median seconds from one measurement's end to the next's; 0 before the first.

        Not from start to end: what is started ahead waits for the device meanwhile.
        """
        return median(self._intervals_s) if self._intervals_s else 0.0

    def is_late(self, n: int) -> bool:
        """Whether ``n`` more measurements would not end in time."""
        left_s = self._left_s()
        return left_s is not None and (left_s <= 0 or self.pace_s * n > left_s)

    def _left_s(self) -> float | None:
        return None if self._deadline_s is None else self._deadline_s - self._clock()

    def start(self, measure: MeasureItem, item: PlanItem) -> EnergyRecord:
        left_s = self._left_s()
        return measure(item, None if left_s is None else max(0.0, left_s))

    def take(self, item: PlanItem, role: Role, future: Future[EnergyRecord]) -> None:
        result: EnergyRecord | str
        try:
            record = replace(
                future.result(),
                item=self._plan.key(item) if role == _CANDIDATE else "",
                role=role,
                session=self._session,
                order=self._order,
                reference=self._reference,
            )
            append_records(self._path, [record])
            if role == _REFERENCE:
                self._reference = record.job
            if role == _CANDIDATE:
                self._failed_in_a_row = 0
            result = record
        except MeasureError as error:
            if isinstance(error, MeasureTimeout) and self.is_late(0):
                # The slice is over and not the item's fault: it stays pending.
                return
            result = str(error)
            self._failed_in_a_row += 1
            if role == _REFERENCE or self._failed_in_a_row >= _MAX_FAILURES_IN_A_ROW:
                raise
            _append_failure(self._path, self._plan.key(item), item, result)
        now_s = self._clock()
        self._intervals_s.append(now_s - self._last_end_s)
        self._last_end_s = now_s
        self._order += 1
        if role == _CANDIDATE:
            self._n_ended += 1
            self._n_failed += isinstance(result, str)
        if self._listener is not None:
            self._listener.on_item(self.progress(), item, role, result)

    def progress(self) -> SliceProgress:
        total = len(self._plan.items)
        left = self._n_pending - self._n_ended
        block_size = self._plan.protocol.block_size
        references = 1 + 1 / block_size if self._plan.reference is not None else 1.0
        return SliceProgress(
            done=total - left - self._n_failed,
            failed=self._n_failed,
            total=total,
            eta_s=left * self.pace_s * references if self._intervals_s else None,
        )


def failures_path(path: Path) -> Path:
    """Where failures of the records at ``path`` are kept."""
    return path.with_name(f"{path.stem}.failures.jsonl")


def read_failures(path: Path) -> dict[str, str]:
    """Keys of items that failed and why, of the records at ``path``."""
    causes = {}
    beside = failures_path(path)
    for line in beside.read_text(encoding="utf-8").splitlines() if beside.exists() else ():
        try:
            data = json.loads(line)
            causes[str(data["item"])] = str(data["cause"])
        except (ValueError, LookupError, TypeError, RecursionError):
            # A line cut off by a kill: its item is tried again.
            continue
    return causes


def _append_failure(path: Path, key: str, item: PlanItem, cause: str) -> None:
    line = {
        "item": key,
        "architecture": item.architecture.to_dict(),
        "workload": item.workload.key,
        "cause": cause,
    }
    with failures_path(path).open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")
