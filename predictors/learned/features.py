"""What the energy predictor sees of architectures on a workload: closed-form terms and features.

Terms are what the fitted prior adds up, each proportional to joules if the device did nothing
else: multiply-accumulates by compute class (precision and sparsity), bytes, launches, and the time
of a roofline (Williams et al. 2009) for what static power draws meanwhile. They are summed layer
by layer, so that no choice made in one layer is averaged away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import PRECISIONS, SPARSITIES
from search_spaces.batch import ArchitectureBatch, BlockBatch
from search_spaces.counting import BatchCounts, count_batch
from search_spaces.workload import Workload

Array = NDArray[np.float64]

CLASSES = tuple(f"{p}_{s}" for p in PRECISIONS for s in SPARSITIES)
TERMS = (
    *(f"macs_{name}" for name in CLASSES),
    *(f"time_{name}" for name in CLASSES),
    "activation_bytes",
    "weight_bytes_per_sample",
    "kernels_per_sample",
)
# Columns of ``TERMS`` that share a unit: what another device may weigh differently as a whole.
TERM_GROUPS = {
    "compute": tuple(range(len(CLASSES))),
    "memory": (2 * len(CLASSES), 2 * len(CLASSES) + 1),
    "launches": (2 * len(CLASSES) + 2,),
}
FEATURES = (
    "log_macs",
    "log_bytes",
    "log_kernels",
    "log_d_model",
    "log_depth",
    "log_tokens",
    "log_batch_size",
    "is_causal",
    "mean_log_d_head",
    "mean_kv_share",
    "mean_log_d_ff",
    "spread_log_d_ff",
    "attention_share",
    "factorised_share",
    "sparse_share",
    *(f"{block}_{precision}" for block in ("attention", "ffn") for precision in PRECISIONS[1:]),
)


@dataclass(frozen=True, slots=True)
class Roofline:
    """Where a kernel's time stops following its multiply-accumulates.

    ``macs_per_byte`` is the machine balance: below it a block waits for memory.
    ``macs_per_launch`` is how many would fit into the time of the shortest kernel. Zeros leave
    time proportional to multiply-accumulates. One balance serves all compute classes: what each
    is worth is a fitted cost.
    """

    macs_per_byte: float
    macs_per_launch: float


# From a CPU core (about 50 GMAC/s, 10 GB/s) to a large GPU (about 400 TMAC/s, 4 TB/s).
ROOFLINES = tuple(
    Roofline(balance, launch) for balance in (0.0, 8.0, 64.0) for launch in (0.0, 1e6, 3e7)
)

# Stated costs relative to one fp32 multiply-accumulate, for what no row has shown: narrower
# products cost less, a byte about a dozen products (Horowitz 2014), a launch some microseconds.
_STATED_PRECISION = {"fp32": 1.0, "bf16": 0.5, "int8": 0.5, "fp8": 0.35}
_STATED_MAC_J = 1e-10
_STATED_BYTE_J = 1e-10
_STATED_LAUNCH_J = 3e-5


def stated_costs() -> Array:
    """Joules per unit of each of ``TERMS``, of the order of today's CPUs and GPUs: a guess."""
    per_class = [
        _STATED_MAC_J * _STATED_PRECISION.get(precision, 1.0) * (0.8 if s != "dense" else 1.0)
        for precision in PRECISIONS
        for s in SPARSITIES
    ]
    return np.array([*per_class, *per_class, _STATED_BYTE_J, _STATED_BYTE_J, _STATED_LAUNCH_J])


def terms(counts: BatchCounts, workload: Workload, roofline: Roofline) -> Array:
    """Shape ``(N, len(TERMS))``, per unit of the workload (a sample, or a token of a decoder).

    Work outside the blocks has the stream's class.
    """
    batch_size = workload.batch_size
    n = len(counts.outer.macs)
    macs, time = np.zeros((n, len(CLASSES))), np.zeros((n, len(CLASSES)))
    for part in (counts.attention, counts.ffn, counts.outer):
        bytes_moved = part.activation_bytes + part.weight_bytes / batch_size
        launches = part.n_kernels / batch_size
        taken = np.maximum(
            part.macs,
            np.maximum(roofline.macs_per_byte * bytes_moved, roofline.macs_per_launch * launches),
        )
        codes = part.precision * len(SPARSITIES) + part.sparsity
        for code in np.flatnonzero(np.bincount(codes.ravel(), minlength=len(CLASSES))):
            chosen = (codes == code).astype(float)
            macs[:, code] += _row_sums(part.macs, chosen)
            time[:, code] += _row_sums(taken, chosen)
    columns = [
        macs,
        time,
        # Those of the cache of keys and values are among them.
        counts.total("activation_bytes"),
        counts.total("weight_bytes") / batch_size,
        counts.total("n_kernels") / batch_size,
    ]
    return np.column_stack(columns) / workload.units_per_sample


def features(batch: ArchitectureBatch, counts: BatchCounts, workload: Workload) -> Array:
    """Shape ``(N, len(FEATURES))``; sizes in natural logarithms, shares of layers in [0, 1]."""
    share = batch.active / batch.depth[:, None].astype(float)

    def mean(values: NDArray[np.generic]) -> Array:
        return _row_sums(values.astype(float), share)

    log_d_ff = np.log(batch.ffn.d_ff)
    mean_log_d_ff = mean(log_d_ff)
    spread = np.sqrt(np.maximum(mean(log_d_ff**2) - mean_log_d_ff**2, 0))
    blocks: tuple[tuple[BlockBatch, NDArray[np.bool_]], ...] = (
        (batch.attention, counts.attention.is_factorised),
        (batch.ffn, counts.ffn.is_factorised),
    )
    macs = counts.total("macs")
    moved = counts.total("activation_bytes") + counts.total("weight_bytes") / workload.batch_size
    n, units = len(batch), workload.units_per_sample
    return np.column_stack(
        [
            np.log(macs / units),
            np.log(moved / units),
            np.log(counts.total("n_kernels")),
            np.log(batch.d_model),
            np.log(batch.depth),
            # Of a generation step that is one; its context is in what it multiplies and moves.
            np.log(workload.n_new_tokens_batch(batch.patch_size, batch.resolution)),
            np.full(n, np.log(workload.batch_size)),
            np.full(n, float(workload.is_causal)),
            mean(np.log(batch.attention.d_head)),
            mean(batch.attention.n_kv_heads / batch.attention.n_heads),
            mean_log_d_ff,
            spread,
            counts.attention.macs.sum(axis=1) / macs,
            (mean(blocks[0][1]) + mean(blocks[1][1])) / 2,
            (mean(batch.attention.sparsity > 0) + mean(batch.ffn.sparsity > 0)) / 2,
            *(
                mean(block.precision == code)
                for block, _ in blocks
                for code in range(1, len(PRECISIONS))
            ),
        ]
    )


def counted(batch: ArchitectureBatch, workload: Workload) -> tuple[BatchCounts, Array]:
    """Counts and features of a batch.

    Raises:
        ValueError: a patch size does not fit the workload.
    """
    counts = count_batch(batch, workload)
    return counts, features(batch, counts, workload)


def _row_sums(values: Array, weights: Array) -> Array:
    """Weighted sums over layers, or the products where there is no axis of layers."""
    # Sums over a few layers: einsum has no overhead for each row, as sum(axis=1) has.
    found: Array = np.einsum("nl,nl->n", values, weights) if values.ndim == 2 else values * weights
    return found
