"""One driver for a run: a lock, its heartbeat, and a fence before each write of the study.

``flock`` on the run directory and on ``writer.lock``. The kernel frees both when the process ends;
on NFS the file's holds between machines. Beside it ``writer.lock`` contains a random token and the
driver's process, and its holder touches it. Where a file system or an object store has no
``flock``, these stand in: a lock untouched for a minute by the storage's own clock is free.

Neither stops a driver that was suspended, or whose lock file was removed. So a driver calls
``WriterLock.check`` before each write, and stops if the file no longer has its token.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from nas.core.every import every
from nas.core.files import Place, write_text
from nas.core.names import printable
from nas.core.plain import to_plain
from nas.core.process_identity import ProcessIdentity
from nas.core.remote import RemoteError
from nas.core.retry import is_os_error, persist

NAME = "writer.lock"
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
# Errors of NFS for a directory, which it cannot open for writing.
_NO_FOLDER_LOCKS = _NO_LOCKS | {errno.EBADF, errno.EINVAL, errno.EISDIR}
TOUCH_EACH_S, STALE_AFTER_S = 5.0, 60.0
# Without flock the last of several drivers that start together is the one whose token stays.
_SETTLE_S = 0.5
_MOST_CHARACTERS = 2000
_MOST_SHOWN = 100


class RunBusyError(RuntimeError):
    """Another driver is writing to the run."""


@contextmanager
def sole_writer(folder: Place, tell: Callable[[str], None] | None = None) -> Iterator[WriterLock]:
    """Hold the writer lock of the run in ``folder``, a directory or a prefix of an object store.

    ``tell`` is called with a line if it takes seconds to check whether another driver is alive.

    Raises:
        RunBusyError: another process, which the message names, holds the lock.
        OSError: the run folder cannot be written.
    """
    lock = WriterLock(folder, tell)
    with lock._acquired():
        yield lock


class WriterLock:
    """The lock that one driver holds on one run."""

    def __init__(self, folder: Place, tell: Callable[[str], None] | None = None) -> None:
        """Name the lock of ``folder``; ``sole_writer`` acquires it."""
        self._tell = tell
        self.token = uuid.uuid4().hex
        self._folder, self._path = folder, folder / NAME
        self._since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        # Locked by flock, where that is possible.
        self._handle: IO[str] | None = None
        self._holds_folder = False
        self._guard = threading.Lock()
        # A store is read no more often than it is touched.
        self._checked_until_s = 0.0

    def check(self) -> None:
        """Raise ``RunBusyError`` unless the lock is still this driver's.

        A removed lock file is written again, since another driver would have written its own.
        """
        if not isinstance(self._path, Path) and time.monotonic() < self._checked_until_s:
            return
        with self._guard:
            text = persist(self._text, is_os_error)
            if self._is_free_again(text):
                text = persist(self._claim_again, is_os_error)
        self._checked_until_s = time.monotonic() + TOUCH_EACH_S
        owner = _parsed(text)
        if owner is None or owner.get("token") != self.token:
            raise RunBusyError(
                f"run {self._folder} is being written by another search{_who(owner)}, which took "
                f"the lock of this one: this one stops and writes no more; nas front shows the run"
            )

    def _is_free_again(self, text: str | None) -> bool:
        """Return whether the file is gone, or empty while no other driver can have emptied it."""
        return text is None or (not text and self._holds_folder)

    @contextmanager
    def _acquired(self) -> Iterator[None]:
        with ExitStack() as held:
            if not isinstance(self._path, Path) or not self._flock(held):
                self._claim_by_age()
            try:
                with every(TOUCH_EACH_S, self._beat):
                    yield
            finally:
                # After an empty file the next driver need not check whether this one is alive.
                with suppress(OSError, RemoteError):
                    if self._is_ours():
                        self._put("")
                if self._handle is not None:
                    self._handle.close()

    def _flock(self, held: ExitStack) -> bool:
        """Lock directory and file until ``held`` ends; return whether the storage supports it.

        The directory's lock outlives a removed lock file.
        """
        assert isinstance(self._folder, Path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        held.callback(os.close, folder)
        self._holds_folder = self._locked(folder, _NO_FOLDER_LOCKS)
        handle = self._opened(held)
        if handle is None:
            return False
        owner = _parsed(self._text())
        # A mount may lock only within its machine; then only the heartbeat shows the holder.
        if owner is not None and _is_alive(owner) is not False and self._beats(owner):
            raise self._busy(owner)
        self._handle = handle
        _overwrite(handle, self._own_entry())
        return True

    def _opened(self, held: ExitStack) -> IO[str] | None:
        """Open and lock the lock file; return ``None`` if the storage has no locks."""
        assert isinstance(self._path, Path)
        while True:
            # Opened without truncation, since it contains the holder of the lock.
            handle = held.enter_context(self._path.open("a+"))
            if not self._locked(handle.fileno(), _NO_LOCKS):
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle.fileno()), os.stat(self._path)):
                    return handle
            # The file was removed between opening and locking; open the new one.

    def _locked(self, descriptor: int, impossible: frozenset[int]) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise self._busy(_parsed(self._text())) from None
            if error.errno not in impossible:
                raise
            return False
        return True

    def _beats(self, owner: dict[str, Any]) -> bool:
        """Watch whether ``owner``, perhaps on another machine, touches the file."""
        if self._age_s() >= STALE_AFTER_S:
            return False
        wait_s = 2.5 * TOUCH_EACH_S
        if self._tell is not None:
            self._tell(
                f"checking for up to {wait_s:.0f} s whether the last driver{_who(owner)} is alive"
            )
        until = time.monotonic() + wait_s
        before = _modified_s(self._path)
        while time.monotonic() < until:
            time.sleep(min(0.2, TOUCH_EACH_S))
            if _modified_s(self._path) != before:
                return True
        return False

    def _claim_by_age(self) -> None:
        """Take the lock without ``flock``, if it is free or stale."""
        text = self._text()
        owner = _parsed(text)
        is_alive = _is_alive(owner)
        if text and is_alive is not False and (is_alive or self._age_s() < STALE_AFTER_S):
            raise self._busy(owner)
        self._put(self._own_entry())
        time.sleep(_SETTLE_S)
        if not self._is_ours():
            raise self._busy(_parsed(self._text()))

    def _claim_again(self) -> str | None:
        if self._handle is not None and isinstance(self._path, Path):
            with suppress(FileExistsError):
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                self._handle.close()
                self._handle = os.fdopen(descriptor, "a+")
                with suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._text():
                _overwrite(self._handle, self._own_entry())
        else:
            self._put(self._own_entry())
        return self._text()

    def _beat(self) -> None:
        # While storage is away, the lock stays this driver's; ``check`` raises if another driver
        # has taken it.
        with suppress(OSError, RemoteError), self._guard:
            if self._is_free_again(self._text()):
                self._claim_again()
            elif self._is_ours():
                self._touch()

    def _touch(self) -> None:
        if isinstance(self._path, Path):
            with suppress(PermissionError, NotImplementedError):
                os.utime(self._path)
                return
        self._put(self._own_entry())

    def _put(self, text: str) -> None:
        if self._handle is not None:
            _overwrite(self._handle, text)
        else:
            write_text(self._path, text)

    def _is_ours(self) -> bool:
        owner = _parsed(self._text())
        return owner is not None and owner.get("token") == self.token

    def _text(self) -> str | None:
        """Return the lock file's content, ``None`` if it is gone and its folder is not."""
        try:
            return self._path.read_bytes()[:_MOST_CHARACTERS].decode(errors="replace")
        except FileNotFoundError:
            if isinstance(self._folder, Path) and not self._folder.is_dir():
                raise
            return None

    def _age_s(self) -> float:
        """Return seconds since the file was touched, by the clock of the storage."""
        probe = self._folder / f".{NAME}.{self.token}"
        write_text(probe, self.token)
        try:
            return _modified_s(probe) - _modified_s(self._path)
        finally:
            probe.unlink(missing_ok=True)

    def _own_entry(self) -> str:
        own = {"token": self.token, "since": self._since}
        return json.dumps(own | to_plain(ProcessIdentity.here()))

    def _busy(self, owner: dict[str, Any] | None) -> RunBusyError:
        return RunBusyError(
            f"run {self._folder} is being written by another search{_who(owner)}; wait for it or "
            f"stop it (the lock of one that was killed elsewhere is free after "
            f"{STALE_AFTER_S:.0f} s)"
        )


def _modified_s(path: Place) -> float:
    return path.stat().st_mtime if isinstance(path, Path) else path.modified_s()


def _overwrite(handle: IO[str], text: str) -> None:
    handle.truncate(0)
    handle.write(text)
    handle.flush()


def _parsed(text: str | None) -> dict[str, Any] | None:
    try:
        data = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    is_owner = isinstance(data, dict) and data.keys() >= {"pid", "host", "since"}
    return data if is_owner else None


def _who(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return ""
    # Untrusted input: other users may have written the file.
    shown = {name: printable(str(owner[name]))[:_MOST_SHOWN] for name in ("pid", "host", "since")}
    return " (process {pid} on {host}, since {since})".format(**shown)


def _is_alive(owner: dict[str, Any] | None) -> bool | None:
    """Return whether ``owner`` runs, ``None`` if this machine cannot see it."""
    try:
        return None if owner is None else ProcessIdentity.from_dict(owner).is_alive()
    except ValueError:
        return None
