"""A time limit that long work in this process checks at each of its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from nas.core.retry import Waits


class TimeLimitError(RuntimeError):
    """The work took longer than it may."""


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
    """Have ``check_time`` raise in this context after ``limit_s``; ``waits`` do not count."""
    limit = None if limit_s is None else _Limit(limit_s, time.monotonic(), waits)
    token = _current.set(limit)
    try:
        yield
    finally:
        _current.reset(token)


def time_left_s() -> float | None:
    """Seconds until the limit of this context, ``None`` where there is none."""
    limit = _current.get()
    return None if limit is None else limit.left_s()


def check_time() -> None:
    """Return if there is time left.

    Raises:
        TimeLimitError: there is none.
    """
    limit = _current.get()
    if limit is not None and limit.left_s() <= 0:
        raise TimeLimitError(f"it took longer than {limit.limit_s:g} s")
