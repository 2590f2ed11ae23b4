"""What the energy predictor sees of an architecture on a workload: closed-form counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import PRECISIONS, Architecture
from search_spaces.counting import Counts, count
from search_spaces.workload import Workload

# Columns of ``cost_terms``: what the fitted prior adds up.
COST_TERMS = (
    *(f"macs_{precision}" for precision in PRECISIONS),
    "activation_bytes",
    "weight_bytes_per_sample",
    "kernels_per_sample",
)
_EXTRA = (
    "log_d_model",
    "log_tokens",
    "log_mean_d_head",
    "log_mean_d_ff",
    "factorised_share",
    "sparse_share",
    *(f"{block}_{precision}" for block in ("attention", "ffn") for precision in PRECISIONS[1:]),
)
FEATURES = ("log_total_macs", "log_total_bytes", "log_kernels", *_EXTRA)


def cost_terms(architectures: Sequence[Architecture], workload: Workload) -> NDArray[np.float64]:
    """Counts per sample, shape ``(N, len(COST_TERMS))``: MACs by precision, bytes, launches.

    Work outside the blocks counts as the stream's precision.
    """
    rows = [_cost_row(a, count(a, workload), workload) for a in architectures]
    return np.array(rows).reshape(-1, len(COST_TERMS))


def features(architectures: Sequence[Architecture], workload: Workload) -> NDArray[np.float64]:
    """Shape ``(N, len(FEATURES))``; sizes in natural logarithms."""
    rows = [_feature_row(a, count(a, workload), workload) for a in architectures]
    return np.array(rows).reshape(-1, len(FEATURES))


def _cost_row(architecture: Architecture, counts: Counts, workload: Workload) -> list[float]:
    macs = dict.fromkeys(PRECISIONS, 0)
    macs[architecture.stream_precision] += counts.macs - sum(b.macs for b in counts.blocks)
    for block in counts.blocks:
        macs[block.precision] += block.macs
    return [
        *(float(macs[precision]) for precision in PRECISIONS),
        counts.activation_bytes,
        counts.weight_bytes / workload.batch_size,
        counts.n_kernels / workload.batch_size,
    ]


def _feature_row(architecture: Architecture, counts: Counts, workload: Workload) -> list[float]:
    attention = [layer.attention for layer in architecture.layers]
    ffn = [layer.ffn for layer in architecture.layers]
    blocks = architecture.blocks
    shares = [
        float(np.mean([spec.compression.precision == precision for spec in specs]))
        for specs in (attention, ffn)
        for precision in PRECISIONS[1:]
    ]
    moved = counts.activation_bytes + counts.weight_bytes / workload.batch_size
    return [
        float(np.log(counts.macs)),
        float(np.log(moved)),
        float(np.log(counts.n_kernels)),
        float(np.log(architecture.d_model)),
        float(np.log(workload.n_tokens(architecture))),
        float(np.mean([np.log(a.d_head) for a in attention])),
        float(np.mean([np.log(f.d_ff) for f in ffn])),
        float(np.mean([block.rank is not None for block in blocks])),
        float(np.mean([block.compression.sparsity != "dense" for block in blocks])),
        *shares,
    ]
