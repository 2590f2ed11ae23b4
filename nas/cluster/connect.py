"""The Ray of a search: a local one that it starts, or a cluster that it joins."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray

from nas.cluster import ray_internals
from nas.cluster.ray_internals import ClusterError as ClusterError
from nas.core import interrupts
from nas.core.scratch import clear_abandoned, scratch
from nas.core.user_folders import cache_folder
from nas.store.cluster_address import check_address, is_named_now
from nas.store.driver import CLIENT
from search_spaces.plugins import environment

# The resource of a node that measures, and a measurement's share of it (``measuring``).
METER_RESOURCE = "joule_meter"
METER_SHARE = 0.5
_CONNECT_TIMEOUT_S = 5.0
# Packages whose code is sent to a cluster (``shipping``).
_PACKAGES = ("nas", "search_spaces", "predictors")


def meter_resources(name: str | None) -> tuple[str, ...]:
    """Resources of a node with the device called ``name``, or with any that measures."""
    return (METER_RESOURCE,) if name is None else (METER_RESOURCE, f"{METER_RESOURCE}_{name}")


@contextmanager
def cluster(
    address: str | None, workers: int, device: str, measure_on: Sequence[str] = ()
) -> Iterator[None]:
    """Start a local Ray for ``workers`` trials, or connect to the one at ``address``.

    ``measure_on`` are names of this machine's devices, for a local Ray.

    Raises:
        ClusterError: there is no cluster at ``address``, it has no ``joule_meter``, this process
            is connected to another Ray, or the installed Ray is not supported.
    """
    on_ray = _local(workers, device, measure_on) if address is None else connected(address)
    with on_ray:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if resources.get(METER_RESOURCE, 0) < 1:
            raise ClusterError(
                f"the cluster must have a node with the resource {METER_RESOURCE}: start it with "
                f"ray start --resources '{{\"{METER_RESOURCE}\": 1}}'"
            )
        yield


@contextmanager
def _local(workers: int, device: str, measure_on: Sequence[str]) -> Iterator[None]:
    """Start a Ray for this search alone, whose token is in no file."""
    if ray.is_initialized():
        raise ClusterError(
            "this process must not be connected to Ray before a search starts one: call "
            "ray.shutdown(), or pass the address of that Ray"
        )
    _prepare()
    # Created here, so that workers use the same folder if there is no home.
    cache_folder()
    meters: dict[str, float] = {METER_RESOURCE: max(1, len(measure_on))}
    meters |= {meter_resources(name)[-1]: 1 for name in measure_on}
    token = secrets.token_hex(32)
    with (
        ray_internals.listening(to_network=False),
        ray_internals.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token),
        _temporary_folder() as temporary,
        _shut_down_afterwards(),
    ):
        with (
            _failing_as("Ray must be able to start on this machine"),
            # Otherwise workers see only GPU 0 and could not train on ``cuda:1``.
            ray_internals.environment(RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES="1"),
            ray_internals.without_unused_processes(),
            interrupts.kept_from_children(),
        ):
            ray.init(
                # Without an address it would join another Ray that runs on this machine.
                address="local",
                num_cpus=workers,
                num_gpus=1 if device.startswith("cuda") else 0,
                resources=meters,
                include_dashboard=False,
                # The sampler and the study need little; Ray's default is 30% of memory.
                object_store_memory=200 * 1024 * 1024,
                **temporary,
                **_options(),
            )
        ray_internals.check_loopback()
        # Ray replaces the handler of SIGTERM by one that aborts.
        interrupts.install()
        yield


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to the Ray at ``address``, whose workers use this process's version of our code.

    A process that is already connected to it remains connected: a worker of that cluster
    (``client``), or a notebook.

    Raises:
        ClusterError: there is none, it rejects this process, this process is connected to another
            Ray, or the installed Ray is not supported.
        ValueError: the address is from a run folder and this user has not named it.
    """
    check_address(address)
    if ray.is_initialized():
        _check_same(address)
        yield
        return
    _prepare()
    requirement = f"address must be that of a running Ray cluster, got {address!r}"
    with _failing_as(requirement):
        _check_reachable(address)
    with (
        ray_internals.listening(to_network=True),
        _token_for(address),
        _shut_down_afterwards(),
    ):
        with _failing_as(requirement, _about_tokens()):
            # Ray's compiled parts require a plain ``str``.
            ray.init(address=str(address), **_options(_packages_here()))
        interrupts.install()
        yield


def _packages_here() -> list[str]:
    """Return the folders of our packages, for ``py_modules``."""
    folders = []
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        folders.append(str(Path(spec.origin).parent))
    return folders


def _check_same(address: str) -> None:
    context = ray.get_runtime_context()
    if context.get_task_id() is None and context.gcs_address != str(address):
        raise ClusterError(
            f"this process must not be connected to another Ray than {address}, got "
            f"{context.gcs_address}: call ray.shutdown()"
        )


@contextmanager
def _shut_down_afterwards() -> Iterator[None]:
    """Disconnect this process at the end of the context.

    Signals are deferred, since an interrupted shutdown leaves the process half connected.
    """
    try:
        yield
    finally:
        with interrupts.deferred():
            ray.shutdown()


@contextmanager
def _temporary_folder() -> Iterator[dict[str, Any]]:
    """Remove Ray's sockets and logs, which Ray leaves, together with their folder.

    The environment variable ``RAY_TMPDIR`` names another folder, whose logs stay.
    """
    clear_abandoned()
    if "RAY_TMPDIR" in os.environ:
        yield {}
        return
    with scratch("ray") as folder:
        yield ray_internals.files_in(folder)


def _options(code: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options of every connection; ``code`` are package folders to send to workers."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    sent: dict[str, Any] = {}
    if environment():
        # Workers on any node load the plug-ins that this process has loaded.
        sent["env_vars"] = environment()
    if code:
        sent["py_modules"] = list(code)
    return options | ({"runtime_env": sent} if sent else {})


@contextmanager
def _failing_as(requirement: str, hint: str = "") -> Iterator[None]:
    """Convert an error to one line: ``requirement``, then the error's first line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(f"{requirement}: {str(error).strip().splitlines()[0]}{hint}") from error


def _about_tokens() -> str:
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return " (its token must be this process's)"
    return " (if it asks for a token, RAY_AUTH_TOKEN or ~/.ray/auth_token must have it)"


def _token_for(address: str) -> AbstractContextManager[None]:
    """Send this machine's token within the context if the Ray at ``address`` requires one.

    A Ray that requires none must not receive it, since its answers would be rejected.
    """
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    has_token = named or _has_token_file()
    shows = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    if not is_named_now(address) and has_token and (shows or _requires_token(address)):
        raise ClusterError(
            f"cluster {address} is from a run folder and would be shown this machine's token: "
            f"give --address {address} if it is yours"
        )
    if "RAY_AUTH_MODE" in os.environ or not has_token or not _requires_token(address):
        return nullcontext()
    return ray_internals.environment(RAY_AUTH_MODE="token")


def _has_token_file() -> bool:
    try:
        return (Path.home() / ".ray" / "auth_token").is_file()
    except (OSError, RuntimeError):
        # The user has no home directory.
        return False


def _requires_token(address: str) -> bool:
    return ray_internals.requires_token(
        address.removeprefix(CLIENT),
        is_client=address.startswith(CLIENT),
        timeout_s=_CONNECT_TIMEOUT_S,
    )


def _prepare() -> None:
    """Check the installed Ray, and suppress output that is in records or secret."""
    ray_internals.check()
    # A failed trial's record has its cause; Tune would print tracebacks as well.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    ray_internals.silence()


def _check_reachable(address: str) -> None:
    """Raise ``OSError`` if nothing listens at ``host:port``; Ray would retry for minutes."""
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
