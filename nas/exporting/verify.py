"""Verify an artifact and its formats in fresh processes: outputs, quality, joules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.interpreter import module_command
from nas.exporting.artifact_format import ARTIFACT_FORMAT
from nas.exporting.formats.base import ExportError, StoredNetwork
from nas.exporting.formats.fresh_process import findings_of
from nas.training.weights import WEIGHTS, read_description
from predictors.measurement.protocol import Protocol, get_protocol
from predictors.meters.base import EnergyReading
from search_spaces.workload import PHASES

if TYPE_CHECKING:
    from nas.records.trial import Trial
    from nas.store.run import Run
    from search_spaces.workload import Phase

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions for running formats, and figures that they must reproduce.

    ``quality`` is the validation quality to reproduce. Formats whose outputs are not judged may
    lose ``quality_tolerance`` of it. Without ``measure`` no joules are measured.
    """

    task: str
    device: str
    meter: str | None
    protocol: Protocol
    quality: float
    quality_tolerance: float
    measure: bool = True


@dataclass(frozen=True, slots=True)
class Verification:
    """Figures of one reloaded format.

    ``output_tolerance`` is ``None`` if outputs were not judged. ``joule_ratio`` is the artifact's
    joules divided by its trial's, and ``None`` for other formats, which other runtimes run;
    ``is_inside_interval`` says likewise whether they lie inside the interval of the trial's.
    ``other_phases`` are the joules of a decoder's phases that were no objective of the search.
    ``runtime`` ran the network; joules were measured in ``mode``.
    """

    output_difference: float
    output_tolerance: float | None
    validation_quality: float
    test_quality: float
    test_quality_se: float
    joule_ratio: float | None
    joule_tolerance: float | None
    reading: EnergyReading | None
    other_phases: tuple[EnergyReading, ...] = ()
    quality_tolerance: float = 0.0
    runtime: str = ""
    mode: str | None = None
    is_inside_interval: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def verify_format(stored: StoredNetwork, folder: Path, conditions: Conditions) -> Verification:
    """Reload one format of the artifact in ``folder`` in a fresh process and check it.

    Raises:
        ExportError: it cannot be loaded, or outputs or quality differ by more than allowed.
    """
    findings = reload_formats([stored], folder, conditions)
    return judge(stored, folder, findings[stored.name], conditions)


def reload_formats(
    formats: Sequence[StoredNetwork], folder: Path, conditions: Conditions
) -> dict[str, Any]:
    """Return the findings of one fresh process by format (``verify_worker``).

    Raises:
        ExportError: one cannot be loaded or run.
    """
    names = [stored.name for stored in formats]
    job = {
        "folder": str(folder),
        "formats": names,
        "task": conditions.task,
        "device": conditions.device,
        "meter": conditions.meter,
        "protocol": conditions.protocol.to_dict(),
        "measure": conditions.measure,
    }
    environment = dict(os.environ)
    if conditions.measure:
        # torch reads this variable when it is imported.
        environment["OMP_NUM_THREADS"] = str(conditions.protocol.threads)
    return findings_of(
        module_command("nas.exporting.verify_worker"),
        job,
        f"format {', '.join(names)}",
        timeout_s=_TIMEOUT_S,
        environment=environment,
    )


def judge(
    stored: StoredNetwork, folder: Path, findings: Mapping[str, Any], conditions: Conditions
) -> Verification:
    """Check the findings of one format.

    Raises:
        ExportError: outputs or quality differ by more than allowed.
    """
    from nas.training.evaluate import one_sample

    architecture, _ = read_description(folder)
    difference = findings["output_difference"]
    allowed = stored.output_tolerance(architecture, findings["largest_output"])
    # ``not <=`` rather than ``>``, since NaN must fail.
    if allowed is not None and not difference <= allowed:
        raise ExportError(
            f"outputs of format {stored.name} differ by {difference:.3g}, allowed {allowed:.3g}"
        )
    quality, expected = findings["validation_quality"], conditions.quality
    if stored.has_outputs:
        # Rounding moves quality in either direction.
        moved, tolerance, hint = (
            abs(quality - expected), stored.quality_tolerance(architecture), ""
        )  # fmt: skip
    else:
        moved, tolerance = expected - quality, conditions.quality_tolerance
        hint = "; --quality-tolerance sets it"
    if moved > tolerance + one_sample(findings["n_validation"]):
        raise ExportError(
            f"validation quality of format {stored.name} is {quality:.4f}, the network's is "
            f"{expected:.4f}, allowed {tolerance:g} apart{hint}"
        )
    reading = findings["reading"]
    return Verification(
        output_difference=difference,
        output_tolerance=allowed,
        validation_quality=quality,
        test_quality=findings["test_quality"],
        test_quality_se=findings["test_quality_se"],
        joule_ratio=None,
        joule_tolerance=None,
        reading=None if reading is None else EnergyReading.from_dict(reading),
        quality_tolerance=tolerance,
        runtime=findings["runtime"],
        mode=findings["mode"],
    )


def verify_artifact(
    run: Run, record: Trial, folder: Path, *, joule_tolerance: float
) -> Verification:
    """Reload the artifact in ``folder`` in fresh processes and compare it with its trial.

    A decoder's other phase is measured as well, because its use costs both.

    Raises:
        ExportError: outputs, quality or joules differ by more than allowed.
    """
    from predictors.measurement.runner import MeasureError, measure_fresh
    from predictors.meters.base import MeterError

    if record.reading is None or record.quality is None:
        raise ExportError(f"trial {record.number} has no measured figures to verify")
    protocol, workload = get_protocol(run.config.protocol), run.workload
    conditions = Conditions(
        run.task, run.config.device, run.meter, protocol, record.quality, 0.0, measure=False
    )
    verification = verify_format(ARTIFACT_FORMAT, folder, conditions)

    def measure(phase: Phase | None) -> EnergyReading:
        reading = measure_fresh(
            record.architecture,
            workload.with_phase(phase),
            protocol=protocol,
            device=run.config.device,
            meter=run.meter,
            weights=folder / WEIGHTS,
            inputs=run.inputs_path,
            runtime=record.runtime or run.config.runtimes[0],
        ).reading
        # Cards are published, and must not name this machine.
        return replace(reading, host=None)

    try:
        measured = measure(workload.phase)
        others = () if workload.phase is None else set(PHASES) - {workload.phase}
        other_phases = tuple(measure(phase) for phase in sorted(others))
    except (MeasureError, MeterError) as error:
        raise ExportError(f"joules could not be measured again: {error}") from error
    ratio = measured.energy_j / record.reading.energy_j
    if not 1 / (1 + joule_tolerance) <= ratio <= 1 + joule_tolerance:
        raise ExportError(
            f"measured again, a {measured.unit} takes {measured.energy_j:.4g} J, the trial took "
            f"{record.reading.energy_j:.4g} J: {ratio:.2f}x, allowed within "
            f"{joule_tolerance:.0%} (is the machine busy? --joule-tolerance sets it)"
        )
    return replace(
        verification,
        joule_ratio=ratio,
        joule_tolerance=joule_tolerance,
        reading=measured,
        other_phases=other_phases,
        is_inside_interval=record.reading.low_j <= measured.energy_j <= record.reading.high_j,
    )
