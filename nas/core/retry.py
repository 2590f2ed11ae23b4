"""Retry reads and writes while storage is away, instead of losing a search to it.

A network file system that fails over, a full disk, a database that restarts: each is an error
that is over a minute later. A search and its workers read and write by ``persist``, which retries
within a ``patience`` context. Outside of one a command that cannot write its result fails at once.

An error that outlasts the time-out becomes a ``StorageAwayError``, so that ``is_of_storage`` can
tell it from an error of the code that ran, also where it was wrapped or sent by another process.
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
# Errors that only a disk causes, whatever code raises them.
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
# Errors after which a read is retried. A write is retried after any error, since the same place
# could be written before.
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
    """Storage failed or refused. The candidate is not the cause."""


class StorageAwayError(AwayError, OSError):
    """Storage was full, away or refusing until the time-out."""


# Numpy's message for a short write, an OSError without a number.
_SHORT_WRITE = re.compile(r"^\d+ requested and \d+ written$")
# Messages of a disk's errors, which other programs, such as compilers, repeat in their own.
_IN_TEXT = tuple(os.strerror(n) for n in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))

# Called with the reason of a wait.
Tell = Callable[[str], None]


class Waits:
    """How long ``persist`` has waited in one context."""

    def __init__(self) -> None:
        """Start with no wait."""
        self._lock = threading.Lock()
        self._ended_s = 0.0
        self._since: float | None = None

    def total_s(self) -> float:
        """Return seconds until now; other threads than the one that waits may call it."""
        with self._lock:
            since_s = 0.0 if self._since is None else time.monotonic() - self._since
            return self._ended_s + since_s

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Add the duration of the context, once where such contexts are nested."""
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
    tell: Tell | None
    waits: Waits


_current: ContextVar[_Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patience(tell: Tell | None = None, wait_s: float | None = None) -> Iterator[Waits]:
    """Have ``persist`` retry in this context, each time for ``wait_s`` at most.

    The default is the environment variable ``JOULENAS_PATIENCE_S``, else ten minutes. ``tell`` is
    called with a line when a wait begins.

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
    """Return what ``action`` returns, retried while it raises an error that may pass.

    ``action`` must be repeatable. An error may pass if ``is_passing`` says so, by default if it is
    an ``OSError`` of a disk or network that may answer again. The time-out counts from the first
    failure. ``place`` is what is written or read, for messages. Without ``is_storage``, ``action``
    does more than read and write, and its last error is raised as it is.

    Raises:
        StorageAwayError: the file system's error cannot pass, or had not at the time-out; a
            missing file is raised at once, as it is.
        Exception: any other error of ``action``.
    """
    current = _current.get()
    if current is None:
        return action()
    passes = is_passing or is_passing_os_error
    try:
        return action()
    except Exception as error:
        first = error
    with current.waits.counting():
        try:
            return _again(action, first, current, passes, place)
        except AwayError:
            raise
        except Exception as error:
            is_away = is_os_error(error) and (passes(error) or _is_refusal(error))
            if is_storage and is_away:
                raise as_away(error, place) from error
            raise


def _again(
    action: Callable[[], T],
    error: Exception,
    current: _Patience,
    passes: Callable[[BaseException], bool],
    place: object,
) -> T:
    started, pause_s, is_told = time.monotonic(), _FIRST_PAUSE_S, False
    while True:
        left_s = started + current.wait_s - time.monotonic()
        # An ``AwayError`` was retried already, further down.
        if not passes(error) or isinstance(error, AwayError) or left_s <= 0:
            raise error
        if current.tell is not None and not is_told:
            current.tell(f"{in_words(error, place)}: trying again for {left_s:.0f} s")
            is_told = True
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        try:
            return action()
        except Exception as again:
            error = again


def is_of_storage(error: BaseException, folder: Path | None = None) -> bool:
    """Return whether storage caused ``error``, or an error that it was raised from.

    Storage causes each ``AwayError``, each error that only a disk raises (full, over quota,
    read-only, broken, stale), and for a file below ``folder`` also refusals such as a missing
    right.
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
    """Raise an error that ``is_of_storage`` as ``AwayError``: causes are lost between processes.

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
    """Return whether the file system refuses, rather than finds a file present or absent."""
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
    """Return ``error`` as one of storage; ``place`` replaces a temporary file's name."""
    number = _number_of(error)
    if number is None:
        return StorageAwayError(in_words(error, place))
    where = getattr(error, "filename", None) if place is None else str(place)
    return StorageAwayError(number, _words(error, number), where)


def in_words(error: BaseException, place: object = None) -> str:
    """Return ``error`` in one line, without its number."""
    number = _number_of(error)
    words = first_line(error) if number is None else _words(error, number)
    where = getattr(error, "filename", None) if place is None else place
    return words if where is None else f"{words} ({where})"


def _words(error: BaseException, number: int) -> str:
    words = error.strerror if isinstance(error, OSError) else None
    return words or os.strerror(number)


def is_passing_os_error(error: BaseException) -> bool:
    """Return whether ``error`` is of a disk or network that may answer again."""
    return _number_of(error) in _PASSING


def _number_of(error: BaseException) -> int | None:
    """Return the operating system's error number."""
    if isinstance(error, OSError):
        is_short = error.errno is None and _SHORT_WRITE.match(str(error))
        return errno.ENOSPC if is_short else error.errno
    # safetensors has one type of error, with the number in its text.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return None if number is None else int(number.group(1))


def is_os_error(error: BaseException) -> bool:
    """Return whether ``error`` is any of the file system, such as of a mount that is gone."""
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
