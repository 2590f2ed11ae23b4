"""The Ray that a search runs on: one of its own, or a cluster's."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Tune's loggers write CSV, JSON and TensorBoard files for each trial: the study has it all.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# Nor does anybody read snapshots of all trials, taken each ten seconds: the last is left.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1e9")
# Nothing but ``cluster`` starts a Ray: one that starts by itself, as at a call after the end, has
# no token and would meet the next search.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
# A task that runs out of memory is run again like any other that dies, not for ever.
os.environ.setdefault("RAY_task_oom_retries", "2")

import ray

from nas.core import interrupts
from nas.core.scratch import clear_abandoned, scratch
from nas.core.user_folders import cache_folder
from nas.store.cluster_address import check_address, is_named_now
from nas.store.driver import CLIENT
from search_spaces.plugins import environment

# What a node has that measures, and what a measurement takes of it (see ``measuring``).
METER_RESOURCE = "joule_meter"
METER_SHARE = 0.5
_CONNECT_TIMEOUT_S = 5.0
# Ray adds 66 characters to it in sockets' paths, which may have 107.
_LONGEST_FOLDER = 40
_SHOW_ALL = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


def meter_resources(name: str | None) -> tuple[str, ...]:
    """Resources of a node with the device called ``name``, or with any that measures."""
    return (METER_RESOURCE,) if name is None else (METER_RESOURCE, f"{METER_RESOURCE}_{name}")


class ClusterError(RuntimeError):
    """The Ray cluster cannot run the search; the message says why in one line."""


@contextmanager
def cluster(
    address: str | None, workers: int, device: str, measure_on: Sequence[str] = ()
) -> Iterator[None]:
    """A local Ray for ``workers`` trials, or a connection to the one at ``address``.

    ``measure_on`` are names of this machine's devices, for a local Ray.

    Raises:
        ClusterError: there is no cluster at ``address``, or it has no ``joule_meter``.
    """
    with _listening(address is not None), _connected(address, workers, device, measure_on):
        yield


@contextmanager
def _listening(to_network: bool) -> Iterator[None]:
    """Where the servers listen that Ray starts meanwhile: at loopback alone, or to the network.

    They run what anybody asks for who reaches them. On Linux they listen to the network, elsewhere
    they do not, and Ray has no option for it.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = to_network
    try:
        yield
    finally:
        # A cluster that this process starts later would be one that nothing else can reach.
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _connected(
    address: str | None, workers: int, device: str, measure_on: Sequence[str]
) -> Iterator[None]:
    with _own(workers, device, measure_on) if address is None else connected(address):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if resources.get(METER_RESOURCE, 0) < 1:
            raise ClusterError(
                f"the cluster must have a node with the resource {METER_RESOURCE}: start it with "
                f"ray start --resources '{{\"{METER_RESOURCE}\": 1}}'"
            )
        yield


@contextmanager
def _own(workers: int, device: str, measure_on: Sequence[str]) -> Iterator[None]:
    """A Ray for this search alone, whose token no file holds.

    Its workers see every GPU that this process sees, by the same numbers: shown GPU 0 alone they
    could not train on ``cuda:1``.
    """
    _quieten()
    # Made now where there is no home, so that workers have the same.
    cache_folder()
    token = secrets.token_hex(32)
    with (
        _environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token),
        _started(workers, device, measure_on),
    ):
        yield


@contextmanager
def _started(workers: int, device: str, measure_on: Sequence[str]) -> Iterator[None]:
    meters: dict[str, float] = {METER_RESOURCE: max(1, len(measure_on))}
    meters |= {meter_resources(name)[-1]: 1 for name in measure_on}
    with _temporary_folder() as temporary:
        try:
            with (
                _failing_as("Ray must be able to start on this machine"),
                _showing_all_gpus(),
                interrupts.kept_from_children(),
            ):
                ray.init(
                    # Of its own, even where another Ray runs here: without a word it would join
                    # that.
                    address="local",
                    num_cpus=workers,
                    num_gpus=1 if device.startswith("cuda") else 0,
                    resources=meters,
                    include_dashboard=False,
                    # The sampler and the study need little: Ray's default is 30% of memory.
                    object_store_memory=200 * 1024 * 1024,
                    **temporary,
                    **_options(),
                )
                # Ray replaces that of SIGTERM, by one that aborts.
                interrupts.install()
            yield
        finally:
            ray.shutdown()


@contextmanager
def _temporary_folder() -> Iterator[dict[str, Any]]:
    """Where Ray keeps sockets and logs, which it never removes: a folder that goes with it.

    The environment variable ``RAY_TMPDIR`` names another, whose logs stay.
    """
    clear_abandoned()
    if "RAY_TMPDIR" in os.environ:
        yield {}
        return
    with scratch("ray") as folder:
        # Paths of sockets are short.
        yield {"_temp_dir": str(folder)} if len(str(folder)) <= _LONGEST_FOLDER else {}


@contextmanager
def _showing_all_gpus() -> Iterator[None]:
    """Keep a Ray that starts meanwhile from hiding GPUs from its workers, which inherit this."""
    before = os.environ.get(_SHOW_ALL)
    os.environ[_SHOW_ALL] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SHOW_ALL]
        else:
            os.environ[_SHOW_ALL] = before


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to the Ray at ``address``, whose workers have our code as it is here.

    Raises:
        ClusterError: there is none, or it does not let us in.
        ValueError: the address is from a run folder and nobody here named it.
    """
    check_address(address)
    if ray.is_initialized():
        # In a worker of that very cluster (``client``).
        yield
        return
    _quieten()
    from nas.cluster.shipping import packages_here

    with ExitStack() as held:
        wanted = f"address must be that of a running Ray cluster, got {address!r}"
        with _failing_as(wanted):
            _check_reachable(address)
        held.enter_context(_with_token(address))
        try:
            with _failing_as(wanted, _about_tokens()):
                # Of Python's own type, as Ray's compiled parts require.
                ray.init(address=str(address), **_options(packages_here()))
            interrupts.install()
            yield
        finally:
            ray.shutdown()


def _options(code: Sequence[str] = ()) -> dict[str, Any]:
    """What any connection asks for; ``code`` are folders of packages to send to workers."""
    found: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    sent: dict[str, Any] = {}
    if environment():
        # So that workers, wherever they are, load the plug-ins that this process has loaded.
        sent["env_vars"] = environment()
    if code:
        sent["py_modules"] = list(code)
    return found | ({"runtime_env": sent} if sent else {})


@contextmanager
def _failing_as(wanted: str, hint: str = "") -> Iterator[None]:
    """Say in one line what was ``wanted`` and what Ray says instead."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(f"{wanted}: {str(error).strip().splitlines()[0]}{hint}") from error


def _about_tokens() -> str:
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return " (its token must be this process's)"
    return " (if it asks for a token, RAY_AUTH_TOKEN or ~/.ray/auth_token must have it)"


@contextmanager
def _with_token(address: str) -> Iterator[None]:
    """Show this machine's token where the Ray at ``address`` asks for one.

    To one that asks for none it must not be shown: its answers would be refused for want of it.
    """
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    has_token = named or _has_token_file()
    is_set = "RAY_AUTH_MODE" in os.environ
    shows = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    if not is_named_now(address) and has_token and (shows or _asks_for_token(address)):
        raise ClusterError(
            f"cluster {address} is from a run folder and would be shown this machine's token: "
            f"give --address {address} if it is yours"
        )
    if is_set or not has_token or not _asks_for_token(address):
        yield
        return
    with _environment(RAY_AUTH_MODE="token"):
        yield


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Have Ray read these variables while this lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    _read_environment_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _read_environment_again()


def _has_token_file() -> bool:
    try:
        return (Path.home() / ".ray" / "auth_token").is_file()
    except (OSError, RuntimeError):
        # A user without a home has no file there.
        return False


def _read_environment_again() -> None:
    """Ray reads it when it is imported, and has no option for this."""
    ray._raylet.Config.initialize("")  # type: ignore[attr-defined]
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


def _asks_for_token(address: str) -> bool:
    """Whether a question without a token is turned away; Ray itself would ask on for 20 s."""
    try:
        import grpc
    except ImportError:
        # The extra ``cluster`` has it.
        return False
    if address.startswith(CLIENT):
        server, question = address.removeprefix(CLIENT), "/ray.rpc.RayletDriver/ClusterInfo"
    else:
        server = ray._private.services.canonicalize_bootstrap_address(str(address)) or address
        question = "/ray.rpc.NodeInfoGcsService/CheckAlive"
    with grpc.insecure_channel(server) as channel:
        try:
            channel.unary_unary(question)(b"", timeout=_CONNECT_TIMEOUT_S)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def _quieten() -> None:
    """Keep Ray from printing what is in records, and from showing what is secret."""
    # What becomes of a trial is in its record; Tune would show tracebacks besides.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Ray has no option for these two. A worker's death is printed to stdout, amid our results; the
    # driver's command line, which may hold a password, is shown to all of the cluster.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    ray._private.utils.get_entrypoint_name = lambda: "nas"


def _check_reachable(address: str) -> None:
    """Raise ``OSError`` if nothing listens at ``host:port``: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
