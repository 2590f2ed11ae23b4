"""One device, many trainers, one measurement at a time: a readers-writer lock between processes.

Trainers hold the lock shared, a training step at a time; a measurement holds it exclusively, so
nothing else of ours runs on the device meanwhile. Two ``flock`` files: a measurement first takes
the turnstile, which keeps trainers from starting another step, then waits for the steps under
way. The kernel lets go of both however a process ends.

Users of one machine share the files, since they share its devices. The files hold nothing and are
only locked, so that whoever made them can do no more than keep others waiting.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from predictors.meters.base import MeterError
from predictors.meters.nvml import visible_gpu
from search_spaces.user_folders import ForeignFolderError, private_folder, shared_folder


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
            try:
                self._files = self._open_in(shared_folder(self._folder))
            except (ForeignFolderError, PermissionError):
                # Somebody has closed the shared one: then this user's processes share their own.
                own = self._folder.with_name(f"{self._folder.name}-{os.geteuid()}")
                self._files = self._open_in(private_folder(own))
        return self._files

    def _open_in(self, folder: Path) -> tuple[int, int]:
        turnstile, device = (
            _open_lock(folder / f"{self._name}.{part}") for part in ("turnstile", "device")
        )
        return turnstile, device

    def __del__(self) -> None:
        """Close the files."""
        for descriptor in self._files or ():
            os.close(descriptor)


def _open_lock(path: Path) -> int:
    """A descriptor to lock, of a file that any user may have made and nobody writes or reads.

    Links are refused, and a file of somebody else's is not opened to be created: Linux refuses
    that in folders that all may write to (``fs.protected_regular``).
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
            # Whatever the umask is: another user must be able to open it too.
            os.fchmod(descriptor, 0o644)
        except FileExistsError:
            descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ForeignFolderError(0, "must be no link", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ForeignFolderError(0, "must be a plain file", str(path))
    return descriptor


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
