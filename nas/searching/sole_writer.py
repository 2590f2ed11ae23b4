"""One driver for a run: a lock that ends with the process that holds it, however that ends.

``flock`` on ``writer.lock``. The kernel lets go of it when the process ends, and on NFS the server
does when the client's kernel says so, which holds between machines. Where a file system knows no
such locks, the file's own age stands in: its holder touches it, and one not touched for a minute
is nobody's.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
TOUCH_EACH_S, STALE_AFTER_S = 10.0, 60.0


class RunBusyError(RuntimeError):
    """Another driver is writing to the run."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the run's writer lock.

    Raises:
        RunBusyError: another process holds it; the message says which.
        OSError: the run folder cannot be written.
    """
    # Not truncated on opening: it says who holds the lock.
    with (folder / "writer.lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise _busy(folder, handle) from None
            if error.errno not in _NO_LOCKS:
                raise
            with _by_age(folder, handle):
                yield
            return
        _say_who(handle)
        yield
        # Whoever opens it next need not guess whether its holder is alive.
        handle.truncate(0)


@contextmanager
def _by_age(folder: Path, handle: IO[str]) -> Iterator[None]:
    owner = _owner(handle)
    if owner is not None:
        is_here = owner.get("host") == socket.gethostname()
        age_s = time.time() - os.fstat(handle.fileno()).st_mtime
        if _is_alive(owner.get("pid")) if is_here else age_s < STALE_AFTER_S:
            raise _busy(folder, handle)
    _say_who(handle)
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(TOUCH_EACH_S):
            # Storage that is away for a while takes nothing from its holder.
            with suppress(OSError):
                os.utime(handle.fileno())

    toucher = threading.Thread(target=touch, daemon=True)
    toucher.start()
    try:
        yield
    finally:
        ended.set()
        toucher.join()
        handle.truncate(0)


def _busy(folder: Path, handle: IO[str]) -> RunBusyError:
    owner = _owner(handle)
    who = "" if owner is None else " (process {pid} on {host}, since {since})".format(**owner)
    return RunBusyError(
        f"run {folder} is being written by another search{who}; wait for it or stop it"
    )


def _say_who(handle: IO[str]) -> None:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    handle.truncate(0)
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    handle.write(json.dumps(owner))
    handle.flush()


def _owner(handle: IO[str]) -> dict[str, object] | None:
    """Who wrote the file last, ``None`` where that cannot be read."""
    handle.seek(0)
    try:
        data = json.loads(handle.read(1000))
    except ValueError:
        return None
    is_owner = isinstance(data, dict) and data.keys() == {"pid", "host", "since"}
    return data if is_owner else None


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
