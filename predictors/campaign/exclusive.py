"""One device, many trainers, one measurement at a time: a readers-writer lock between processes.

Trainers hold the lock shared, a training step at a time; a measurement holds it exclusively, so
nothing else of ours runs on the device meanwhile. Two ``flock`` files: a measurement first takes
the turnstile, which keeps trainers from starting another step, then waits for the steps under
way. The kernel lets go of both however a process ends.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from predictors.meters.base import MeterError
from predictors.meters.nvml import visible_gpu


class DeviceLock:
    """The lock of one device of this machine; one object serves one thread of one process."""

    def __init__(self, folder: Path, device: str) -> None:
        """Name the lock; its files are made in ``folder`` when it is first used."""
        self._folder = folder
        self._name = re.sub(r"[^a-zA-Z0-9]+", "-", _board(device))
        self._files: tuple[int, int] | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the device along with other trainers; waits while a measurement runs or waits."""
        turnstile, device = self._open()
        fcntl.flock(turnstile, fcntl.LOCK_SH)
        fcntl.flock(device, fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(device, fcntl.LOCK_UN)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the device alone; trainers that come meanwhile wait, so this cannot starve."""
        turnstile, device = self._open()
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        try:
            fcntl.flock(device, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(device, fcntl.LOCK_UN)
        finally:
            fcntl.flock(turnstile, fcntl.LOCK_UN)

    def _open(self) -> tuple[int, int]:
        # Kept open: opening for each training step would cost more than locking.
        if self._files is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            turnstile, device = (
                os.open(self._folder / f"{self._name}.{part}", os.O_RDWR | os.O_CREAT, 0o600)
                for part in ("turnstile", "device")
            )
            self._files = (turnstile, device)
        return self._files

    def __del__(self) -> None:
        """Close the files."""
        for descriptor in self._files or ():
            os.close(descriptor)


def _board(device: str) -> str:
    """``device`` by the name that it has for every process of this machine.

    A process that is given one GPU of several calls it ``cuda:0`` whichever it is.
    """
    if not device.startswith("cuda"):
        return device
    try:
        return f"cuda:{visible_gpu(int(device.partition(':')[2] or 0))}"
    except MeterError:
        # No such GPU is visible: whatever uses it says so.
        return device
