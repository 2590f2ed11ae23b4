"""Adapter to Ray: the only file that uses private names and undocumented settings of Ray.

``check`` runs before a Ray is started or joined. It raises a one-line ``ClusterError`` if the
installed Ray lacks a name or has changed its use. Without them a local Ray would listen on the
network, or show the driver's command line to the cluster.
``tests/contracts/test_ray_internals.py`` tests what each name does.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

# Ray reads these when it is imported.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Tune's loggers would duplicate the study in CSV, JSON and TensorBoard files of each trial.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Tune's snapshots of all trials are never restored; the last is always written.
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    # Trials stay in the driver's folder: measuring processes of one folder share a server.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A Ray started implicitly, by a call outside of ``cluster``, would have no token.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # A task that runs out of memory is retried as often as one that dies, not endlessly.
    "RAY_task_oom_retries": "2",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402

_LOOPBACK = "127.0.0.1"
# Ray adds 66 characters to it in the paths of sockets.
_LONGEST_FOLDER = 40
_NEEDED = {
    "ray._private.ray_constants": ("ENABLE_RAY_CLUSTER",),
    "ray._private.node": ("Node",),
    "ray._private.services": ("canonicalize_bootstrap_address", "get_node_ip_address"),
    "ray._private.utils": ("get_entrypoint_name",),
    "ray._private.worker": ("print_to_stdstream",),
    "ray._raylet": (
        "Config",
        "AuthenticationMode",
        "AuthenticationTokenLoader",
        "get_authentication_mode",
    ),
    "ray.experimental.internal_kv": tuple(
        f"_internal_kv_{verb}" for verb in ("put", "get", "list", "del")
    ),
}
# Functions of ``ray._private.worker``, and the function that each calls and ``silence`` replaces.
_CALLS = {"init": "get_entrypoint_name", "listen_error_messages": "print_to_stdstream"}
# Methods of ``Node`` that start processes which no search uses (the autoscaler's monitor, the
# dashboard's server, the monitor of logs), and the method that calls each.
_UNUSED = {
    "start_monitor": "start_head_processes",
    "start_api_server": "start_head_processes",
    "start_log_monitor": "start_ray_processes",
}
# Attributes of a Tune trial.
_OF_TRIALS = (
    "run_metadata",
    "_default_result_or_future",
    "_default_placement_group_factory",
    "_state_json",
)


class ClusterError(RuntimeError):
    """The Ray cluster cannot run the search; the message is the cause in one line."""


def check() -> None:
    """Raise ``ClusterError`` if the installed Ray does not meet the needs of this file."""
    for module, names in _NEEDED.items():
        for name in names:
            _require(module, name)
    # A replaced function has no effect if Ray no longer calls it by that name.
    for name, called in _CALLS.items():
        caller = inspect.unwrap(_require("ray._private.worker", name))
        if called not in caller.__code__.co_names:
            raise _changed(f"{name} does not call {called}")
    node = _require("ray._private.node", "Node")
    for name, caller in _UNUSED.items():
        if name not in vars(node) or name not in vars(node)[caller].__code__.co_names:
            raise _changed(f"ray._private.node.Node.{caller} does not call {name}")


def _require(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise _changed(f"{module}.{name} is missing") from None


def _changed(what: str) -> ClusterError:
    return ClusterError(
        f"Ray must be of a version that JouleNAS supports, got {ray.__version__} ({what}): "
        f"install ray 2.60"
    )


@contextmanager
def listening(*, to_network: bool) -> Iterator[None]:
    """Make servers that Ray starts in this context listen on the network, or only on loopback.

    Anyone who reaches them can run code. By default they listen on the network on Linux and on
    loopback elsewhere; Ray has no option for it.

    Raises:
        ClusterError: they would listen on the network in spite of this setting.
    """
    constants: Any = import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = to_network
    try:
        if not to_network:
            address = _require("ray._private.services", "get_node_ip_address")()
            if address != _LOOPBACK:
                raise _changed(f"its servers would listen on {address}, not {_LOOPBACK}")
        yield
    finally:
        # A cluster that this process starts later must be reachable.
        constants.ENABLE_RAY_CLUSTER = before


def check_loopback() -> None:
    """Raise ``ClusterError`` where the local Ray that has started is on the network."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for node in nodes:
        if node["NodeManagerAddress"] != _LOOPBACK:
            raise _changed(f"its servers listen on {node['NodeManagerAddress']}, not {_LOOPBACK}")


@contextmanager
def without_unused_processes() -> Iterator[None]:
    """Have a local Ray that starts in this context start no process that a search does not use.

    Each imports Ray, which takes one to three CPU seconds that the first trials lack.
    """
    node: Any = _require("ray._private.node", "Node")
    before = {name: vars(node)[name] for name in _UNUSED}
    for name in _UNUSED:
        setattr(node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(node, name, method)


def silence() -> None:
    """Keep Ray from printing deaths of workers to stdout, and from showing the command line.

    The command line may hold a password, and Ray shows it to all of the cluster.
    """
    worker, utils = (import_module(f"ray._private.{name}") for name in ("worker", "utils"))
    vars(worker)["print_to_stdstream"] = lambda *_, **__: None
    vars(utils)["get_entrypoint_name"] = lambda: "nas"


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables in this context and have Ray read them again.

    Raises:
        ClusterError: Ray does not require a token in spite of ``RAY_AUTH_MODE``.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        _read_environment()
        raylet = import_module("ray._raylet")
        is_on = raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN
        if variables.get("RAY_AUTH_MODE") == "token" and not is_on:
            raise _changed("RAY_AUTH_MODE has no effect after Ray is imported")
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _read_environment()


def _read_environment() -> None:
    raylet = import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def files_in(folder: Path) -> dict[str, Any]:
    """Return the option of ``ray.init`` that puts sockets and logs into ``folder``.

    Ray removes neither, and raises if it does not support the option. Paths of sockets have at
    most 107 characters, so the result is empty for a longer folder.
    """
    return {"_temp_dir": str(folder)} if len(str(folder)) <= _LONGEST_FOLDER else {}


def requires_token(server: str, *, is_client: bool, timeout_s: float) -> bool:
    """Return whether the Ray at ``server`` rejects a call without a token.

    Ray itself would repeat the call for 20 s. Without gRPC, which the extra ``cluster`` installs,
    the answer is ``False``.
    """
    try:
        import grpc
    except ImportError:
        return False
    method = "/ray.rpc.RayletDriver/ClusterInfo"
    if not is_client:
        services = import_module("ray._private.services")
        server = services.canonicalize_bootstrap_address(server) or server
        method = "/ray.rpc.NodeInfoGcsService/CheckAlive"
    with grpc.insecure_channel(server) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=timeout_s)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def put_text(key: str, text: str, namespace: str) -> None:
    """Store ``text`` in the key-value store of the head node, which needs no disk."""
    _require("ray.experimental.internal_kv", "_internal_kv_put")(key, text, namespace=namespace)


def take_texts(prefix: str, namespace: str) -> list[str]:
    """Return and delete the texts whose keys start with ``prefix``."""
    store, texts = import_module("ray.experimental.internal_kv"), []
    for key in store._internal_kv_list(prefix, namespace=namespace):
        text = store._internal_kv_get(key, namespace=namespace)
        store._internal_kv_del(key, namespace=namespace)
        if text is not None:
            texts.append(text.decode())
    return texts


def forget_results(trial: Any, resources: Any) -> None:
    """Drop the results that a complete Tune trial holds; share its description of ``resources``.

    Raises:
        ClusterError: a Tune trial has no such attribute.
    """
    for name in _OF_TRIALS:
        if not hasattr(trial, name):
            raise _changed(f"a Tune trial has no {name}")
    metadata = trial.run_metadata
    trial.run_metadata = type(metadata)()
    # Tune reads checkpoints from it; these trials have none.
    trial.run_metadata.checkpoint_manager = metadata.checkpoint_manager
    trial._default_result_or_future = None
    trial.placement_group_factory = trial._default_placement_group_factory = resources
    # Tune would write all of it as JSON at the end of the experiment.
    trial._state_json = "{}"
