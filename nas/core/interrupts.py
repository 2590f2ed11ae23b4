"""Ctrl-C, SIGTERM and SIGHUP end a command alike: what is done is kept and shown, then it ends.

SLURM, Kubernetes, systemd and ``timeout`` send SIGTERM, a terminal or connection that closes
SIGHUP, which ``nohup`` has ignored. A second signal of any kind ends the process at once. Ray
installs handlers of its own, so that ours are installed again behind them.
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
    """Of this process: which signals are ours, which came first, and whether it is held back."""

    handled: frozenset[int] = frozenset()
    first: int | None = None
    is_deferred: bool = False


@contextmanager
def handled() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for the first signal in this context, wherever it is entered.

    A handler that the process has already, or a signal that it ignores, stays as it is.
    """
    if threading.current_thread() is not threading.main_thread() or _State.handled:
        yield
        return
    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: of for number, of in usual.items() if signal.getsignal(number) == of}
    _State.handled, _State.first = frozenset(before), None
    install()
    try:
        yield
    finally:
        _State.handled = frozenset()
        for number, handler in before.items():
            signal.signal(number, handler)


def ended_by() -> int | None:
    """The signal that ended the last context of ``handled`` early, or ends this one."""
    return _State.first


def is_ending() -> bool:
    """Whether a signal has come in the context of ``handled`` that is in force."""
    return bool(_State.handled) and _State.first is not None


def exit_code() -> int:
    """The exit code of a command that a signal ended: 143 by SIGTERM, 129 by SIGHUP, else 130."""
    return 128 + (ended_by() or signal.SIGINT)


def name_of_end() -> str:
    """What ended the command, for people."""
    number = ended_by() or signal.SIGINT
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def install() -> None:
    """Install our handlers again, where a library has replaced those of ``handled``."""
    if threading.current_thread() is threading.main_thread():
        for number in _State.handled:
            signal.signal(number, _on_signal)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Keep SIGTERM and SIGHUP from processes started in this context, for as long as they run.

    SLURM, systemd and terminals send them to all processes of a job at once. Those that this
    one starts are to end when it is done, and it takes the signal that came meanwhile when the
    context ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def deferred() -> Iterator[None]:
    """Hold ``KeyboardInterrupt`` back until ``allowed``: what is being written is written whole.

    A second signal still ends the process at once.
    """
    before, _State.is_deferred = _State.is_deferred, True
    try:
        yield
    finally:
        _State.is_deferred = before


@contextmanager
def allowed() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` in this context, also for a signal that was held back."""
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
    text = "nas: ended at once by a second signal; what was done is kept\n"
    with suppress(OSError, ValueError):
        # A progress bar may have hidden it.
        os.write(2, (_SHOW_CURSOR + "\n" if sys.stderr.isatty() else "").encode() + text.encode())
    os._exit(128 + number)
