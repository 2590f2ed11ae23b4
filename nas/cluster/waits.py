"""Reports of waiting workers to their driver, through the key-value store of Ray's head.

The store needs no further process and no disk, since a full disk may be the cause of waiting.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray

from nas.cluster import ray_internals
from nas.core.every import every
from nas.core.retry import OnWait
from nas.searching.controller.session import Listener

_PREFIX = "wait-"
_POLL_S = 1.0


def tell_driver(who: str) -> OnWait:
    """Return an ``OnWait`` for ``nas.core.retry`` in a worker; ``who`` names the waiting trial."""

    def report(reason: str) -> None:
        if not ray.is_initialized():
            # Ray may start one at a call outside of a cluster.
            return
        # If the head is unreachable, waiting continues without a report.
        with suppress(Exception):
            key = f"{_PREFIX}{uuid.uuid4().hex}"
            ray_internals.put_text(key, f"{who}: {reason}", _namespace())

    return report


@contextmanager
def hear_waits(listener: Listener | None) -> Iterator[None]:
    """Report the waits of the driver's workers to ``listener`` within the context."""
    if listener is None:
        yield
        return

    def report() -> None:
        reasons: list[str] = []
        # If the head is unreachable, the search reports it, or the next poll succeeds.
        with suppress(Exception):
            if ray.is_initialized():
                reasons = ray_internals.take_texts(_PREFIX, _namespace())
        for reason in reasons:
            listener.on_wait(reason)

    with every(_POLL_S, report):
        yield


def _namespace() -> str:
    """Return the search's own namespace: several may share a cluster."""
    return f"joulenas-{ray.get_runtime_context().get_job_id()}"
