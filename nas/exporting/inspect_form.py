"""The fresh process that runs forms of an artifact and says what it finds.

Run as ``python -m nas.exporting.inspect_form``: the job is one JSON object on stdin, the findings
are another on stdout. What libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nas.exporting.artifact import CHECK
from nas.exporting.formats.form import Form, Loaded
from nas.exporting.formats.registry import FORMS
from nas.training.weights import read_description
from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.protocol import Protocol
from predictors.meters.base import EnergyReading

# Batches of these sizes must give what the whole batch gives.
_OTHER_BATCHES = (1, 3)


def main() -> int:
    """Read the job, inspect each form, print the findings by name."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    found = {name: _inspect(FORMS[name], job) for name in job["forms"]}
    out.write(json.dumps(found, allow_nan=False))
    out.close()
    return 0


def _inspect(form: Form, job: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs, qualities and, where the job has a meter, joules of one form."""
    from search_spaces.models.device import use_device

    folder, device = Path(job["folder"]), "cpu" if form.on_cpu else str(job["device"])
    protocol = Protocol.from_dict(job["protocol"])
    use_device(device)
    lock = DeviceLock(None, device)
    # Beside trainers, and never beside a measurement.
    with lock.shared():
        loaded = form.load(folder, device=device, threads=protocol.threads)
        found = _findings(loaded, folder, str(job["task"]), device)
    reading, mode = None, None
    if job["measure"]:
        # The search's meter may be a GPU's; for the CPU there is another.
        meter = job["meter"] if device == job["device"] else None
        reading, mode = _measured(loaded, meter, protocol, device, folder, lock)
    return found | {
        "runtime": loaded.runtime,
        "mode": mode,
        "reading": None if reading is None else reading.to_dict(),
    }


def _findings(loaded: Loaded, folder: Path, task_name: str, device: str) -> dict[str, Any]:
    """Outputs and qualities of one form."""
    from safetensors.torch import load_file

    from nas.tasks.registry import get_task
    from nas.training.evaluate import evaluate
    from nas.training.objectives import objective_of

    _, workload = read_description(folder)
    check = load_file(str(folder / CHECK))
    inputs, expected = check["inputs"].to(device), check["outputs"]
    outputs = loaded.call(inputs).float().cpu()
    if outputs.shape != expected.shape:
        raise ValueError(f"outputs must be of shape {expected.shape}, got {outputs.shape}")
    difference = float((outputs - expected).abs().max())
    for size in _OTHER_BATCHES:
        rows = inputs[:size]
        fewer = loaded.call(rows).float().cpu()
        if fewer.shape != expected[: len(rows)].shape:
            raise ValueError(
                f"a batch of {len(rows)} must give as many outputs, got {fewer.shape}"
            )
        difference = max(difference, float((fewer - expected[: len(rows)]).abs().max()))
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
        "largest_output": float(expected.abs().max()),
        "validation_quality": validation.value,
        "n_validation": validation.n_samples,
        "test_quality": test.value,
        "test_quality_se": test.standard_error,
    }


def _measured(
    loaded: Loaded,
    meter_name: str | None,
    protocol: Protocol,
    device: str,
    folder: Path,
    lock: DeviceLock,
) -> tuple[EnergyReading, str]:
    """Joules of the kept inputs again and again, and how they were run."""
    import torch
    from safetensors.torch import load_file

    from predictors.measurement.reading import make_reading
    from predictors.measurement.windows import WindowLoop, run_windows
    from predictors.meters.select import choose_meter
    from search_spaces.compression.apply import prepare_for_inference

    architecture, workload = read_description(folder)
    with lock.shared():
        inputs = load_file(str(folder / CHECK))["inputs"].to(device)
        work: Callable[[], object] = partial(loaded.call, inputs)
        mode = "as it is"
        if loaded.module is not None:
            prepared = prepare_for_inference(loaded.module, architecture, inputs)
            work, mode = prepared.repeat(inputs), prepared.mode
    meter = choose_meter(meter_name, device)
    meter.set_own_processes(lock.processes)
    sync = torch.cuda.synchronize if device != "cpu" else (lambda: None)
    loop = WindowLoop(work, meter, protocol, sync=sync)
    with lock.exclusive():
        measurement = run_windows(loop, protocol)
    # A card is published, and the name of this machine is nobody's business.
    reading = replace(make_reading(measurement, workload, meter, protocol), host=None)
    meter.close()
    return reading, mode


if __name__ == "__main__":
    sys.exit(main())
