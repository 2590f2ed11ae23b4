"""Run a slice of a campaign: measure pending items within a time budget.

Each record is on disk before the next measurement. A later slice resumes from the records: an item
whose key occurs there is done. Failed items are in a file beside the records and are not repeated
unless ``retry_failed`` is set. A slice continues after failures with items that share nothing with
the failed one (``campaign.pending``). A failure is written only once another measurement
succeeded, because a lost device is not the item's fault.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Protocol as Interface

from predictors.campaign.failures import (
    Failure,
    append_failure,
    compression_choices,
    read_failures,
    reason_of,
    set_aside_choices,
)
from predictors.campaign.pending import (
    PendingItems,
    is_reference_of,
    pending_items,
    working_choices,
)
from predictors.campaign.plan import Plan, PlanItem
from predictors.measurement.process import MeasureError, MeasureInterrupted, MeasureTimeout
from predictors.measurement.records import EnergyRecord, Role, append_records, read_records

# After this many consecutive failures the reference tests whether the device works.
_MAX_FAILURES_IN_A_ROW = 5
# Assumed seconds of a failure in an earlier slice.
_LOST_S = {"timeout": 60.0, "kernel": 10.0, "other": 10.0}
# Time limit of an item: the larger of this share of the slice's remaining seconds and this
# multiple of its expected seconds. Even if several items hang, time is left for others.
_MOST_SHARE, _MOST_TIMES = 1 / 4, 2.0


class MeasureItem(Interface):
    """Callable that measures one item in a fresh process by the plan's protocol."""

    def __call__(self, item: PlanItem, timeout_s: float | None, /) -> EnergyRecord:
        """Return the record, or raise ``MeasureError``; ``MeasureTimeout`` after ``timeout_s``."""


class SliceListener(Interface):
    """Callback at the end of each measurement."""

    def on_item(
        self, progress: SliceProgress, item: PlanItem, role: Role, result: EnergyRecord | str
    ) -> None:
        """Handle ``result``: a record, or the cause of the failure."""


@dataclass(frozen=True, slots=True)
class SliceProgress:
    """Progress of a plan. ``eta_s`` is the time to its end, ``None`` before the first item.

    ``set_aside`` counts items that are omitted because one of their kernels failed.
    """

    done: int
    failed: int
    total: int
    eta_s: float | None
    set_aside: int = 0


@dataclass(frozen=True, slots=True)
class SliceOptions:
    """Options of a slice.

    An item is started only if it would end within ``budget_s`` at the median pace so far. An item
    that still runs at the end is aborted and stays pending. ``item_s`` returns the expected
    seconds of an item, if items differ. ``ahead`` items are started early, so that their imports
    overlap another's windows (the device's lock keeps windows apart). With ``sets_aside``, failed
    kernels are not retried (``campaign.failures``).
    """

    budget_s: float | None = None
    ahead: int = 0
    retry_failed: bool = False
    sets_aside: bool = False
    item_s: Callable[[PlanItem], float] | None = None


def run_slice(
    plan: Plan,
    path: Path,
    measure: MeasureItem,
    options: SliceOptions = SliceOptions(),  # noqa: B008  (frozen)
    *,
    listener: SliceListener | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SliceProgress:
    """Measure pending items in order of priority and append each record to ``path``.

    Failures do not end a slice, unless it has no ``budget_s`` and the reference fails as well.

    Raises:
        MeasureError: nothing could be measured, not even the reference; this is the first cause.
        OSError: a record could not be written, for example because the disk is full.
        ValueError: a line of the file is not a record.
    """
    state = _Slice(plan, path, options, listener, clock)
    with ThreadPoolExecutor(max_workers=1 + options.ahead) as pool:
        underway: deque[tuple[_Running, Future[EnergyRecord]]] = deque()
        try:
            while True:
                while len(underway) <= state.ahead and (one := state.following()) is not None:
                    underway.append((one, pool.submit(state.start, measure, one)))
                if not underway:
                    break
                state.take(*underway[0])
                underway.popleft()
        except KeyboardInterrupt:
            for one, future in underway:
                if state.is_underway(one) and not future.cancel():
                    # Finish it, since part of its cost is spent. A second Ctrl-C aborts it.
                    state.take(one, future)
            raise
        except (MeasureError, OSError):
            for _, future in underway:
                future.cancel()
            raise
    state.check()
    return state.progress()


_REFERENCE: Role = "reference"
_CANDIDATE: Role = "candidate"


@dataclass(slots=True)
class _Running:
    """A measurement under way; ``started_s`` is set once its process starts."""

    item: PlanItem
    role: Role
    cost_s: float
    started_s: float = 0.0


class _Slice:
    """State of one run of the command."""

    def __init__(
        self,
        plan: Plan,
        path: Path,
        options: SliceOptions,
        listener: SliceListener | None,
        clock: Callable[[], float],
    ) -> None:
        """Read the records and failures of earlier slices at ``path``."""
        self._plan, self._path, self._options = plan, path, options
        self._listener, self._clock = listener, clock
        records = read_records(path).records if path.exists() else ()
        items = pending_items(
            plan, path, retry_failed=options.retry_failed, sets_aside=options.sets_aside
        )
        self._pending = PendingItems(items)
        before = {} if options.retry_failed else read_failures(path)
        self._failures = list(before.values())
        self._working = working_choices(records)
        by_key = {plan.key(item): item for item in plan.items}
        keys = by_key.keys()
        done = keys & {record.item for record in records}
        # Kinds that failed in earlier slices, and never worked, come last here as well.
        for key in keys & before.keys():
            self._pending.on_failure(by_key[key], _LOST_S[before[key].reason])
        for key in done:
            self._pending.on_success(by_key[key])
        self._n_done, self._n_failed = len(done), len(keys & before.keys() - done)
        self._n_set_aside = len(keys) - len(items) - self._n_done - self._n_failed
        self._deadline_s = None if options.budget_s is None else clock() + options.budget_s
        self._session, self._order, self._reference = uuid.uuid4().hex[:12], 0, ""
        self._n_references = sum(is_reference_of(plan, record) for record in records)
        # A slice begins with a reference; ``_is_closed`` is false while the last block needs one.
        self._since_reference, self._is_closed = plan.protocol.block_size, True
        self._n_records = self._n_candidates = 0
        self._failed_in_a_row = self._failed_references = 0
        self._unconfirmed: list[tuple[PlanItem, Failure]] = []
        self._first_error: MeasureError | None = None
        self._last_end_s, self._last_timeout_s = clock(), -math.inf
        self._paces: list[float] = []
        self._underway: list[_Running] = []

    @property
    def ahead(self) -> int:
        """Number of items to start early: 0 after a failure, which may be the device's."""
        return 0 if self._failed_in_a_row or not self._n_records else self._options.ahead

    def following(self) -> _Running | None:
        """Return the next measurement, ``None`` if no pending item would end in time."""
        reference = self._plan.reference
        is_due = reference is not None and self._since_reference >= self._block_size()
        # The first candidate takes precedence over the reference that would close its block.
        n_reserved = is_due + (reference is not None and self._n_candidates > 0)
        reserved_s = 0.0 if reference is None else self._cost_s(reference) * n_reserved

        def fits(item: PlanItem) -> bool:
            return self._is_in_time(self._cost_s(item) + reserved_s)

        is_device = reference is not None and self._n_records == 0
        if is_device and self._deadline_s is not None and not self._pending.any(fits):
            # Nothing succeeded so far, so the device may be at fault: retry the failed items.
            self._unconfirmed = [
                (item, why) for item, why in self._unconfirmed if not self._pending.put_back(item)
            ]
        is_over = not self._pending.any(fits)
        if reference is not None and (is_due if not is_over else not self._is_closed):
            if is_over and not self._is_in_time(self._cost_s(reference)):
                return None
            # Close the last block, so that its candidates have a reference on both sides.
            self._since_reference, self._is_closed = 0, True
            return self._begin(reference, _REFERENCE)
        item = self._pending.take(fits)
        if item is None:
            return None
        self._since_reference, self._is_closed = self._since_reference + 1, False
        return self._begin(item, _CANDIDATE)

    def start(self, measure: MeasureItem, running: _Running) -> EnergyRecord:
        """Measure within the slice's remaining time."""
        running.started_s = self._clock()
        left_s = self._left_s()
        if left_s is None:
            return measure(running.item, None)
        limit_s = max(0.0, left_s)
        if self._options.item_s is not None:
            most_s = _MOST_TIMES * self._options.item_s(running.item)
            limit_s = min(limit_s, max(limit_s * _MOST_SHARE, most_s))
        return measure(running.item, limit_s)

    def take(self, running: _Running, future: Future[EnergyRecord]) -> None:
        """Store the result of a measurement."""
        result: EnergyRecord | str
        try:
            record = future.result()
        except MeasureError as error:
            self._underway.remove(running)
            if not self._on_error(running, error):
                return
            result = str(error)
        else:
            self._underway.remove(running)
            result = replace(
                record,
                item=self._plan.key(running.item) if running.role == _CANDIDATE else "",
                role=running.role,
                session=self._session,
                order=self._order,
                reference=self._reference,
            )
            append_records(self._path, [result])
            self._on_record(running, result)
        self._order += 1
        if self._listener is not None:
            self._listener.on_item(self.progress(), running.item, running.role, result)

    def is_underway(self, running: _Running) -> bool:
        """Return whether ``take`` has not stored its result yet."""
        return running in self._underway

    def check(self) -> None:
        """Raise the first error if nothing was measured and the device may be at fault."""
        if self._n_records or self._first_error is None:
            return
        if self._plan.reference is not None:
            raise self._first_error
        self._write_failures()

    def progress(self) -> SliceProgress:
        """Return the progress of the plan."""
        block_size = self._plan.protocol.block_size
        references = 1 + 1 / block_size if self._plan.reference is not None else 1.0
        left_s = sum(map(self._cost_s, self._pending)) + sum(r.cost_s for r in self._underway)
        return SliceProgress(
            done=self._n_done,
            failed=self._n_failed + len(self._unconfirmed),
            total=len(self._plan.items),
            eta_s=left_s * references if self._paces else None,
            set_aside=self._n_set_aside,
        )

    def _begin(self, item: PlanItem, role: Role) -> _Running:
        running = _Running(item, role, self._cost_s(item))
        self._underway.append(running)
        return running

    def _on_record(self, running: _Running, record: EnergyRecord) -> None:
        self._n_records += 1
        self._failed_in_a_row = 0
        if running.role == _REFERENCE:
            self._n_references, self._failed_references = self._n_references + 1, 0
            self._reference = record.job
        else:
            self._n_done, self._n_candidates = self._n_done + 1, self._n_candidates + 1
            self._pending.on_success(running.item)
            self._working |= set(compression_choices(record.architecture))
        now_s = self._clock()
        # From end to end, because items started ahead wait for the device.
        self._paces.append((now_s - self._last_end_s) / self._expected_s(running.item))
        self._last_end_s = now_s
        self._write_failures()

    def _on_error(self, running: _Running, error: MeasureError) -> bool:
        """Handle a failure; return false if the item merely ran out of time."""
        now_s = self._last_end_s = self._clock()
        if isinstance(error, MeasureTimeout):
            left_s = self._left_s()
            if left_s is not None and left_s <= 0:
                # The slice ended, so the item stays pending.
                return False
            waited = running.started_s < self._last_timeout_s
            self._last_timeout_s = now_s
            if waited and running.role == _CANDIDATE and self._pending.put_back(running.item):
                # It waited for the device, which another item held until its timeout.
                return False
        self._first_error = self._first_error or error
        self._failed_in_a_row += 1
        self._pending.on_failure(running.item, now_s - running.started_s)
        if running.role == _REFERENCE:
            self._on_failed_reference(error)
            return True
        if isinstance(error, MeasureInterrupted) and self._pending.put_back(running.item):
            return True
        item = running.item
        choices = compression_choices(item.architecture)
        why = Failure(self._plan.key(item), str(error), reason_of(error), choices)
        self._unconfirmed.append((item, why))
        if self._n_records and self._failed_in_a_row < _MAX_FAILURES_IN_A_ROW:
            self._write_failures()
        elif self._failed_in_a_row % _MAX_FAILURES_IN_A_ROW == 0:
            # Let the reference test whether the device works.
            self._since_reference = self._plan.protocol.block_size
        return True

    def _on_failed_reference(self, error: MeasureError) -> None:
        self._failed_references += 1
        # Retry after more candidates each time, and after many if it timed out.
        more = 3 if isinstance(error, MeasureTimeout) else 1
        self._since_reference = self._block_size() - 2 ** (more + self._failed_references)
        is_dead = self._failed_in_a_row > _MAX_FAILURES_IN_A_ROW
        if self._deadline_s is None and is_dead and self._failed_references > 1:
            raise error

    def _write_failures(self) -> None:
        """Write the failures to disk, after another measurement succeeded."""
        for item, failure in self._unconfirmed:
            append_failure(self._path, item, failure)
            self._failures.append(failure)
        self._n_failed += len(self._unconfirmed)
        self._unconfirmed = []
        if self._options.sets_aside:
            choices = set_aside_choices(self._failures, self._working)
            self._n_set_aside += self._pending.leave_out(choices)

    def _block_size(self) -> int:
        """Return the number of candidates between references, smaller for the first ones."""
        block_size = self._plan.protocol.block_size
        if self._n_references < self._plan.n_references:
            return max(1, block_size // 2)
        return block_size

    def _expected_s(self, item: PlanItem) -> float:
        return 1.0 if self._options.item_s is None else self._options.item_s(item)

    def _cost_s(self, item: PlanItem) -> float:
        """Return the expected seconds at the median pace so far, 0 if unknown."""
        unknown = 0.0 if self._options.item_s is None else 1.0
        return self._expected_s(item) * (median(self._paces) if self._paces else unknown)

    def _is_in_time(self, seconds: float) -> bool:
        left_s = self._left_s()
        if left_s is None:
            return True
        return left_s > 0 and seconds + sum(r.cost_s for r in self._underway) <= left_s

    def _left_s(self) -> float | None:
        return None if self._deadline_s is None else self._deadline_s - self._clock()
