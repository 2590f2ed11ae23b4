"""Measure one architecture in a fresh process, so that no candidate inherits another's state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from predictors.campaign.protocol import Protocol
from predictors.campaign.records import EnergyRecord
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

_TIMEOUT_S = 600.0


class MeasureError(RuntimeError):
    """A measurement failed; the message is the first cause in one line."""


def measure_fresh(
    architecture: Architecture,
    workload: Workload,
    *,
    protocol: Protocol,
    device: str = "cpu",
    meter: str | None = None,
    weights: Path | None = None,
    inputs: Path | None = None,
    lock_folder: Path | None = None,
    seed: int = 0,
    threads: int = 1,
    order: int = 0,
    timeout_s: float = _TIMEOUT_S,
) -> EnergyRecord:
    """Joules per sample of ``architecture`` on ``workload``.

    ``weights`` are trained fp32 weights in safetensors (random ones when ``None``), ``inputs``
    a ``.npy`` batch (random when ``None``). Warm-up and windows hold ``lock_folder``'s lock of
    the device alone; imports and compiling do not. ``threads`` counts on CPUs only.

    Raises:
        MeasureError: the process failed or took longer than ``timeout_s``.
    """
    job = {
        "architecture": architecture.to_dict(),
        "workload": workload.to_dict(),
        "protocol": protocol.to_dict(),
        "device": device,
        "meter": meter,
        "weights": None if weights is None else str(weights),
        "inputs": None if inputs is None else str(inputs),
        "lock_folder": None if lock_folder is None else str(lock_folder),
        "seed": seed,
        "threads": threads,
        "order": order,
    }
    environment = dict(os.environ)
    if device == "cpu":
        # Read when torch is imported, so before the job's own count can be set.
        environment["OMP_NUM_THREADS"] = str(threads)
        # A pool of compilers would start more processes than one small model has kernels.
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-m", "predictors.campaign.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A group of its own, so that compilers it starts are ended with it.
        start_new_session=True,
    )
    try:
        out, err = process.communicate(json.dumps(job), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise MeasureError(f"measuring took longer than {timeout_s:g} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise MeasureError(_cause(process.returncode, err))
    return EnergyRecord.from_dict(json.loads(out))


def _cause(code: int, stderr: str) -> str:
    if code < 0:
        return f"the measuring process was ended by signal {signal.Signals(-code).name}"
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return lines[-1] if lines else f"the measuring process ended with code {code}"
