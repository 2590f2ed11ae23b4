"""An artifact: a folder with trained weights and all that is needed to run them elsewhere.

``model.safetensors`` the trained fp32 weights, ``architecture.json`` and ``workload.json`` what
they are, ``check.safetensors`` some inputs with the outputs they must give, ``card.json`` and
``README.md`` what was measured. Compression is applied on loading: it is deterministic, so the
trained weights are the whole model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.training.checkpoint import load_network
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor

CHECK, CARD, README = "check.safetensors", "card.json", "README.md"


class ExportError(RuntimeError):
    """The artifact does not do what the trial did; nothing was left behind."""


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

    from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly

    network = load_network(Path(folder))
    architecture, workload = network.architecture, network.workload
    compressed = compress(network.model.to(device), architecture)
    if compiled:
        shape = (workload.batch_size, *workload.input_shape)
        example = torch.zeros(
            shape, device=device, dtype=None if workload.is_image else torch.int64
        )
        runner = prepare_for_inference(compressed, architecture, example)
    else:
        runner = run_eagerly(compressed)
    return Artifact(architecture, workload, runner.call)
