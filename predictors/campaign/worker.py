"""The fresh process that measures one architecture: a JSON job on stdin, a JSON record out.

Run as ``python -m predictors.campaign.worker``. Whatever libraries print goes to stderr; stdout
carries the result alone.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from predictors.campaign.exclusive import DeviceLock
from predictors.campaign.protocol import Protocol
from predictors.campaign.quality import median_interval
from predictors.campaign.records import EnergyRecord
from predictors.campaign.windows import Measurement, run_windows
from predictors.meters.base import EnergyReading, Meter
from predictors.meters.estimate import watts_per_core
from predictors.meters.select import choose_meter
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload


def measure(job: Mapping[str, Any]) -> EnergyRecord:
    """Build, compress, prepare, then measure under the device's lock."""
    import torch

    from search_spaces.compression.apply import compress, prepare_for_inference
    from search_spaces.models.build import build

    architecture = Architecture.from_dict(job["architecture"])
    workload = Workload.from_dict(job["workload"])
    protocol = Protocol.from_dict(job["protocol"])
    device = str(job["device"])
    if device == "cpu":
        torch.set_num_threads(int(job["threads"]))
    model = build(architecture, workload, generator_seed=int(job["seed"]))
    if job["weights"] is not None:
        from safetensors.torch import load_model

        load_model(model, job["weights"])
    inputs = torch.from_numpy(_inputs(job["inputs"], workload, int(job["seed"]))).to(device)
    prepared = prepare_for_inference(
        compress(model.to(device), architecture), architecture, inputs
    )
    meter = choose_meter(job["meter"], device)
    lock = (
        nullcontext()
        if job["lock_folder"] is None
        else DeviceLock(Path(job["lock_folder"]), device).exclusive()
    )
    sync: Callable[[], None] = torch.cuda.synchronize if device != "cpu" else (lambda: None)
    with lock:
        started = time.perf_counter()
        measurement = run_windows(lambda: prepared.call(inputs), meter, protocol, sync=sync)
        held_s = time.perf_counter() - started
    record = _record(
        architecture, workload, protocol, meter, measurement, prepared.mode, held_s, job["order"]
    )
    meter.close()
    return record


def main() -> int:
    """Read the job, write the record."""
    result = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    record = measure(json.load(sys.stdin))
    result.write(json.dumps(record.to_dict(), allow_nan=False))
    result.close()
    return 0


def _record(
    architecture: Architecture,
    workload: Workload,
    protocol: Protocol,
    meter: Meter,
    measurement: Measurement,
    mode: str,
    held_s: float,
    order: int,
) -> EnergyRecord:
    per_sample = [energy_j / workload.batch_size for energy_j in measurement.energies_j]
    energy_j, low_j, high_j = median_interval(per_sample)
    measured_s = sum(window.duration_s for window in measurement.windows)
    n_batches = sum(measurement.batches)
    power_w = sum(window.energy_j for window in measurement.windows) / measured_s
    latency_s = measured_s / n_batches
    idle_w = measurement.idle_power_w
    net_j = None if idle_w is None else energy_j - idle_w * latency_s / workload.batch_size
    last = measurement.windows[-1]
    flags = {flag for window in measurement.windows for flag in window.flags}
    # Estimated by CPU time, imports and compiling are included: they are work like any other.
    spent_j = time.process_time() * watts_per_core() if meter.is_estimate else power_w * held_s
    return EnergyRecord(
        architecture=architecture,
        workload=workload,
        reading=EnergyReading(
            energy_j=energy_j,
            low_j=low_j,
            high_j=high_j,
            n_repeats=len(per_sample),
            converged=measurement.converged,
            meter=meter.name,
            source=meter.source,
            is_estimate=meter.is_estimate,
            device=meter.device,
            workload=workload.key,
            batch_size=workload.batch_size,
            latency_s=latency_s,
            power_w=power_w,
            duration_s=measured_s,
            protocol_hash=protocol.hash,
            net_energy_j=net_j,
        ),
        repeats_j=tuple(per_sample),
        job=uuid.uuid4().hex[:12],
        order=order,
        mode=mode,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={
            "python": platform.python_version(),
            "torch": importlib.metadata.version("torch"),
        },
        protocol=protocol.to_dict(),
        spent_energy_j=spent_j,
        flags=tuple(sorted(flags)),
        temperature_c=last.temperature_c,
        sm_clock_mhz=last.sm_clock_mhz,
        power_limit_w=last.power_limit_w,
        throttle_reasons=last.throttle_reasons,
        idle_power_w=idle_w,
        tick_s=getattr(meter, "tick_s", None),
    )


def _inputs(path: str | None, workload: Workload, seed: int) -> Any:
    """Real inputs from a file, else random ones: constant inputs draw up to 40% less power."""
    shape = (workload.batch_size, *workload.input_shape)
    if path is not None:
        inputs = np.load(path, allow_pickle=False)
        if inputs.shape != shape:
            raise ValueError(f"inputs must have shape {shape}, got {inputs.shape}")
        return inputs
    rng = np.random.default_rng(seed)
    if workload.is_image:
        return rng.standard_normal(shape, dtype=np.float32)
    return rng.integers(0, workload.vocab_size or 1, shape)


if __name__ == "__main__":
    sys.exit(main())
