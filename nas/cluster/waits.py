"""Workers report to their driver what they wait for, through the key-value store of Ray's head.

It needs neither a disk, which may be what is full, nor another process.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray

from nas.cluster import ray_internals
from nas.core.every import every
from nas.core.retry import Tell
from nas.searching.controller.session import Listener

_PREFIX = "wait-"
_LOOK_S = 1.0


def tell_driver(who: str) -> Tell:
    """Return a ``Tell`` for ``nas.core.retry`` in a worker; ``who`` is what waits."""

    def tell(reason: str) -> None:
        if not ray.is_initialized():
            # Ray may start one at a call outside of a cluster.
            return
        # Where the head is away, waiting goes on without a report.
        with suppress(Exception):
            key = f"{_PREFIX}{uuid.uuid4().hex}"
            ray_internals.put_text(key, f"{who}: {reason}", _namespace())

    return tell


@contextmanager
def hear_waits(listener: Listener | None) -> Iterator[None]:
    """Report to ``listener`` in this context what the driver's workers wait for."""
    if listener is None:
        yield
        return

    def hear() -> None:
        reasons: list[str] = []
        # Where the head is away, the search itself reports it, or it is back the next time.
        with suppress(Exception):
            if ray.is_initialized():
                reasons = ray_internals.take_texts(_PREFIX, _namespace())
        for reason in reasons:
            listener.on_wait(reason)

    with every(_LOOK_S, hear):
        yield


def _namespace() -> str:
    """Return the search's own namespace: several may share a cluster."""
    return f"joulenas-{ray.get_runtime_context().get_job_id()}"
