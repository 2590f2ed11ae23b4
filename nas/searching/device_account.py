"""Account of the device's joules during a search, idle time included.

Trials record the joules of training and measuring. Only the device's own counter includes the
rest (waiting, loading, compiling). The driver reads it each time a trial ends and appends the
reading to ``device.jsonl``.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from nas.core.files import append_whole
from nas.core.retry import is_os_error, persist
from nas.store.cluster_address import LOCAL
from predictors.meters.base import Meter, MeterError
from predictors.meters.select import choose_meter

if TYPE_CHECKING:
    from nas.records.trial import Trial
    from nas.searching.controller.session import Listener, Snapshot
    from nas.store.run import Run

_ENDED = ("complete", "stopped", "failed")


class DeviceAccount:
    """``Listener`` that writes the account and forwards every call to another listener.

    Without a meter, or with one that only estimates, the account is not written.
    """

    def __init__(self, path: Path, meter: Meter | None, listener: Listener | None) -> None:
        """Append readings to ``path``; the account closes ``meter``."""
        self._path, self._listener = path, listener
        self._meter = None if meter is None or meter.is_estimate else meter
        if meter is not None and self._meter is None:
            meter.close()
        if self._meter is not None:
            self._meter.count_joules_only()

    def __enter__(self) -> DeviceAccount:
        """Start the first interval."""
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the last interval, unless storage failed."""
        if not isinstance(error, OSError):
            self._end()
        if self._meter is not None:
            self._meter.close()

    def on_change(self, snapshot: Snapshot, record: Trial | None) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if record is not None and record.state in _ENDED:
            self._end()
            self._begin()
        if self._listener is not None:
            self._listener.on_change(snapshot, record)

    def on_teacher(self, epoch: int, epochs: int) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if self._listener is not None:
            self._listener.on_teacher(epoch, epochs)

    def on_supernet(self, epoch: int, epochs: int) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if self._listener is not None:
            self._listener.on_supernet(epoch, epochs)

    def on_refine(self, done: int, total: int) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        self._end()
        self._begin()
        if self._listener is not None:
            self._listener.on_refine(done, total)

    def on_wait(self, reason: str) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if self._listener is not None:
            self._listener.on_wait(reason)

    def _begin(self) -> None:
        if self._meter is not None:
            try:
                self._meter.begin(_pause)
            except MeterError as error:
                self._record_loss(error)

    def _end(self) -> None:
        if self._meter is not None:
            try:
                window = self._meter.end(_pause)
            except MeterError as error:
                self._record_loss(error)
            else:
                self._append({"energy_j": window.energy_j, "duration_s": window.duration_s})

    def _record_loss(self, error: MeterError) -> None:
        """Record that the sensor was lost, which leaves the total unknown, and stop reading."""
        self._append({"lost": str(error)})
        if self._meter is not None:
            self._meter.close()
        self._meter = None

    def _append(self, line: dict[str, float | str]) -> None:
        data = json.dumps(line).encode() + b"\n"
        persist(lambda: self._append_once(data), is_os_error, place=self._path)

    def _append_once(self, data: bytes) -> None:
        with self._path.open("ab", buffering=0) as handle:
            append_whole(handle, data, handle.seek(0, os.SEEK_END))


def device_energy_j(path: Path) -> float | None:
    """Return the device's joules over a whole search, ``None`` if a reading is missing."""
    if not path.is_file():
        return None
    total_j = 0.0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            total_j += float(json.loads(line)["energy_j"])
        except (ValueError, LookupError, TypeError, RecursionError):
            # A lost sensor, or a line truncated when the driver was killed.
            return None
    return total_j


def watched_meter(run: Run) -> Meter | None:
    """Return a meter of the training device, ``None`` without one or on a remote cluster."""
    if run.driver.address != LOCAL:
        return None
    if not run.config.measure_on:
        return choose_meter(run.meter, run.config.device)
    try:
        return choose_meter(None, run.config.device)
    except MeterError:
        # The training device needs no meter if trials are measured on another device.
        return None


def _pause() -> None:
    """Wait for the counter to advance."""
    time.sleep(0.005)
