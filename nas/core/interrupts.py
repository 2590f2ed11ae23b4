"""Ctrl-C, SIGTERM and SIGHUP end a command alike: what is done is kept and shown, then it ends.

SLURM, Kubernetes, systemd and ``timeout`` send SIGTERM, a terminal or connection that closes
SIGHUP, which ``nohup`` has ignored. A second signal of any kind ends the process at once. Ray and
Ray Tune install handlers of their own, so that ours are installed again behind them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

_Handler = Callable[[int, FrameType | None], Any]
_SHOW_CURSOR = "\x1b[?25h"


class _State:
    """Of this process: which signals are ours, which came first, and who else is to be told."""

    handled: frozenset[int] = frozenset()
    first: int | None = None
    forward: _Handler | None = None


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
        _State.handled, _State.forward = frozenset(), None
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
def told_to_library() -> Iterator[Callable[[], None]]:
    """Give what puts our handler before the one that a library has installed for Ctrl-C.

    The library's is called for the first signal, in place of ``KeyboardInterrupt``.
    """

    def take_over() -> None:
        theirs = _theirs()
        if theirs is not None and signal.SIGINT in _State.handled:
            _State.forward = theirs
            install()

    try:
        yield take_over
    finally:
        _State.forward = None
        install()


def _theirs() -> _Handler | None:
    """The handler of Ctrl-C, where it is neither ours nor Python's."""
    if threading.current_thread() is not threading.main_thread():
        return None
    current = signal.getsignal(signal.SIGINT)
    is_theirs = callable(current) and current not in (_on_signal, signal.default_int_handler)
    return current if is_theirs and callable(current) else None


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _State.first is not None:
        _end_now(number)
    _State.first = number
    theirs = _State.forward or _theirs()
    if theirs is None:
        raise KeyboardInterrupt
    theirs(number, frame)


def _end_now(number: int) -> NoReturn:
    text = "nas: ended at once by a second signal; what was done is kept\n"
    with suppress(OSError, ValueError):
        # A progress bar may have hidden it.
        os.write(2, (_SHOW_CURSOR + "\n" if sys.stderr.isatty() else "").encode() + text.encode())
    os._exit(128 + number)
