"""Call a function at intervals while a context lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def every(seconds: float, function: Callable[[], object]) -> Iterator[None]:
    """Call ``function`` at this interval while the context lasts, in a thread of its own."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(seconds):
            function()

    thread = threading.Thread(target=run, name="joulenas-every", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
