"""A search through ``ray://``: the driver runs on the cluster and reports to this process.

Ray's client cannot run Tune, since trials would be on the cluster and the study here. So the whole
search is a task on the head node, and the run directory is on the cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.util.queue import Empty, Queue

from nas.cluster.connect import ClusterError, connected
from nas.cluster.shipping import answer_of, by_bytes, pack, unpack
from nas.searching.controller.session import Listener
from nas.store.driver import CLIENT

# Searches in a run directory, and reports to a listener.
Search = Callable[[Path, Listener | None], Any]
# The interval of reading reports from the cluster.
_POLL_S = 0.5


def search_there(
    search: Search,
    folder: Path,
    address: str,
    listener: Listener | None,
) -> None:
    """Call ``search`` with a run directory and a listener, in a process of the cluster.

    Ctrl-C ends it as it would end a local search.

    Raises:
        ClusterError: there is no cluster at ``address``, the folder is relative, or the process
            died.
        Exception: what ``search`` raised there.
    """
    if not folder.is_absolute():
        raise ClusterError(
            f"with {CLIENT} the run's folder must be a whole path on the cluster, got {folder}"
        )
    with connected(address):
        queue = Queue(actor_options={"num_cpus": 0})
        task: Any = ray.remote(num_cpus=0, max_retries=0)(by_bytes())
        called = pack((_search, (search, folder, listener is not None)))
        running = task.remote(called, queue)
        try:
            _forward_reports(running, queue, listener)
        except KeyboardInterrupt:
            ray.cancel(running, force=False)
            _forward_reports(running, queue, listener)
        answer_of(running, "the search")


def _search(search: Search, folder: Path, has_listener: bool, queue: Any) -> None:
    search(folder, _Forwarder(queue) if has_listener else None)


class _Forwarder:
    """Listener on the cluster that forwards each call to the local one."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *arguments: self._queue.put((name, pack(arguments)))


def _forward_reports(running: Any, queue: Any, listener: Listener | None) -> None:
    is_over = False
    while not is_over:
        is_over = bool(ray.wait([running], timeout=_POLL_S)[0])
        while listener is not None:
            try:
                name, arguments = queue.get_nowait()
            except Empty:
                break
            getattr(listener, name)(*unpack(arguments))
