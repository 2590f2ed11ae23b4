"""An artifact: a folder with trained weights and all that is needed to run them elsewhere.

``model.safetensors`` the trained fp32 weights, ``architecture.json`` and ``workload.json`` what
they are, ``check.safetensors`` some inputs with the outputs they must give, ``card.json`` and
``README.md`` what was measured. Compression is applied on loading: it is deterministic, so the
trained weights are the whole model. ``compressed.safetensors``, where anything is compressed, is
the network as it runs, as small as it is in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.training.checkpoint import check_size, load_any_network, read_description
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECK, CARD, README = "check.safetensors", "card.json", "README.md"
COMPRESSED = "compressed.safetensors"


class ExportError(RuntimeError):
    """The artifact does not do what the trial did; nothing was left behind."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded artifact: ``call`` maps a batch of inputs to logits."""

    architecture: Architecture
    workload: Workload
    call: Callable[[Tensor], Tensor]


def load_artifact(
    folder: str | Path, *, device: str = "cpu", compiled: bool = False, small: bool = False
) -> Artifact:
    """Load an artifact to run it.

    With ``compiled`` it runs as it was measured, for batches of exactly the workload's shape;
    without, op by op for any batch size. With ``small`` only the compressed file is read, with
    the same outputs to the bit; the trained weights need not be there.

    Raises:
        ValueError: the folder is not an artifact, or a file in it is corrupt.
    """
    import torch

    from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
    from search_spaces.compression.store import load_compressed

    folder = Path(folder)
    architecture, workload = read_description(folder)
    compressed: nn.Module
    if small:
        if (folder / COMPRESSED).is_file():
            check_size(architecture, workload, folder / COMPRESSED)
        compressed = load_compressed(architecture, workload, folder / COMPRESSED, device=device)
    else:
        compressed = compress(load_any_network(folder).to(device), architecture)
    if compiled:
        shape = (workload.batch_size, *workload.input_shape)
        example = torch.zeros(
            shape, device=device, dtype=None if workload.is_image else torch.int64
        )
        runner = prepare_for_inference(compressed, architecture, example)
    else:
        runner = run_eagerly(compressed)
    return Artifact(architecture, workload, runner.call)
