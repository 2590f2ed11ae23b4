"""Prove a form of an artifact in a fresh process: outputs or quality, and joules once more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.exporting.artifact import ExportError
from nas.exporting.formats.form import Form
from nas.training.weights import read_description
from predictors.measurement.protocol import Protocol
from predictors.meters.base import EnergyReading

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Proof:
    """What the fresh process found of one form.

    ``output_tolerance`` is ``None`` where outputs are not judged, ``reading`` where joules were
    not asked for. ``mode`` says how it was run for them.
    """

    runtime: str
    output_difference: float
    output_tolerance: float | None
    validation_quality: float
    test_quality: float
    test_quality_se: float
    quality_tolerance: float
    mode: str | None
    reading: EnergyReading | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What forms are run on and judged by; ``quality`` is the artifact's on validation data.

    Without ``measure`` joules are left out. ``quality_tolerance`` is for forms whose outputs are
    not the network's.
    """

    task: str
    device: str
    meter: str | None
    protocol: Protocol
    quality: float
    quality_tolerance: float
    measure: bool = True


def prove(forms: Sequence[Form], folder: Path, conditions: Conditions) -> dict[str, Proof]:
    """Run ``forms`` of the artifact in ``folder`` in one fresh process and judge each.

    Raises:
        ExportError: one does not load, or its outputs or quality differ by more than they may.
    """
    found = inspected(forms, folder, conditions)
    return {form.name: judged(form, folder, found[form.name], conditions) for form in forms}


def inspected(forms: Sequence[Form], folder: Path, conditions: Conditions) -> dict[str, Any]:
    """What one fresh process finds of ``forms``, by name; see ``inspect_form``.

    Raises:
        ExportError: one does not load or run.
    """
    job = {
        "folder": str(folder),
        "forms": [form.name for form in forms],
        "task": conditions.task,
        "device": conditions.device,
        "meter": conditions.meter,
        "protocol": conditions.protocol.to_dict(),
        "measure": conditions.measure,
    }
    environment = dict(os.environ)
    # Read when torch is imported.
    environment["OMP_NUM_THREADS"] = str(conditions.protocol.threads)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "nas.exporting.inspect_form"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"{_named(forms)} took longer than {_TIMEOUT_S:g} s to verify") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise ExportError(f"{_named(forms)} cannot be run: {lines[-1] if lines else 'no cause'}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _named(forms: Sequence[Form]) -> str:
    return f"format {', '.join(form.name for form in forms)}"


def judged(form: Form, folder: Path, found: Mapping[str, Any], conditions: Conditions) -> Proof:
    """Judge what was found of one form.

    Raises:
        ExportError: outputs or quality differ by more than they may.
    """
    from nas.training.evaluate import one_sample

    architecture, _ = read_description(folder)
    allowed = form.output_tolerance(architecture, found["largest_output"])
    if allowed is not None and not found["output_difference"] <= allowed:
        raise ExportError(
            f"outputs of format {form.name} differ by {found['output_difference']:.3g}, allowed "
            f"{allowed:.3g}"
        )
    may_move = (
        form.quality_tolerance(architecture) if form.has_outputs else conditions.quality_tolerance
    )
    quality, before = found["validation_quality"], conditions.quality
    # Where outputs are judged quality moves by chance, else only a loss is one.
    moved = abs(quality - before) if form.has_outputs else before - quality
    if moved > may_move + one_sample(found["n_validation"]):
        hint = "" if form.has_outputs else "; --quality-tolerance sets it"
        raise ExportError(
            f"validation quality of format {form.name} is {quality:.4f}, the network's is "
            f"{before:.4f}, allowed {may_move:g} apart{hint}"
        )
    reading = found["reading"]
    return Proof(
        runtime=found["runtime"],
        output_difference=found["output_difference"],
        output_tolerance=allowed,
        validation_quality=quality,
        test_quality=found["test_quality"],
        test_quality_se=found["test_quality_se"],
        quality_tolerance=may_move,
        mode=found["mode"],
        reading=None if reading is None else EnergyReading.from_dict(reading),
    )
