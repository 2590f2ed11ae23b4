"""An artifact: a folder with trained weights and all that is needed to run them elsewhere.

``model.safetensors`` the trained fp32 weights, ``architecture.json`` and ``workload.json`` what
they are, ``check.safetensors`` some inputs with the outputs they must give, ``card.json`` and
``README.md`` what was measured. Compression is applied on loading: it is deterministic, so the
trained weights are the whole model.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.files import read_json, write_json
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor

    from nas.searching.run import Run

WEIGHTS, ARCHITECTURE, WORKLOAD = "model.safetensors", "architecture.json", "workload.json"
CHECK, CARD, README = "check.safetensors", "card.json", "README.md"


class ExportError(RuntimeError):
    """The artifact does not do what the trial did; nothing was left behind."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Where an artifact is, and its card."""

    folder: Path
    card: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded artifact: ``call`` maps a batch of inputs to logits."""

    architecture: Architecture
    workload: Workload
    call: Callable[[Tensor], Tensor]


def load_artifact(folder: str | Path, *, device: str = "cpu", compiled: bool = False) -> Artifact:
    """Load an artifact to run it.

    With ``compiled`` it runs as it was measured, for batches of exactly the workload's shape;
    without, op by op for any batch size.

    Raises:
        ValueError: the folder is not an artifact, or a file in it is corrupt.
    """
    import torch

    from nas.training.checkpoint import load_weights
    from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
    from search_spaces.models.build import build

    folder = Path(folder)
    architecture = Architecture.from_dict(read_json(folder / ARCHITECTURE))
    workload = Workload.from_dict(read_json(folder / WORKLOAD))
    model = build(architecture, workload)
    load_weights(model, folder / WEIGHTS)
    compressed = compress(model.to(device), architecture)
    if compiled:
        shape = (workload.batch_size, *workload.input_shape)
        example = torch.zeros(
            shape, device=device, dtype=None if workload.is_image else torch.int64
        )
        runner = prepare_for_inference(compressed, architecture, example)
    else:
        runner = run_eagerly(compressed)
    return Artifact(architecture, workload, runner.call)


def export(run: Run, trial: int, to: Path, *, joule_tolerance: float = 0.3) -> Exported:
    """Write trial ``trial`` of ``run`` to the new folder ``to``, verified in fresh processes.

    The artifact is reloaded elsewhere, its outputs compared, its accuracy evaluated anew and its
    joules measured anew; the card holds both figures of each. Joules may differ by
    ``joule_tolerance``, relative: machines drift between two measurements.

    Raises:
        ValueError: no such complete trial, its weights are gone, or ``to`` is not empty.
        ExportError: outputs, accuracy or joules differ.
    """
    from nas.exporting.card import make_card, render_readme
    from nas.exporting.verify import verify

    record = run.trial(trial)
    if record.state != "complete":
        raise ValueError(f"trial must be a complete one, got {trial}, which is {record.state}")
    if not joule_tolerance > 0:
        raise ValueError(f"joule_tolerance must be > 0, got {joule_tolerance!r}")
    weights = run.weights_path(trial)
    if not weights.is_file():
        raise ValueError(f"weights of trial {trial} must be at {weights}, and are not")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"export folder must be new or empty, got {to}")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    except OSError as error:
        raise ValueError(f"export folder must be writable, got {to}: {error.strerror}") from None
    try:
        shutil.copyfile(weights, staging / WEIGHTS)
        write_json(staging / ARCHITECTURE, record.architecture.to_dict())
        write_json(staging / WORKLOAD, run.workload.to_dict())
        _write_check(run, staging)
        verification = verify(run, record, staging, joule_tolerance=joule_tolerance)
        card = make_card(run, record, verification)
        write_json(staging / CARD, card)
        (staging / README).write_text(render_readme(card), encoding="utf-8")
        staging.chmod(0o755)
        if to.exists():
            to.rmdir()
        staging.rename(to)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(to, card)


def _write_check(run: Run, folder: Path) -> None:
    """Keep one batch of real inputs with the outputs that they give now."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    inputs = torch.from_numpy(np.load(run.inputs_path, allow_pickle=False))
    outputs = load_artifact(folder).call(inputs).float()
    save_file(
        {"inputs": inputs.contiguous(), "outputs": outputs.contiguous()}, str(folder / CHECK)
    )
