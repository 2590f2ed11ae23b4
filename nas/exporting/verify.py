"""Prove an artifact in fresh processes: outputs, quality, joules.

Run as ``python -m nas.exporting.verify FOLDER TASK`` it reloads the artifact and prints what it
finds as one JSON object; ``verify`` starts that process and judges.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.exporting.artifact import CHECK, COMPRESSED, ExportError, load_artifact
from nas.training.weights import WEIGHTS
from predictors.measurement.exclusive import DeviceLock
from search_spaces.workload import PHASES

if TYPE_CHECKING:
    from nas.records.trial import Trial
    from nas.store.run import Run
    from predictors.meters.base import EnergyReading
    from search_spaces.workload import Phase

# Same machine, same arithmetic: only another CPU's instructions may round differently.
_OUTPUT_TOLERANCE = 1e-3
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Verification:
    """What the fresh processes found. Accuracies are of the reloaded artifact.

    ``other_phases`` are its joules in the phases of a decoder's use that were not searched by.
    """

    output_difference: float
    output_tolerance: float
    validation_quality: float
    test_quality: float
    test_quality_se: float
    joule_ratio: float
    joule_tolerance: float
    reading: EnergyReading
    other_phases: tuple[EnergyReading, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def verify(run: Run, record: Trial, folder: Path, *, joule_tolerance: float) -> Verification:
    """Reload the artifact in ``folder`` in fresh processes and compare it with its trial.

    Of a decoder that was searched by a phase of its use, the other phase is measured as well:
    who runs it pays for both.

    Raises:
        ExportError: outputs, quality or joules differ by more than their tolerance.
    """
    from nas.training.evaluate import one_sample
    from predictors.measurement.protocol import get_protocol
    from predictors.measurement.runner import MeasureError, measure_fresh
    from predictors.meters.base import MeterError

    if record.reading is None or record.quality is None:
        raise ExportError(f"trial {record.number} has no measured figures to verify")
    found = _reload(folder, run.task, run.config.device)
    if not found["output_difference"] <= _OUTPUT_TOLERANCE:
        raise ExportError(
            f"the reloaded artifact's outputs differ by {found['output_difference']:.3g}, "
            f"allowed {_OUTPUT_TOLERANCE:g}"
        )
    moved = abs(found["validation_quality"] - record.quality)
    if moved > one_sample(found["n_validation"]):
        raise ExportError(
            f"the reloaded artifact's validation quality is "
            f"{found['validation_quality']:.4f}, the trial's was {record.quality:.4f}"
        )
    architecture, workload = record.architecture, run.workload

    def measure(phase: Phase | None) -> EnergyReading:
        reading = measure_fresh(
            architecture,
            workload.with_phase(phase),
            protocol=get_protocol(run.config.protocol),
            device=run.config.device,
            meter=run.meter,
            weights=folder / WEIGHTS,
            inputs=run.inputs_path,
        ).reading
        # A card is published, and the name of this machine is nobody's business.
        return replace(reading, host=None)

    try:
        measured = measure(workload.phase)
        others = () if workload.phase is None else set(PHASES) - {workload.phase}
        other_phases = tuple(measure(phase) for phase in sorted(others))
    except (MeasureError, MeterError) as error:
        raise ExportError(f"the joules could not be measured again: {error}") from error
    ratio = measured.energy_j / record.reading.energy_j
    if not 1 / (1 + joule_tolerance) <= ratio <= 1 + joule_tolerance:
        raise ExportError(
            f"measured again, a {measured.unit} takes {measured.energy_j:.4g} J, the trial took "
            f"{record.reading.energy_j:.4g} J: {ratio:.2f}x, allowed within "
            f"{joule_tolerance:.0%} (is the machine busy? --joule-tolerance sets it)"
        )
    return Verification(
        output_difference=found["output_difference"],
        output_tolerance=_OUTPUT_TOLERANCE,
        validation_quality=found["validation_quality"],
        test_quality=found["test_quality"],
        test_quality_se=found["test_quality_se"],
        joule_ratio=ratio,
        joule_tolerance=joule_tolerance,
        reading=measured,
        other_phases=other_phases,
    )


def _reload(folder: Path, task: str, device: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "nas.exporting.verify", str(folder), task, device],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"the artifact took longer than {_TIMEOUT_S:g} s to verify") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise ExportError(f"the artifact cannot be reloaded: {lines[-1] if lines else 'no cause'}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _inspect(folder: Path, task_name: str, device: str) -> dict[str, Any]:
    """What the fresh process does."""
    from search_spaces.models.device import use_device

    use_device(device)
    # Beside trainers, and never beside a measurement.
    with DeviceLock(None, device).shared():
        return _findings(folder, task_name, device)


def _findings(folder: Path, task_name: str, device: str) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    from nas.tasks.registry import get_task
    from nas.training.evaluate import evaluate
    from nas.training.objectives import objective_of

    artifact = load_artifact(folder, device=device)
    check = load_file(str(folder / CHECK))
    inputs = check["inputs"].to(device)
    outputs = artifact.call(inputs)
    if (folder / COMPRESSED).is_file():
        small = load_artifact(folder, device=device, small=True).call(inputs)
        if not torch.equal(small, outputs):
            raise ExportError(f"{COMPRESSED} must give the outputs of {WEIGHTS}, and does not")
    outputs = outputs.float().cpu()
    task = get_task(task_name)
    validation, test = (
        evaluate(
            artifact.call,
            task.split(name),
            batch_size=artifact.workload.batch_size,
            objective=objective_of(task, artifact.workload),
            device=device,
        )
        for name in ("validation", "test")
    )
    return {
        "output_difference": float((outputs - check["outputs"]).abs().max()),
        "validation_quality": validation.value,
        "n_validation": validation.n_samples,
        "test_quality": test.value,
        "test_quality_se": test.standard_error,
    }


def main() -> int:
    """Inspect the artifact named by the arguments and print the findings."""
    # What libraries print must not mix with the findings.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    out.write(json.dumps(_inspect(Path(sys.argv[1]), *sys.argv[2:4]), allow_nan=False))
    out.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
