"""Measure one architecture in a process of its own: no candidate inherits another's state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Required, TypedDict, Unpack

from nas.core.names import TORCH
from predictors.measurement.forked_worker import ForkServerLostError, can_fork
from predictors.measurement.process import MeasureError, MeasureProcess, MeasureTimeout
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# A model that takes longer to build and measure fails; compiling has a limit of its own.
TIMEOUT_S = 600.0

__all__ = [
    "MeasureError",
    "MeasureTimeout",
    "TIMEOUT_S",
    "make_job",
    "measure_candidate",
    "measure_fresh",
]


class MeasureSetup(TypedDict, total=False):
    """Keyword arguments of a measurement.

    ``device`` is ``cpu`` by default. ``weights`` are trained fp32 weights in safetensors,
    ``checkpoint`` a Hugging Face folder that has the weights instead, and ``inputs`` a ``.npy``
    batch; weights and inputs are random by default. ``origin`` goes into the record.
    ``lock_folder`` is the machine's own by default, ``seed`` 0. ``runtime`` runs the network
    (``search_spaces.runtimes``), torch by default.
    """

    protocol: Required[Protocol]
    device: str
    meter: str | None
    weights: Path | None
    checkpoint: Path | None
    origin: str
    inputs: Path | None
    lock_folder: Path | None
    seed: int
    runtime: str


def make_job(
    command: str,
    architecture: Architecture,
    workload: Workload,
    **setup: Unpack[MeasureSetup],
) -> dict[str, Any]:
    """Return the job of ``measurement.worker`` as plain data."""
    paths = {name: setup.get(name) for name in ("weights", "checkpoint", "inputs", "lock_folder")}
    return {
        "command": command,
        "architecture": architecture.to_dict(),
        "workload": workload.to_dict(),
        "protocol": setup["protocol"].to_dict(),
        "device": setup.get("device", "cpu"),
        "meter": setup.get("meter"),
        "seed": setup.get("seed", 0),
        "origin": setup.get("origin", ""),
        "runtime": setup.get("runtime", TORCH),
        **{name: None if path is None else str(path) for name, path in paths.items()},
    }


def measure_fresh(
    architecture: Architecture,
    workload: Workload,
    *,
    timeout_s: float | None = None,
    item_timeout_s: float = TIMEOUT_S,
    on_window: Callable[[int, float | None], None] | None = None,
    is_forked: bool = False,
    between_sd: float = 0.0,
    **setup: Unpack[MeasureSetup],
) -> EnergyRecord:
    """Measure joules per unit of ``architecture`` on ``workload``; see ``MeasureSetup``.

    Warm-up and windows hold the device's lock; imports and compiling do not. ``item_timeout_s``
    limits the measurement without compiling, ``timeout_s`` with it. ``on_window`` is called with
    the number of accepted windows and the relative half-width of the interval so far, ``None``
    while there are too few. ``is_forked`` forks a process that has torch imported, in place of a
    fresh interpreter. ``between_sd`` is the device's relative standard deviation between sessions,
    by which the reading's interval is widened (``EnergyReading.between_sessions``).

    Raises:
        OSError: ``is_forked``, and no server can be started that forks.
        ForkServerLostError: ``is_forked``, and the server ended.
        MeasureError: the process failed.
        MeasureTimeout: it took longer than a limit, or compiling a kind of layer longer than
            ``process.COMPILE_TIMEOUT_S``.
    """
    job = make_job("measure", architecture, workload, **setup)
    total_s = math.inf if timeout_s is None else timeout_s
    with MeasureProcess(job, item_timeout_s, total_s, is_forked=is_forked) as process:
        while True:
            message = process.receive()
            if message["event"] == "record":
                record = EnergyRecord.from_dict(message["record"])
                return replace(record, reading=record.reading.between_sessions(between_sd))
            if on_window is not None:
                on_window(message["n_repeats"], message["half_width"])


def measure_candidate(
    architecture: Architecture, workload: Workload, *, device: str = "cpu", **options: Any
) -> EnergyRecord:
    """``measure_fresh`` for one of many candidates: on a CPU, fork a process that has torch.

    A fork costs a fraction of a fresh interpreter. CUDA does not survive a fork, so that on a GPU
    each candidate has a fresh interpreter, as has every candidate where no server can be started.
    """
    measure = partial(measure_fresh, architecture, workload, device=device, **options)
    if device == "cpu" and can_fork() and not _lost_servers:
        try:
            return measure(is_forked=True)
        except (OSError, ForkServerLostError) as error:
            # Once is enough: a server that cannot start costs seconds each time.
            _lost_servers.append(error)
    return measure()


# Errors of servers that could not be started, or ended early.
_lost_servers: list[Exception] = []
