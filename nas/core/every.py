"""Call a function at regular intervals within a context."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def every(seconds: float, function: Callable[[], object]) -> Iterator[None]:
    """Call ``function`` at intervals of ``seconds`` within the context, in its own thread."""
    has_ended = threading.Event()

    def run() -> None:
        while not has_ended.wait(seconds):
            function()

    thread = threading.Thread(target=run, name="joulenas-every", daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()
