"""Joules of the whole device while a search runs, idle time included.

Trials account for training and measuring. The rest (waiting, loading, compiling) shows only on
the device's own counter, which the driver reads each time a trial ends and appends to
``device.jsonl``.
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
    """A ``Listener`` that writes the account and passes every call on.

    Without a meter, or with one that only estimates, nothing is written.
    """

    def __init__(self, path: Path, meter: Meter | None, listener: Listener | None) -> None:
        """Append to ``path``; the meter is closed when the account is."""
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
        """Write the last interval, unless the search ended because nothing can be written."""
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
                self._lose(error)

    def _end(self) -> None:
        if self._meter is not None:
            try:
                window = self._meter.end(_pause)
            except MeterError as error:
                self._lose(error)
            else:
                self._append({"energy_j": window.energy_j, "duration_s": window.duration_s})

    def _lose(self, error: MeterError) -> None:
        """Record that the sensor was lost, after which there is no sum, and stop."""
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
    """Return the device's joules over all of a search, ``None`` where some were not read."""
    if not path.is_file():
        return None
    total_j = 0.0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            total_j += float(json.loads(line)["energy_j"])
        except (ValueError, LookupError, TypeError, RecursionError):
            # A lost sensor, or a line cut off by a kill.
            return None
    return total_j


def watched_meter(run: Run) -> Meter | None:
    """Return a meter of the device that trains; ``None`` for a remote cluster's devices."""
    if run.driver.address != LOCAL:
        return None
    if not run.config.measure_on:
        return choose_meter(run.meter, run.config.device)
    try:
        return choose_meter(None, run.config.device)
    except MeterError:
        # Trials may train on what has no meter, where they are measured on another device.
        return None


def _pause() -> None:
    """Wait for the counter's step."""
    time.sleep(0.005)
