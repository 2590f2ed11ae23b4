"""Write a trial as an artifact, whole and verified, or not at all."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.files import as_local, read_array, write_json
from nas.exporting.artifact import (
    CARD,
    CHECK,
    COMPRESSED,
    README,
    ExportError,
    load_artifact,
)
from nas.exporting.card import make_card, render_readme
from nas.exporting.formats.form import Form
from nas.exporting.formats.registry import ARTIFACT, check_held, parse_forms
from nas.exporting.model_card import render_model_card
from nas.exporting.prove import Conditions, prove
from nas.exporting.staging import staged
from nas.exporting.verify import Verification, verify
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.registry import get_task
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, load_network, read_description
from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.protocol import get_protocol
from search_spaces.models.device import use_device

if TYPE_CHECKING:
    from nas.store.run import Run

# Of a check, in numbers: 16 MB.
_MOST_OUTPUTS = 2**22


@dataclass(frozen=True, slots=True)
class Exported:
    """Where an artifact is, and its card."""

    folder: Path
    card: dict[str, Any]


def export(
    run: Run,
    trial: int,
    to: Path,
    *,
    joule_tolerance: float = 0.3,
    formats: Iterable[str] = (ARTIFACT,),
    quality_tolerance: float = 0.02,
) -> Exported:
    """Write trial ``trial`` of ``run`` to the new folder ``to``, verified in fresh processes.

    The artifact is reloaded elsewhere, its outputs compared, its quality evaluated anew and its
    joules measured anew; the card holds both figures of each. Joules may differ by
    ``joule_tolerance``, relative: machines drift between two measurements.

    ``formats`` are further forms to write into the same folder
    (``nas.exporting.formats.registry``), each verified by itself; their joules are said and not
    judged, since other runtimes run them. ``quality_tolerance`` is what a form may lose of
    validation quality whose outputs are not the network's, as those of ``onnx-int8``.

    Raises:
        ValueError: no such complete trial, its weights are gone, ``to`` is not empty, or a format
            is not known, cannot hold the network or lacks a package; nothing was written.
        ExportError: outputs, quality or joules differ; nothing is left behind.
    """
    # In this process, whose environment those that verify inherit.
    run.check_task()
    run.config.load_plugins()
    forms = parse_forms(formats)
    record = run.trial(trial)
    if record.state != "complete":
        raise ValueError(f"trial must be a complete one, got {trial}, which is {record.state}")
    check_held(forms, record.architecture, run.workload, run.config.device)
    if record.weights == "inherited":
        raise ValueError(
            f"trial must have weights of its own, got {trial}, which has a supernet's: its front "
            f"members get their own when the search is finished"
        )
    if not (joule_tolerance > 0 and math.isfinite(joule_tolerance)):
        raise ValueError(f"joule_tolerance must be a finite number > 0, got {joule_tolerance!r}")
    weights = run.weights_path(trial)
    if not weights.is_file():
        raise ValueError(f"weights of trial {trial} must be at {weights}, and are not")
    if not 0 <= quality_tolerance < 1:
        raise ValueError(f"quality_tolerance must be in [0, 1), got {quality_tolerance!r}")
    with staged(to) as staging:
        with as_local(weights) as local:
            shutil.copyfile(local, staging / WEIGHTS)
        write_json(staging / ARCHITECTURE, record.architecture.to_dict())
        write_json(staging / WORKLOAD, run.workload.to_dict())
        carried = artifact_files_of(get_task(run.config.task))
        for name, text in carried.items():
            (staging / name).write_text(text, encoding="utf-8")
        use_device(run.config.device)
        # Beside trainers, and never beside a measurement.
        with DeviceLock(None, run.config.device).shared():
            _write_compressed(run, staging)
            _write_check(run, staging)
        verification = verify(run, record, staging, joule_tolerance=joule_tolerance)
        card = make_card(run, record, verification, carried)
        conditions = _conditions(run, verification, quality_tolerance)
        for form in forms:
            card["formats"][form.name] = write_form(form, staging, conditions)
        for form in forms:
            if form.card_file is not None:
                (staging / form.card_file).write_text(
                    render_model_card(card, form.name), encoding="utf-8"
                )
        write_json(staging / CARD, card)
        (staging / README).write_text(render_readme(card), encoding="utf-8")
    return Exported(to, card)


def _conditions(run: Run, verification: Verification, quality_tolerance: float) -> Conditions:
    return Conditions(
        task=run.config.task,
        device=run.config.device,
        meter=run.meter,
        protocol=get_protocol(run.config.protocol),
        quality=verification.validation_quality,
        quality_tolerance=quality_tolerance,
    )


def write_form(form: Form, folder: Path, conditions: Conditions) -> dict[str, Any]:
    """Write ``form`` of the artifact in ``folder`` and prove it; returns what its card says.

    Raises:
        ExportError: it does not do what the artifact does.
    """
    try:
        facts = form.write(folder)
    except Exception as error:
        # Exporters have errors of many kinds, none of which say what was exported.
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"format {form.name} could not be written: {cause}") from error
    proof = prove([form], folder, conditions)[form.name]
    _, workload = read_description(folder)
    return {
        "title": form.title,
        "files": {
            name: (folder / name).stat().st_size
            for name in (*form.files, *form.optional_files)
            if (folder / name).is_file()
        },
        "inputs": list(workload.input_shape),
        "batch": "any",
        **facts,
        "verified": proof.to_dict(),
    }


def _write_compressed(run: Run, folder: Path) -> None:
    """Keep the network as it runs, where that is not simply its trained weights."""
    from search_spaces.architecture import Compression
    from search_spaces.compression.apply import compress
    from search_spaces.compression.store import save_compressed

    architecture, _ = read_description(folder)
    if any(block.compression != Compression() for block in architecture.blocks):
        network = load_network(folder)
        compressed = compress(network.model.to(run.config.device), architecture)
        save_compressed(compressed, architecture, folder / COMPRESSED)


def _write_check(run: Run, folder: Path) -> None:
    """Keep one batch of real inputs with the outputs that they give now."""
    import torch
    from safetensors.torch import save_file

    device = run.config.device
    artifact = load_artifact(folder, device=device)
    inputs = torch.from_numpy(read_array(run.inputs_path))
    # An output for each token of a long context and of a large vocabulary is many.
    of_a_sample = artifact.call(inputs[:1].to(device)).numel()
    inputs = inputs[: max(1, _MOST_OUTPUTS // of_a_sample)]
    outputs = artifact.call(inputs.to(device)).float().cpu()
    save_file(
        {"inputs": inputs.contiguous(), "outputs": outputs.contiguous()}, str(folder / CHECK)
    )
