"""Cooperative time limit: long work calls ``check_time`` at each step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from nas.core.retry import Waits


class TimeLimitError(RuntimeError):
    """The work exceeded its time limit."""


@dataclass(frozen=True, slots=True)
class _Limit:
    limit_s: float
    started_s: float
    waits: Waits

    def left_s(self) -> float:
        return self.limit_s - (time.monotonic() - self.started_s - self.waits.total_s())


_current: ContextVar[_Limit | None] = ContextVar("time_limit", default=None)


@contextmanager
def time_limit(limit_s: float | None, waits: Waits) -> Iterator[None]:
    """Make ``check_time`` raise in this context after ``limit_s``, not counting ``waits``."""
    limit = None if limit_s is None else _Limit(limit_s, time.monotonic(), waits)
    token = _current.set(limit)
    try:
        yield
    finally:
        _current.reset(token)


def time_left_s() -> float | None:
    """Return the seconds left in this context, ``None`` without a limit."""
    limit = _current.get()
    return None if limit is None else limit.left_s()


def check_time() -> None:
    """Check that the time limit is not exceeded.

    Raises:
        TimeLimitError: no time is left.
    """
    limit = _current.get()
    if limit is not None and limit.left_s() <= 0:
        raise TimeLimitError(f"it took longer than {limit.limit_s:g} s")
