"""Waiting for storage that is away for a while, instead of losing a search to it.

A network file system that fails over, a disk that somebody is about to clear, a database that
restarts: each is an error to whoever writes just then, and over a minute later. What a search and
its workers write and read goes through ``persist``, which tries again while ``patience`` lasts.
Elsewhere there is none: a command that cannot write its result says so at once.

An error that outlasts patience becomes a ``StorageAwayError``, so that whoever catches it, wrapped
or sent by another process, can tell it from an error of the code that ran (``is_of_storage``).
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

T = TypeVar("T")

VARIABLE = "JOULENAS_PATIENCE_S"
DEFAULT_S = 600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
# Errors that may pass when a read is retried. A write is retried after any error, since the same
# place could be written before.
_PASSING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EREMOTEIO,
        errno.EAGAIN,
        errno.EBUSY,
    }
)

# The subset that only a disk causes, whatever code raises it.
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


class AwayError(Exception):
    """Storage failed or refused. The candidate is not the cause."""


class StorageAwayError(AwayError, OSError):
    """Storage was full, away or refusing for longer than it is waited for."""


# What a short write is in numpy's words, which raises an OSError without a number.
_SHORT_WRITE = re.compile(r"^\d+ requested and \d+ written$")
# What other programs, such as compilers, say of a disk in their own errors.
_IN_TEXT = tuple(os.strerror(n) for n in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))

# Told why something waits.
Tell = Callable[[str], None]


class Waits:
    """How long ``persist`` has waited in one context."""

    def __init__(self) -> None:
        """Nothing has waited yet."""
        self._lock = threading.Lock()
        self._ended_s = 0.0
        self._since: float | None = None

    def total_s(self) -> float:
        """Seconds until now; read from other threads than the one that waits."""
        with self._lock:
            since_s = 0.0 if self._since is None else time.monotonic() - self._since
            return self._ended_s + since_s

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the time that the context lasts, but once where such contexts are nested."""
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
    """Have ``persist`` wait in this context, each time for ``wait_s`` at most.

    By default that is what the variable ``JOULENAS_PATIENCE_S`` says, or ten minutes. ``tell`` is
    called with a line when a wait begins.

    Raises:
        ValueError: the variable is no number of seconds.
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
    """What ``action`` returns, tried again while it raises what may pass.

    ``action`` must be one that may be repeated. What passes is an ``OSError`` of a disk or network
    that may answer again, or what ``is_passing`` says. Patience counts from the first failure.
    ``place`` is what is written or read, for messages. Without ``is_storage``, ``action`` is more
    than reading and writing, and what it raised in the end is raised as it is.

    Raises:
        StorageAwayError: the file system raised what does not pass, or not before patience was
            over; a file that is not there is an answer, which is raised at once.
        Exception: what ``action`` raised beside that.
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
        # What is away was waited for already, further down.
        if not passes(error) or isinstance(error, AwayError) or left_s <= 0:
            raise error
        if current.tell is not None and not is_told:
            current.tell(f"{_said(error, place)}: trying again for {left_s:.0f} s")
            is_told = True
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        try:
            return action()
        except Exception as again:
            error = again


def tell_of_wait(reason: str) -> None:
    """Tell whoever ``patience`` tells in this context, if anybody, why something waits."""
    current = _current.get()
    if current is not None and current.tell is not None:
        current.tell(reason)


def is_of_storage(error: BaseException, folder: Path | None = None) -> bool:
    """Whether ``error``, or what it was raised from, is storage's and not of the code that ran.

    Storage's are what ``persist`` raised as such; what only a disk says (full, over its quota,
    read-only, broken, stale); and of a file below ``folder`` whatever else cannot be answered by
    the code that asked for it, such as a missing right.
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
    """Raise what ``is_of_storage`` as such: other processes are not sent its causes.

    Raises:
        AwayError: instead of what was raised from storage's error.
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
    """Whether the file system refuses, rather than answers that something is not, or is, there."""
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
    """``error`` as one of storage; ``place`` in place of a temporary name."""
    number = _number_of(error)
    if number is None:
        return StorageAwayError(_said(error, place))
    where = getattr(error, "filename", None) if place is None else str(place)
    return StorageAwayError(number, _words(error, number), where)


def in_words(error: BaseException) -> str:
    """What storage says by ``error``, in one line, without its number."""
    return _said(error, None)


def _said(error: BaseException, place: object) -> str:
    """``error`` in one line, without its number."""
    number = _number_of(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = lines[0] if number is None else _words(error, number)
    where = getattr(error, "filename", None) if place is None else place
    return said if where is None else f"{said} ({where})"


def _words(error: BaseException, number: int) -> str:
    """What ``number`` means, in the words of ``error`` where those are no more than that."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or os.strerror(number)


def is_passing_os_error(error: BaseException) -> bool:
    """Whether ``error`` is one of a disk or network that may answer again."""
    return _number_of(error) in _PASSING


def _number_of(error: BaseException) -> int | None:
    """The number by which the operating system says what is wrong."""
    if isinstance(error, OSError):
        is_short = error.errno is None and _SHORT_WRITE.match(str(error))
        return errno.ENOSPC if is_short else error.errno
    # safetensors has one type for all that goes wrong, and the number in its text alone.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return None if number is None else int(number.group(1))


def is_os_error(error: BaseException) -> bool:
    """Whether ``error`` is the file system's, whatever it says, as a mount that is gone does."""
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
