"""Peak memory of a forward pass in closed form, without torch.

What is counted: weights as they are stored, and the most activations that are alive at once in a
batch. Inside attention those are the residual stream, its norm, queries, keys, values and the
output of the heads, which is as large as the queries; inside the feed-forward block the stream,
its norm and the hidden layer before and after GELU. Scores are left out, as a fused kernel never
writes them, and so are an allocator's rounding, workspaces, and the framework itself. Eager
PyTorch allocates a fifth more or less (a test compares them); compiled networks may need less.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import PRECISIONS, Architecture
from search_spaces.batch import ArchitectureBatch
from search_spaces.counting import BYTES_PER_WEIGHT, count_batch, stream_precisions
from search_spaces.workload import Workload

_PER_VALUE = np.array([BYTES_PER_WEIGHT[precision] for precision in PRECISIONS])


def peak_memory_bytes(batch: ArchitectureBatch, workload: Workload) -> NDArray[np.float64]:
    """Of every architecture in ``batch`` at the workload's batch size, shape ``(N,)``.

    Raises:
        ValueError: a patch size does not fit the workload.
    """
    d_model = batch.d_model[:, None].astype(float)
    attention, ffn = batch.attention, batch.ffn
    d_q, d_kv = attention.n_heads * attention.d_head, attention.n_kv_heads * attention.d_head
    in_attention = 2 * d_model + 2 * d_q + 2 * d_kv
    in_ffn = 2 * d_model + 2 * ffn.d_ff
    values = (np.maximum(in_attention, in_ffn) * batch.active).max(axis=1)
    values *= workload.n_tokens_batch(batch.patch_size)
    activations = values * _PER_VALUE[stream_precisions(batch)] * workload.batch_size
    found: NDArray[np.float64] = activations + count_batch(batch, workload).total("weight_bytes")
    return found


def peak_memory_of(architecture: Architecture, workload: Workload) -> float:
    """``peak_memory_bytes`` of one architecture."""
    return float(peak_memory_bytes(ArchitectureBatch.of([architecture]), workload)[0])
