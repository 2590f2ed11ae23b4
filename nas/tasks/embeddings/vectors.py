"""Vectors of texts by a checkpoint, computed once and cached with a task's arrays.

Checkpoints need torch, which is imported only where one is read.

Shape legend: N texts, T tokens, W width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from search_spaces.pretrained.checkpoint import Checkpoint

# Texts of a forward pass: of one length, as texts are sorted by it.
_BATCH = 32
# Files by which vectors depend on a checkpoint, beside its safetensors: sizes, modules, pooling.
_READ = ("config.json", "model.safetensors.index.json", "modules.json", "1_Pooling/config.json")


def reference_of(folder: Path, sequence_length: int) -> Checkpoint:
    """Describe the checkpoint in ``folder`` for texts of ``sequence_length`` tokens.

    Raises:
        ValueError: there is none, its outputs are no vectors of texts, or it reads no such texts.
    """
    from search_spaces.pretrained.load import load_checkpoint

    checkpoint = load_checkpoint(folder)
    if checkpoint.workload.kind != "text_embedding":
        kind = checkpoint.workload.kind.replace("_", " ")
        raise ValueError(
            f"checkpoint must give vectors of texts, got one of {kind} in {checkpoint.folder}"
        )
    return checkpoint.with_length(sequence_length)


def files_of_reference(folder: Path) -> list[Path]:
    """Return the files that vectors of the checkpoint in ``folder`` depend on."""
    present = [folder / name for name in _READ if (folder / name).is_file()]
    return [*present, *sorted(folder.glob("*.safetensors"))]


def write_vectors(checkpoint: Checkpoint, tokens: Sequence[NDArray[np.int64]], path: Path) -> None:
    """Write the vectors of all ``tokens``, arrays ``(N, T)``, one after another to ``path``.

    The array is ``(N, W)`` float32. Padding that a batch has in common is not computed.
    """
    import torch

    network = checkpoint.build()
    tokens_NT = np.concatenate(list(tokens))
    is_token_NT = tokens_NT != checkpoint.workload.padding_token
    lengths_N = np.where(is_token_NT, np.arange(1, tokens_NT.shape[1] + 1), 1).max(axis=1)
    shape = (len(tokens_NT), checkpoint.workload.n_classes)
    vectors_NW = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    order_N = np.argsort(lengths_N, kind="stable")
    with torch.inference_mode():
        for start in range(0, len(order_N), _BATCH):
            rows = order_N[start : start + _BATCH]
            batch_BT = torch.from_numpy(tokens_NT[rows, : lengths_N[rows].max()])
            vectors_NW[rows] = network(batch_BT).numpy()
    vectors_NW.flush()
