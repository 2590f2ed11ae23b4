"""Graceful shutdown on Ctrl-C, SIGTERM and SIGHUP: save and show results, then exit.

SLURM, Kubernetes, systemd and ``timeout`` send SIGTERM. A closed terminal or connection sends
SIGHUP, which processes under ``nohup`` ignore. A second signal of any kind ends the process at
once. Libraries such as Ray replace the handlers; ``install`` restores them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

_SHOW_CURSOR = "\x1b[?25h"


class _State:
    """Process-wide state: handled signals, the first one received, and whether it is deferred."""

    handled: frozenset[int] = frozenset()
    first: int | None = None
    is_deferred: bool = False


@contextmanager
def handled() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for the first signal in this context.

    Signals that the process ignores or handles already are left unchanged.
    """
    if threading.current_thread() is not threading.main_thread() or _State.handled:
        yield
        return
    defaults: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {n: handler for n, handler in defaults.items() if signal.getsignal(n) == handler}
    _State.handled, _State.first = frozenset(before), None
    install()
    try:
        yield
    finally:
        _State.handled = frozenset()
        for number, handler in before.items():
            signal.signal(number, handler)


def ended_by() -> int | None:
    """Return the first signal of the current or last ``handled`` context, ``None`` without one."""
    return _State.first


def is_ending() -> bool:
    """Return whether the current ``handled`` context has received a signal."""
    return bool(_State.handled) and _State.first is not None


def exit_code() -> int:
    """Return a command's exit code after a signal: 143 for SIGTERM, 129 for SIGHUP, else 130."""
    return 128 + (ended_by() or signal.SIGINT)


def name_of_end() -> str:
    """Return a readable name of the signal that ended the command."""
    number = ended_by() or signal.SIGINT
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def install() -> None:
    """Install the handlers again, after a library has replaced them."""
    if threading.current_thread() is threading.main_thread():
        for number in _State.handled:
            signal.signal(number, _on_signal)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Block SIGTERM and SIGHUP in processes started in this context, for their lifetime.

    SLURM, systemd and terminals send signals to all processes of a job, but this process ends its
    children itself. It receives its own pending signals when the context ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer ``KeyboardInterrupt`` until ``allowed``, so that writes are completed.

    A second signal still ends the process at once.
    """
    before, _State.is_deferred = _State.is_deferred, True
    try:
        yield
    finally:
        _State.is_deferred = before


@contextmanager
def allowed() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` in this context, also for a deferred signal."""
    before, _State.is_deferred = _State.is_deferred, False
    try:
        if before and is_ending():
            raise KeyboardInterrupt
        yield
    finally:
        _State.is_deferred = before


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _State.first is not None:
        _end_now(number)
    _State.first = number
    if not _State.is_deferred:
        raise KeyboardInterrupt


def _end_now(number: int) -> NoReturn:
    text = "nas: ended at once by a second signal; finished work is saved\n"
    with suppress(OSError, ValueError):
        # A progress bar may have hidden the cursor.
        os.write(2, (_SHOW_CURSOR + "\n" if sys.stderr.isatty() else "").encode() + text.encode())
    os._exit(128 + number)
