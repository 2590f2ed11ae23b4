"""Write a trial as a verified artifact; remove it if a check fails."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.files import as_local, read_array, write_json
from nas.core.names import first_line
from nas.exporting.artifact import CARD, COMPRESSED, README, load_artifact
from nas.exporting.card import make_card
from nas.exporting.formats.base import ExportError, ExportFormat
from nas.exporting.formats.registry import (
    ARTIFACT,
    check_supported,
    parse_formats,
    served_format,
)
from nas.exporting.model_card import render_model_card
from nas.exporting.readme import render_readme
from nas.exporting.staging import staged
from nas.exporting.verify import Conditions, verify_artifact, verify_format
from nas.tasks.base.artifact_files import CHECK, artifact_files_of
from nas.tasks.registry import get_task
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, load_network, read_description
from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.protocol import get_protocol
from search_spaces.architecture import Compression
from search_spaces.models.device import use_device

if TYPE_CHECKING:
    from nas.store.run import Run

# Most output values of a check: 16 MB.
_MOST_OUTPUTS = 2**22


@dataclass(frozen=True, slots=True)
class Exported:
    """The folder of an artifact, and its card."""

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

    ``joule_tolerance`` is the allowed relative difference between the artifact's joules and the
    trial's. ``formats`` are further formats to write into the folder, beside that of the runtime
    of the trial's joules; the joules of formats are reported without a check.
    ``quality_tolerance`` is the allowed loss of validation quality of formats whose outputs are
    not judged, such as ``onnx-int8``.

    Raises:
        ValueError: the trial is not complete or has no weights, ``to`` is not empty, or a format
            is unknown, does not support the network or lacks a package; nothing was written.
        ExportError: outputs, quality or joules differ; nothing is left behind.
    """
    # Plug-ins are loaded here because the verifying processes inherit the environment.
    run.check_task()
    run.config.load_plugins()
    record = run.trial(trial)
    runtime = record.runtime or run.config.runtimes[0]
    served = served_format(runtime, record.architecture)
    chosen = parse_formats(formats if served is None else dict.fromkeys((*formats, served)))
    if record.state != "complete":
        raise ValueError(f"trial must be a complete one, got {trial}, which is {record.state}")
    device = run.config.device
    check_supported(chosen, record.architecture, run.workload, device)
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
        task_files = artifact_files_of(get_task(run.config.task))
        for name, text in task_files.items():
            (staging / name).write_text(text, encoding="utf-8")
        use_device(device)
        # This work may overlap with training, but not with a measurement.
        with DeviceLock(None, device).shared():
            _write_compressed(device, staging)
            _write_check(run, staging)
        verification = verify_artifact(run, record, staging, joule_tolerance=joule_tolerance)
        card = make_card(run, record, verification, task_files)
        conditions = Conditions(
            run.config.task,
            device,
            run.meter,
            get_protocol(run.config.protocol),
            verification.validation_quality,
            quality_tolerance,
        )
        for each in chosen:
            card["formats"][each.name] = _write_format(each, staging, conditions)
        for each in chosen:
            if each.card_file is not None:
                text = render_model_card(card, each.name)
                (staging / each.card_file).write_text(text, encoding="utf-8")
        write_json(staging / CARD, card)
        (staging / README).write_text(render_readme(card), encoding="utf-8")
    return Exported(to, card)


def _write_format(each: ExportFormat, folder: Path, conditions: Conditions) -> dict[str, Any]:
    """Write and verify one format; return its part of the card.

    Raises:
        ExportError: it cannot be written, or does not reproduce the artifact.
    """
    try:
        facts = each.write(folder)
    except Exception as error:
        # Exporters raise many types, whose messages do not name the format.
        raise ExportError(
            f"format {each.name} could not be written: {first_line(error)}"
        ) from error
    _, workload = read_description(folder)
    return {
        "title": each.title,
        "files": {
            name: (folder / name).stat().st_size
            for name in (*each.files, *each.optional_files)
            if (folder / name).is_file()
        },
        "inputs": list(workload.input_shape),
        "batch": "any",
        **facts,
        "verified": verify_format(each, folder, conditions).to_dict(),
    }


def _write_compressed(device: str, folder: Path) -> None:
    """Store the compressed network, if any block is compressed."""
    from search_spaces.compression.apply import compress
    from search_spaces.compression.store import save_compressed

    architecture, _ = read_description(folder)
    if any(block.compression != Compression() for block in architecture.blocks):
        compressed = compress(load_network(folder).model.to(device), architecture)
        save_compressed(compressed, architecture, folder / COMPRESSED)


def _write_check(run: Run, folder: Path) -> None:
    """Store a batch of real inputs with their current outputs."""
    import torch
    from safetensors.torch import save_file

    device = run.config.device
    artifact = load_artifact(folder, device=device)
    inputs = torch.from_numpy(read_array(run.inputs_path))
    # Store fewer samples if a long context and a large vocabulary have many outputs.
    n_outputs = artifact.call(inputs[:1].to(device)).numel()
    inputs = inputs[: max(1, _MOST_OUTPUTS // n_outputs)]
    outputs = artifact.call(inputs.to(device)).float().cpu()
    save_file(
        {"inputs": inputs.contiguous(), "outputs": outputs.contiguous()}, str(folder / CHECK)
    )
