"""The process that measures one architecture.

Run in a fresh interpreter, or forked by ``fork_server``. The first line on
stdin is the job as JSON; every line on stdout is a JSON message with an ``event``, which is
``error`` for a failure. Libraries print to stderr. The process ends when its parent does.
``compiling`` (with the number of kinds of layers) and ``compiled`` frame the compilation, whose
seconds do not count towards the measurement's time limit.

* ``measure``: the whole protocol under the device's lock; ``window`` messages, then ``record``.
* ``serve``: sends ``ready``, then executes ``prepare``, ``window`` and ``record`` (the record of
  all windows so far) until stdin ends, so that several processes can take turns on one device.
  The driver holds the lock.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import reduce
from operator import or_
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nas.core.estimate import Estimate
from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.memory import describe_shortage
from predictors.measurement.protocol import Protocol
from predictors.measurement.reading import energies_per_unit, make_reading
from predictors.measurement.records import EnergyRecord
from predictors.measurement.windows import Measurement, WindowLoop, is_rejected, run_windows
from predictors.meters.base import Meter, MeterError, Window
from predictors.meters.estimate import watts_per_core
from predictors.meters.select import choose_meter
from search_spaces.architecture import Architecture
from search_spaces.architecture.layer_kinds import compressed_layer_kinds
from search_spaces.architecture.simulated import simulated_choices
from search_spaces.workload import Workload

Send = Callable[[dict[str, Any]], None]


# Layers that a CPU compiles in the time limit of one kind.
_DEPTH_OF_A_KIND = 3


class Subject:
    """One architecture, built, compressed and ready to run, with its meter."""

    def __init__(
        self,
        job: Mapping[str, Any],
        send: Send = lambda message: None,
        lock: DeviceLock | None = None,
    ) -> None:
        """Build the job's architecture, which is not part of the measurement.

        ``send`` is called with a message before and after compiling. The lock is held shared
        while a GPU works.
        """
        import torch

        from search_spaces.models.device import use_device
        from search_spaces.runtimes.base import Setting
        from search_spaces.runtimes.registry import get_runtime

        self.architecture = Architecture.from_dict(job["architecture"])
        self.workload = Workload.from_dict(job["workload"])
        self.protocol = Protocol.from_dict(job["protocol"])
        self.seed, self.has_real_inputs = int(job["seed"]), job["inputs"] is not None
        device = str(job["device"])
        runtime = get_runtime(str(job["runtime"]))
        self.runtime = runtime.name
        use_device(device)
        if device == "cpu":
            torch.set_num_threads(self.protocol.threads)
        self.origin = str(job["origin"])
        model = self._network(job["weights"], job["checkpoint"])
        inputs = torch.from_numpy(_inputs(job["inputs"], self.workload, self.seed))
        on_gpu = lock is not None and device != "cpu"
        # Kernels would disturb another process's windows. Compiling runs none, and need not wait.
        with lock.shared() if lock is not None and on_gpu else nullcontext():
            # A CPU compiles the network whole, which takes longer the deeper it is.
            n_kinds = (
                -(-self.architecture.depth // _DEPTH_OF_A_KIND)
                if device == "cpu"
                else compressed_layer_kinds(self.architecture)
            )
            send({"event": "compiling", "n_kinds": n_kinds})
            running = runtime.run(
                model.to(device),
                self.architecture,
                self.workload,
                inputs.to(device),
                Setting(
                    self.protocol.threads,
                    lock.released if lock is not None and on_gpu else nullcontext,
                ),
            )
            send({"event": "compiled", "compile_s": running.compile_s})
        self.mode, self.compile_s = running.mode, running.compile_s
        self.versions = running.versions
        # Choices that are only simulated on this device are named by flags.
        self.flags = tuple(
            f"simulated_{choice}" for choice in simulated_choices(self.architecture, device)
        )
        self.meter: Meter = choose_meter(job["meter"], device)
        if lock is not None:
            self.meter.set_own_processes(lock.processes)
        sync: Callable[[], None] = torch.cuda.synchronize if device != "cpu" else (lambda: None)
        self.loop = WindowLoop(running.repeat, self.meter, self.protocol, sync=sync)

    def _network(self, weights: str | None, checkpoint: str | None) -> Any:
        """Build the network with the weights of a file or a checkpoint, else random ones."""
        from search_spaces.models.build import build_network

        if checkpoint is not None:
            from search_spaces.pretrained import load_checkpoint

            return load_checkpoint(checkpoint).with_input_shape(self.workload.input_shape).build()
        network = build_network(self.architecture, self.workload, generator_seed=self.seed)
        if weights is not None:
            from safetensors.torch import load_model

            load_model(network, weights)
        return network


# CPU seconds that the server which forked this process spent on imports, for its first child.
_cpu_before_s = 0.0


def main(cpu_before_s: float = 0.0) -> int:
    """Read the job and run it; ``cpu_before_s`` is added to the CPU time of this measurement."""
    global _cpu_before_s
    _cpu_before_s = cpu_before_s
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        out.write(json.dumps(message, allow_nan=False) + "\n")
        out.flush()

    job = json.loads(sys.stdin.readline())
    try:
        _run(job, send)
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        text = lines[0] if lines else "no message"
        # Our errors have a complete message; others need their type as well.
        ours = isinstance(error, ValueError | MeterError)
        shortage = describe_shortage(error)
        cause = text if ours else shortage or f"{type(error).__name__}: {text}"
        # A lost sensor, or memory that other processes hold, may be available to a retry; other
        # failures would repeat.
        is_lost = isinstance(error, MeterError) or shortage is not None
        send({"event": "error", "cause": cause, "is_lost": is_lost})
        return 1
    return 0


def _run(job: Mapping[str, Any], send: Send) -> None:
    folder, device = job["lock_folder"], str(job["device"])
    if job["command"] == "measure" and os.getsid(0) == os.getpid():
        threading.Thread(target=_end_with_parent, daemon=True).start()
    lock = DeviceLock(None if folder is None else Path(folder), device)
    subject = Subject(job, send, lock)
    if job["command"] == "serve":
        # Returns when stdin ends.
        _serve(subject, send)
    else:
        with lock.exclusive():
            started = time.perf_counter()
            measurement = run_windows(
                subject.loop,
                subject.protocol,
                lambda n, width: send(
                    {
                        "event": "window",
                        "n_repeats": n,
                        "half_width": width if width < float("inf") else None,
                    }
                ),
            )
            held_s = time.perf_counter() - started
        send({"event": "record", "record": make_record(subject, measurement, held_s).to_dict()})
    subject.meter.close()


def _end_with_parent() -> None:
    """Kill this process group once stdin ends, which the parent holds open.

    Otherwise a measurement whose command was killed would hold the device's lock.
    """
    sys.stdin.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _serve(subject: Subject, send: Send) -> None:
    send(
        {
            "event": "ready",
            "mode": subject.mode,
            "meter": subject.meter.name,
            "source": subject.meter.source,
            "is_estimate": subject.meter.is_estimate,
            "device": subject.meter.device,
        }
    )
    served = _Served(subject)
    for line in sys.stdin:
        send(served.execute(json.loads(line)["command"]))


class _Served:
    """The commands of ``serve``; keeps the accepted windows for ``record``."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._windows: list[tuple[Window, int]] = []
        self._n_rejected = 0
        self._flags: set[str] = set()
        self._idle_power_w: float | None = None
        self._held_s = 0.0

    def execute(self, command: str) -> dict[str, Any]:
        """Run ``command`` and return the message that answers it."""
        if command == "record":
            record = make_record(self._subject, self._measurement(), self._held_s)
            return {"event": "record", "record": record.to_dict()}
        started = time.perf_counter()
        answer = self._prepare() if command == "prepare" else self._window()
        self._held_s += time.perf_counter() - started
        return answer

    def _prepare(self) -> dict[str, Any]:
        self._idle_power_w, flags = self._subject.loop.prepare()
        self._flags |= set(flags)
        return {"event": "prepared", "flags": list(flags)}

    def _window(self) -> dict[str, Any]:
        window, n_batches = self._subject.loop.window()
        self._flags |= set(window.flags)
        if is_rejected(window):
            self._n_rejected += 1
        else:
            self._windows.append((window, n_batches))
        return {"event": "window", "window": asdict(window), "n_batches": n_batches}

    def _measurement(self) -> Measurement:
        windows, batches = zip(*self._windows, strict=True)
        energies_j = [w.energy_j / n for w, n in self._windows]
        # Processes of the other networks wait on the device; one that computes has another flag.
        flags = self._flags - {"foreign_process"}
        return Measurement(
            windows,
            batches,
            Estimate.of_median(energies_j).half_width <= self._subject.protocol.target_half_width,
            self._n_rejected,
            self._idle_power_w,
            tuple(sorted(flags)),
        )


def make_record(subject: Subject, measurement: Measurement, held_s: float) -> EnergyRecord:
    """Return the record of a measurement that held the device for ``held_s``."""
    meter, workload = subject.meter, subject.workload
    reading = make_reading(
        measurement,
        workload,
        meter,
        subject.protocol,
        flags=subject.flags,
        runtime=subject.runtime,
    )
    dram_j = [
        window.dram_energy_j / n / workload.n_units
        for window, n in zip(measurement.windows, measurement.batches, strict=True)
        if window.dram_energy_j is not None
    ]
    windows = measurement.windows
    reasons = [w.throttle_reasons for w in windows if w.throttle_reasons is not None]
    clocks_mhz = [w.sm_clock_mhz for w in windows if w.sm_clock_mhz is not None]
    # CPU time includes imports and compiling.
    spent_j = (
        (_cpu_before_s + used_cpu_s()) * watts_per_core()
        if meter.is_estimate
        else reading.power_w * held_s
    )
    return EnergyRecord(
        architecture=subject.architecture,
        workload=workload,
        reading=reading,
        repeats_j=energies_per_unit(measurement, workload),
        job=uuid.uuid4().hex[:12],
        mode=subject.mode,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        versions={**_versions(meter.driver_version), **subject.versions},
        protocol=subject.protocol.to_dict(),
        spent_energy_j=spent_j,
        temperature_c=max(
            (w.temperature_c for w in windows if w.temperature_c is not None), default=None
        ),
        sm_clock_mhz=median(clocks_mhz) if clocks_mhz else None,
        throttle_reasons=reduce(or_, reasons) if reasons else None,
        idle_power_w=measurement.idle_power_w,
        tick_s=meter.tick_s,
        cross_check=max(
            (w.cross_check for w in windows if w.cross_check is not None), key=abs, default=None
        ),
        dram_energy_j=median(dram_j) if dram_j else None,
        seed=subject.seed,
        has_real_inputs=subject.has_real_inputs,
        compile_s=subject.compile_s,
        origin=subject.origin,
    )


def used_cpu_s() -> float:
    """Return the CPU seconds of this process and of the compilers that it ran."""
    compilers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + compilers.ru_utime + compilers.ru_stime


def _versions(driver: str | None) -> dict[str, str]:
    import torch

    versions = {
        "joulenas": _version("joulenas"),
        "python": platform.python_version(),
        # torch's own version includes the CUDA that it was built for.
        "torch": str(torch.__version__),
        "torchao": _version("torchao"),
    }
    return versions if driver is None else versions | {"driver": driver}


def _version(name: str) -> str:
    """Return the version of a package, ``absent`` if it is not installed (ours may not be)."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _inputs(path: str | None, workload: Workload, seed: int) -> Any:
    """Return inputs from a file, or random ones: constant inputs draw up to 40% less power."""
    shape = (workload.batch_size, *workload.input_shape)
    if path is not None:
        # Map the file first: its header is checked against its length before memory is allocated.
        inputs = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        if inputs.shape != shape:
            raise ValueError(f"inputs must have shape {shape}, got {inputs.shape}")
        return inputs
    return random_inputs(workload, seed)


def random_inputs(workload: Workload, seed: int) -> Any:
    """Return a random batch of ``workload``."""
    shape = (workload.batch_size, *workload.input_shape)
    rng = np.random.default_rng(seed)
    if workload.is_image:
        return rng.standard_normal(shape, dtype=np.float32)
    return rng.integers(0, workload.vocab_size or 1, shape)


if __name__ == "__main__":
    sys.exit(main())
