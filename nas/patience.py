"""Waiting for storage that is away for a while, instead of losing a search to it.

A network file system that fails over, a disk that somebody is about to clear, a database that
restarts: each is an error to whoever writes just then, and over a minute later. What a search and
its workers write and read goes through ``persist``, which tries again while ``patience`` lasts.
Elsewhere there is none: a command that cannot write its result says so at once.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

VARIABLE = "JOULENAS_PATIENCE_S"
DEFAULT_S = 600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
# What a disk or network says that may answer again. Of what is written, anything it says may pass:
# it could be written before.
_PASSING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
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

# Told why something waits.
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Patience:
    wait_s: float
    tell: Tell | None


_current: ContextVar[_Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patience(tell: Tell | None = None, wait_s: float | None = None) -> Iterator[None]:
    """Have ``persist`` wait in this context, each time for ``wait_s`` at most.

    By default that is what the variable ``JOULENAS_PATIENCE_S`` says, or ten minutes.

    Raises:
        ValueError: the variable is no number of seconds.
    """
    token = _current.set(_Patience(_default_s() if wait_s is None else wait_s, tell))
    try:
        yield
    finally:
        _current.reset(token)


def persist(
    action: Callable[[], T], is_passing: Callable[[BaseException], bool] | None = None
) -> T:
    """What ``action`` returns, tried again while it raises what may pass.

    ``action`` must be one that may be repeated. What passes is an ``OSError`` of a disk or network
    that may answer again, or what ``is_passing`` says.

    Raises:
        Exception: what ``action`` raised, if it does not pass, or once patience is over.
    """
    current = _current.get()
    if current is None:
        return action()
    passes = is_passing or is_passing_os_error
    started, pause_s, is_told = time.monotonic(), _FIRST_PAUSE_S, False
    while True:
        try:
            return action()
        except Exception as error:
            left_s = started + current.wait_s - time.monotonic()
            if not passes(error) or left_s <= 0:
                raise
            if current.tell is not None and not is_told:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                current.tell(f"{lines[0]}: trying again for {left_s:.0f} s")
                is_told = True
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def is_passing_os_error(error: BaseException) -> bool:
    """Whether ``error`` is one of a disk or network that may answer again."""
    if isinstance(error, OSError):
        return error.errno in _PASSING
    # safetensors has one type for all that goes wrong, and the number in its text alone.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return number is not None and int(number.group(1)) in _PASSING


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
