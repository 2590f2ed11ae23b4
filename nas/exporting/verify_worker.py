"""Reload formats of an artifact in a fresh process, run them and print the findings.

stdin has the job as one JSON object, stdout the findings as another. Libraries print to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.exporting.artifact_format import ARTIFACT_FORMAT
from nas.exporting.formats.base import Loaded, StoredNetwork
from nas.exporting.formats.registry import FORMATS
from nas.tasks.base.artifact_files import CHECK
from nas.training.weights import read_description
from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.protocol import Protocol
from predictors.meters.base import EnergyReading

if TYPE_CHECKING:
    from torch import Tensor


def main() -> int:
    """Read the job, inspect each format and print the findings by its name."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    stored = FORMATS | {ARTIFACT_FORMAT.name: ARTIFACT_FORMAT}
    out.write(json.dumps({n: _inspect(stored[n], job) for n in job["formats"]}, allow_nan=False))
    out.close()
    return 0


def _inspect(stored: StoredNetwork, job: Mapping[str, Any]) -> dict[str, Any]:
    """Reload one format; return the difference of its outputs, its quality and its joules."""
    from search_spaces.models.device import use_device

    folder, device = Path(job["folder"]), "cpu" if stored.on_cpu else str(job["device"])
    protocol = Protocol.from_dict(job["protocol"])
    use_device(device)
    lock = DeviceLock(None, device)
    # This work may overlap with training, but not with a measurement.
    with lock.shared():
        loaded = stored.load(folder, device=device, threads=protocol.threads)
        findings = _evaluate(loaded, stored.other_batches, folder, str(job["task"]), device)
    findings |= {"runtime": loaded.runtime, "mode": None, "reading": None}
    if job["measure"]:
        # The search's meter may read a GPU; a format on the CPU uses the CPU's meter.
        meter = job["meter"] if device == job["device"] else None
        reading, mode = _measure(loaded, meter, protocol, device, folder, lock)
        findings |= {"mode": mode, "reading": reading.to_dict()}
    return findings


def _evaluate(
    loaded: Loaded, other_batches: tuple[int, ...], folder: Path, task_name: str, device: str
) -> dict[str, Any]:
    from safetensors.torch import load_file

    from nas.tasks.registry import get_task
    from nas.training.evaluate import evaluate
    from nas.training.objective import objective_of

    _, workload = read_description(folder)
    check = load_file(str(folder / CHECK))
    sizes = (len(check["inputs"]), *other_batches)
    difference = largest_difference(loaded, check, sizes, device)
    task = get_task(task_name)
    validation, test = (
        evaluate(
            loaded.call,
            task.split(name),
            batch_size=workload.batch_size,
            objective=objective_of(task, workload),
            device=device,
        )
        for name in ("validation", "test")
    )
    return {
        "output_difference": difference,
        "largest_output": float(check["outputs"].abs().max()),
        "validation_quality": validation.value,
        "n_validation": validation.n_samples,
        "test_quality": test.value,
        "test_quality_se": test.standard_error,
    }


def largest_difference(
    loaded: Loaded, check: Mapping[str, Tensor], sizes: Iterable[int], device: str
) -> float:
    """Return the largest difference of outputs in batches of ``sizes``.

    Raises:
        ValueError: outputs have another shape, or are not finite.
    """
    largest = 0.0
    for size in sizes:
        outputs = loaded.call(check["inputs"][:size].to(device)).float().cpu()
        expected = check["outputs"][:size]
        if outputs.shape != expected.shape:
            raise ValueError(
                f"outputs of a batch of {len(expected)} must have the shape "
                f"{tuple(expected.shape)}, got {tuple(outputs.shape)}"
            )
        if not outputs.isfinite().all():
            raise ValueError(f"outputs of a batch of {len(expected)} must be finite, got others")
        largest = max(largest, float((outputs - expected).abs().max()))
    return largest


def _measure(
    loaded: Loaded,
    meter_name: str | None,
    protocol: Protocol,
    device: str,
    folder: Path,
    lock: DeviceLock,
) -> tuple[EnergyReading, str]:
    """Measure joules on the stored inputs; return the reading and the mode of the network."""
    import torch
    from safetensors.torch import load_file

    from predictors.measurement.reading import make_reading
    from predictors.measurement.windows import WindowLoop, run_windows
    from predictors.meters.select import choose_meter
    from search_spaces.compression.apply import prepare_for_inference

    architecture, workload = read_description(folder)
    # No further format has a cache: whole passes are measured, per sample.
    workload = workload.with_phase(None)
    with lock.shared():
        inputs: Tensor = load_file(str(folder / CHECK))["inputs"].to(device)
        work: Callable[[], object] = partial(loaded.call, inputs)
        mode = "as it is"
        if loaded.hold is not None:
            work = loaded.hold(inputs)
        if loaded.module is not None:
            prepared = prepare_for_inference(loaded.module, architecture, inputs)
            work, mode = prepared.repeat(inputs), prepared.mode
    meter = choose_meter(meter_name, device)
    meter.set_own_processes(lock.processes)
    sync = torch.cuda.synchronize if device != "cpu" else (lambda: None)
    loop = WindowLoop(work, meter, protocol, sync=sync)
    with lock.exclusive():
        measurement = run_windows(loop, protocol)
    # Cards are published, and must not name this machine.
    reading = replace(make_reading(measurement, workload, meter, protocol), host=None)
    meter.close()
    return reading, mode


if __name__ == "__main__":
    sys.exit(main())
