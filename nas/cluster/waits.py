"""What workers wait for, said to the driver that they work for.

By the key-value store of Ray's head, since it needs neither a disk, which may be what is full, nor
a process more. Ray has no public name for it: this is the one file that uses it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

# First: it sets what Ray reads when it is imported.

# isort: split
import ray
from ray.experimental import internal_kv

from nas.core.retry import Tell
from nas.searching.controller.session import Listener

_PREFIX = "wait-"
_LOOK_S = 1.0


def tell_driver(who: str) -> Tell:
    """A ``Tell`` for ``nas.core.retry`` in a worker; ``who`` is what waits."""

    def tell(reason: str) -> None:
        if not ray.is_initialized():
            # Asked outside of a cluster, Ray would start one.
            return
        try:
            key = f"{_PREFIX}{uuid.uuid4().hex}"
            internal_kv._internal_kv_put(key, f"{who}: {reason}", namespace=_namespace())
        except Exception:
            # The head is away: waiting goes on without a word.
            return

    return tell


@contextmanager
def hear_waits(listener: Listener | None) -> Iterator[None]:
    """Have ``listener`` hear what this driver's workers wait for, while the context lasts."""
    if listener is None:
        yield
        return
    ended = threading.Event()

    def hear() -> None:
        while not ended.wait(_LOOK_S):
            try:
                reasons = _take() if ray.is_initialized() else []
            except Exception:
                # The head is away: the search itself says so, or it is back the next time.
                continue
            for reason in reasons:
                listener.on_wait(reason)

    hearer = threading.Thread(target=hear, daemon=True)
    hearer.start()
    try:
        yield
    finally:
        ended.set()
        hearer.join()


def _take() -> list[str]:
    namespace, reasons = _namespace(), []
    for key in internal_kv._internal_kv_list(_PREFIX, namespace=namespace):
        reason = internal_kv._internal_kv_get(key, namespace=namespace)
        internal_kv._internal_kv_del(key, namespace=namespace)
        if reason is not None:
            reasons.append(reason.decode())
    return reasons


def _namespace() -> str:
    """That of the search: several may share a cluster."""
    return f"joulenas-{ray.get_runtime_context().get_job_id()}"
