"""One device, many trainers, one measurement at a time: a readers-writer lock between processes.

Trainers hold the lock shared, a training step at a time; a measurement holds it exclusively. It
consists of two ``flock`` files: a measurement first takes the turnstile, which keeps trainers from
starting another step, then waits for the running steps. The kernel releases both however a process
ends.

All users of a machine share one folder of locks, in which a board is named by its UUID. Each
process that opens a lock is listed beside it while it lives, so that a measurement can distinguish
our processes from foreign ones.
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

from nas.core.user_folders import ForeignFolderError, private_folder, shared_folder
from predictors.meters.base import MeterError
from predictors.meters.nvml import board_uuid
from predictors.meters.visible import visible_gpu

FOLDER_VARIABLE = "JOULENAS_LOCK_FOLDER"
# Not below TMPDIR, which differs from process to process on one machine.
_FOLDER = Path("/tmp/joulenas-locks")
# Descriptors of the files that list this process; open, and so locked, until it ends.
_listed: dict[Path, int] = {}


def lock_folder() -> Path:
    """Return this machine's lock folder: ``JOULENAS_LOCK_FOLDER`` or ``/tmp/joulenas-locks``.

    Raises:
        MeterError: the variable is a relative path, which names another folder in each process.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named and not os.path.isabs(named):
        raise MeterError(f"{FOLDER_VARIABLE} must be an absolute path, got {named!r}")
    return Path(named) if named else _FOLDER


class DeviceLock:
    """The lock of one device of this machine; one object serves one thread of one process."""

    def __init__(self, folder: Path | None, device: str) -> None:
        """Name the lock; its files are created in ``folder`` at its first use.

        ``None`` is the machine's folder (``lock_folder``).
        """
        # First, since ``__del__`` also runs after an error below.
        self._files: tuple[int, int] | None = None
        self._folder = lock_folder() if folder is None else folder
        self._name = re.sub(r"[^a-zA-Z0-9]+", "-", _board(device))
        self._depth = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the device shared with other trainers, after running and waiting measurements.

        A nested call does nothing: waiting at the turnstile while holding the device would
        deadlock.
        """
        _, device = self._open()
        if not self._depth:
            self._enter_shared()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                fcntl.flock(device, fcntl.LOCK_UN)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Inside ``shared``: release the device for work that does not use it."""
        _, device = self._open()
        fcntl.flock(device, fcntl.LOCK_UN)
        try:
            yield
        finally:
            self._enter_shared()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the device alone; new trainers wait, so that a measurement cannot starve."""
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

    def processes(self) -> set[int]:
        """Return the living processes that have opened this lock, this one included."""
        processes = {os.getpid()}
        for path in self._folder.glob(f"{self._name}.process-*"):
            number = path.name.rpartition("-")[2]
            # Any user of the machine may put files there.
            if number.isascii() and number.isdecimal() and _is_locked(path):
                processes.add(int(number))
        return processes

    def _enter_shared(self) -> None:
        turnstile, device = self._open()
        fcntl.flock(turnstile, fcntl.LOCK_SH)
        fcntl.flock(device, fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)

    def _open(self) -> tuple[int, int]:
        # Opening the files for each training step would cost more than locking.
        if self._files is None:
            try:
                self._files = self._open_shared_or_own()
                self._list_process()
            except OSError as error:
                raise MeterError(_cause(self._folder, error)) from None
        return self._files

    def _open_shared_or_own(self) -> tuple[int, int]:
        try:
            return self._open_in(shared_folder(self._folder))
        except (ForeignFolderError, PermissionError):
            # The shared folder is unusable; lock at least among this user's processes.
            own = self._folder.with_name(f"{self._folder.name}-{os.geteuid()}")
            self._folder = private_folder(own)
            return self._open_in(self._folder)

    def _open_in(self, folder: Path) -> tuple[int, int]:
        turnstile, device = (
            _open_file(folder / f"{self._name}.{part}") for part in ("turnstile", "device")
        )
        return turnstile, device

    def _list_process(self) -> None:
        path = self._folder / f"{self._name}.process-{os.getpid()}"
        if path not in _listed:
            descriptor = _open_file(path)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            _listed[path] = descriptor

    def __del__(self) -> None:
        """Close the files."""
        for descriptor in self._files or ():
            os.close(descriptor)


def _open_file(path: Path) -> int:
    """Open a lock that another user may have created; read access suffices to lock it.

    Links are refused. An existing file is opened without ``O_CREAT``, which Linux refuses for
    other users' files in world-writable folders (``fs.protected_regular``).

    Raises:
        ForeignFolderError: it is a link or no plain file.
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            try:
                descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
                # Other users must be able to open it, whatever the umask is.
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


def _cause(path: Path, error: OSError) -> str:
    return (
        f"the device's lock {path} cannot be used: {error.strerror}; set {FOLDER_VARIABLE} to a "
        f"folder that every user of this machine can write"
    )


def _is_locked(path: Path) -> bool:
    """Return whether the process listed in ``path`` lives; the kernel unlocks it at its end."""
    if path in _listed and path.name.endswith(f"-{os.getpid()}"):
        return True
    try:
        # Opening another kind of file, such as a pipe, must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _board(device: str) -> str:
    """Return a name of ``device`` that is the same in every process of this machine.

    In a process to which one GPU of several is visible, that GPU is ``cuda:0``.
    """
    if not device.startswith("cuda"):
        return device
    uuid = board_uuid(device)
    if uuid is not None:
        return uuid
    try:
        return f"cuda:{visible_gpu(int(device.partition(':')[2] or 0))}"
    except MeterError:
        # No such GPU is visible, which its user will report.
        return device
