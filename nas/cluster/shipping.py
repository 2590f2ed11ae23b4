"""Ship our code to the nodes of a cluster, and check that they see the user's files.

Code is sent by Ray's ``py_modules`` (``connect``), which store it by its hash: workers, and the
processes in which they measure, run this process's version. Other packages must be installed on
the cluster. Data are not sent: they are on a path that all nodes see, where each node's
fingerprints must equal this machine's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.cluster.connect import ClusterError, connected
from nas.cluster.measuring import measuring_options
from nas.records.config import SearchConfig
from nas.records.fingerprints import digests_of, fingerprints
from nas.store.files_host import place_of

# Between processes of one user only: never for untrusted input.
pack: Callable[[Any], bytes] = ray.cloudpickle.dumps
unpack: Callable[[bytes], Any] = ray.cloudpickle.loads

# Enough for a worker to start.
_ANSWER_S = 60.0


def by_bytes() -> Callable[..., bytes]:
    """Return a function for a task that unpacks a function and calls it; see ``answer_of``.

    It needs none of our packages and passes bytes: the process of Ray's client on the cluster
    cannot import them. Handles of actors, which must not be packed, are further arguments.
    """

    def run(called: bytes, *handles: Any) -> bytes:
        import ray.cloudpickle as pickled

        function, arguments = pickled.loads(called)
        answer: list[Any] = [None, None]
        try:
            answer[0] = function(*arguments, *handles)
        except Exception as error:
            answer[1] = error
        return bytes(pickled.dumps(answer))  # type: ignore[no-untyped-call]

    return run


def answer_of(task: Any, what: str) -> Any:
    """Return what the function of ``by_bytes`` returned.

    Raises:
        ClusterError: its process died; ``what`` names it.
        Exception: what the function raised.
    """
    try:
        result, raised = unpack(ray.get(task))
    except ray.exceptions.TaskCancelledError:
        return None
    except ray.exceptions.RayError as error:
        cause = str(error).strip().splitlines()[-1]
        raise ClusterError(f"{what} ended on the cluster: {cause}") from None
    if raised is not None:
        raise raised
    return result


def call_there(
    address: str, name: str | None, function: Callable[..., Any], *arguments: Any
) -> Any:
    """Call ``function`` on a node of the cluster at ``address``.

    The node is one with the device called ``name``, or with any that measures.

    Raises:
        ClusterError: there is no such cluster, or the process died.
        Exception: what ``function`` raised there.
    """
    with connected(address):
        task: Any = ray.remote(**measuring_options(name))(by_bytes())
        return answer_of(task.remote(pack((function, arguments))), "what was asked of a node")


def check_paths(config: SearchConfig, files: Iterable[Path], folder: Path) -> None:
    """Check that the task's files on each node equal those here, and that the run's files exist.

    Those are in ``folder``, or in ``config.files_at``; an object store is not checked.

    Raises:
        ClusterError: a node does not; the message names node and path.
    """
    here = digests_of(label for label in fingerprints(config, files) if _is_seen(label, config))
    # Labels alone: the configuration may contain a password, which Ray would store with the code.
    labels = tuple(here)
    for address, there in _on_each_node(lambda: digests_of(labels)).items():
        for label, digest in here.items():
            if there.get(label) != digest:
                what, _, path = label.partition(": ")
                raise ClusterError(
                    f"every node must see the {what} {path} as it is here: node {address} "
                    f"{'has another there' if label in there else 'has none there'}"
                )
    place = folder if config.files_at is None else place_of(config.files_at)
    if isinstance(place, Path):
        _check_shared(place.resolve())


def _is_seen(label: str, config: SearchConfig) -> bool:
    """Whether nodes must see the file of ``label``: not that of a checkpoint, which is copied."""
    if config.checkpoint is None or config.files_at is None:
        return True
    parent = Path(config.task).resolve().parent
    return not Path(label.partition(": ")[2]).is_relative_to(parent)


def _check_shared(folder: Path) -> None:
    near = next(path for path in (folder, *folder.parents) if path.is_dir())
    mark = near / f".joulenas-{secrets.token_hex(8)}"
    try:
        mark.touch()
        seen = _on_each_node(lambda: mark.is_file())
    except OSError as error:
        raise ClusterError(
            f"run folder must be writable, got {folder}: {error.strerror}"
        ) from None
    finally:
        mark.unlink(missing_ok=True)
    for address, is_there in seen.items():
        if not is_there:
            raise ClusterError(
                f"every node must see the run's folder, got {folder}, which node {address} does "
                "not: name one on a file system that all share, or --storage s3://..."
            )


def _on_each_node(function: Callable[[], Any]) -> dict[str, Any]:
    """Call ``function`` on each living node; return the results by the node's address."""
    nodes: list[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    tasks: dict[Any, str] = {}
    for node in nodes:
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task: Any = ray.remote(num_cpus=0, max_retries=1)(function)
            tasks[task.options(scheduling_strategy=there).remote()] = node["NodeManagerAddress"]
    results = {}
    for task, address in tasks.items():
        try:
            results[address] = ray.get(task, timeout=_ANSWER_S)
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1]
            raise ClusterError(f"node {address} must be able to run tasks: {cause}") from None
    return results
