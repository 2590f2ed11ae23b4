"""Retry reads and writes with back-off while storage is unavailable.

A failover of a network file system, a full disk or a database restart may pass within minutes. A
search and its workers read and write through ``persist``, which retries within a ``patience``
context. Outside of such a context an error is raised at once.

An error that outlasts the timeout becomes a ``StorageAwayError``. ``is_of_storage`` distinguishes
it from errors of other code, also if it was wrapped or sent by another process.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nas.core.names import first_line

T = TypeVar("T")

VARIABLE = "JOULENAS_PATIENCE_S"
DEFAULT_S = 600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
# Errors that only storage causes.
_OF_A_DISK = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.EREMOTEIO,
    }
)
# Errors after which a read is retried. A write is retried after any error, as an earlier write to
# the same place succeeded.
_PASSING = _OF_A_DISK | frozenset(
    {
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EAGAIN,
        errno.EBUSY,
    }
)


class AwayError(Exception):
    """Storage failed or refused; the candidate did not cause the error."""


class StorageAwayError(AwayError, OSError):
    """Storage was full, unavailable or refusing until the timeout."""


# NumPy's message for a short write, an OSError without an errno.
_SHORT_WRITE = re.compile(r"^\d+ requested and \d+ written$")
# Messages of storage errors, which other programs, such as compilers, repeat in their own.
_IN_TEXT = tuple(os.strerror(n) for n in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))

# Called with the reason of a wait.
OnWait = Callable[[str], None]


class Waits:
    """Total time that ``persist`` has waited in one context."""

    def __init__(self) -> None:
        """Start at zero seconds."""
        self._lock = threading.Lock()
        self._ended_s = 0.0
        self._since: float | None = None

    def total_s(self) -> float:
        """Return the seconds until now; any thread may call this."""
        with self._lock:
            since_s = 0.0 if self._since is None else time.monotonic() - self._since
            return self._ended_s + since_s

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Add the duration of the context; nested contexts count once."""
        if self._since is not None:
            yield
            return
        self._since = time.monotonic()
        try:
            yield
        finally:
            total_s = self.total_s()
            with self._lock:
                self._ended_s, self._since = total_s, None


@dataclass(frozen=True, slots=True)
class _Patience:
    wait_s: float
    tell: OnWait | None
    waits: Waits


_current: ContextVar[_Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patience(tell: OnWait | None = None, wait_s: float | None = None) -> Iterator[Waits]:
    """Make ``persist`` retry in this context, with a timeout of ``wait_s`` for each call.

    The default is the environment variable ``JOULENAS_PATIENCE_S``, else ten minutes. ``tell`` is
    called with one line when retries begin.

    Raises:
        ValueError: the variable is not a number of seconds.
    """
    waits = Waits()
    token = _current.set(_Patience(_default_s() if wait_s is None else wait_s, tell, waits))
    try:
        yield waits
    finally:
        _current.reset(token)


def persist(
    action: Callable[[], T],
    is_passing: Callable[[BaseException], bool] | None = None,
    *,
    place: object = None,
    is_storage: bool = True,
) -> T:
    """Call ``action``, retry it after transient errors, and return its result.

    ``action`` must be repeatable. ``is_passing`` decides which errors are transient; the default
    is ``is_passing_os_error``. The timeout starts at the first failure. ``place`` is the path in
    messages. With ``is_storage=False``, for actions that do more than read and write, the last
    error is raised unchanged.

    Raises:
        StorageAwayError: the file system's error is permanent or outlasted the timeout.
        FileNotFoundError: a file is missing; by default this is not retried.
        Exception: any other error of ``action``.
    """
    current = _current.get()
    if current is None:
        return action()
    is_transient = is_passing or is_passing_os_error
    try:
        return action()
    except Exception as error:
        first = error
    with current.waits.counting():
        try:
            return _retry(action, first, current, is_transient, place)
        except AwayError:
            raise
        except Exception as error:
            is_away = is_os_error(error) and (is_transient(error) or _is_refusal(error))
            if is_storage and is_away:
                raise as_away(error, place) from error
            raise


def _retry(
    action: Callable[[], T],
    error: Exception,
    current: _Patience,
    is_transient: Callable[[BaseException], bool],
    place: object,
) -> T:
    started_s, pause_s, is_reported = time.monotonic(), _FIRST_PAUSE_S, False
    while True:
        left_s = started_s + current.wait_s - time.monotonic()
        # A nested ``persist`` has already retried an ``AwayError``.
        if not is_transient(error) or isinstance(error, AwayError) or left_s <= 0:
            raise error
        if current.tell is not None and not is_reported:
            current.tell(f"{in_words(error, place)}: trying again for {left_s:.0f} s")
            is_reported = True
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        try:
            return action()
        except Exception as latest:
            error = latest


def is_of_storage(error: BaseException, folder: Path | None = None) -> bool:
    """Return whether storage caused ``error`` or an error in its chain of causes.

    This holds for each ``AwayError`` and for errors that only disks raise (full, over quota,
    read-only, broken, stale). For files below ``folder`` it also holds for refusals, such as a
    missing permission.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, AwayError) or _number_of(cause) in _OF_A_DISK:
            return True
        if any(words in str(cause) for words in _IN_TEXT):
            return True
        if folder is not None and _is_refusal(cause) and _is_below(cause, folder):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def naming_storage(folder: Path | None = None) -> Iterator[None]:
    """Convert errors caused by storage to ``AwayError``: processes do not pass on causes.

    Raises:
        AwayError: instead of an error that storage caused.
    """
    try:
        yield
    except AwayError:
        raise
    except Exception as error:
        if is_of_storage(error, folder):
            raise as_away(error) from error
        raise


def _is_refusal(error: BaseException) -> bool:
    """Return whether the file system refused; a file's presence or absence is no refusal."""
    return isinstance(error, OSError) and not isinstance(
        error,
        FileNotFoundError
        | FileExistsError
        | IsADirectoryError
        | NotADirectoryError
        | ConnectionError
        | ChildProcessError
        | ProcessLookupError,
    )


def _is_below(error: BaseException, folder: Path) -> bool:
    name = getattr(error, "filename", None)
    return isinstance(name, str) and Path(name).is_relative_to(folder)


def as_away(error: BaseException, place: object = None) -> StorageAwayError:
    """Convert ``error`` to a storage error; ``place`` replaces a temporary file's name."""
    number = _number_of(error)
    if number is None:
        return StorageAwayError(in_words(error, place))
    path = getattr(error, "filename", None) if place is None else str(place)
    return StorageAwayError(number, _words(error, number), path)


def in_words(error: BaseException, place: object = None) -> str:
    """Return ``error`` as one line, without its errno."""
    number = _number_of(error)
    words = first_line(error) if number is None else _words(error, number)
    path = getattr(error, "filename", None) if place is None else place
    return words if path is None else f"{words} ({path})"


def _words(error: BaseException, number: int) -> str:
    words = error.strerror if isinstance(error, OSError) else None
    return words or os.strerror(number)


def is_passing_os_error(error: BaseException) -> bool:
    """Return whether ``error`` is a transient error of a disk or network."""
    return _number_of(error) in _PASSING


def _number_of(error: BaseException) -> int | None:
    """Return the errno of ``error``, ``None`` if it has none."""
    if isinstance(error, OSError):
        is_short = error.errno is None and _SHORT_WRITE.match(str(error))
        return errno.ENOSPC if is_short else error.errno
    # safetensors has one type of error, with the errno in its text.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return None if number is None else int(number.group(1))


def is_os_error(error: BaseException) -> bool:
    """Return whether ``error`` is any file system error, also a permanent one."""
    return isinstance(error, OSError) or is_passing_os_error(error)


def _default_s() -> float:
    text = os.environ.get(VARIABLE, "")
    try:
        wait_s = float(text) if text else DEFAULT_S
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s < float("inf"):
        raise ValueError(f"{VARIABLE} must be a number of seconds >= 0, got {text!r}")
    return wait_s
