"""Inputs of the cost predictor: closed-form terms and features of architectures.

Terms are the summands of the fitted prior: multiply-accumulates by compute class (precision and
sparsity), bytes, launches, and the time of a roofline (Williams et al. 2009) for static power.
They are summed layer by layer, so that a choice in one layer is not averaged out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import PRECISIONS, SPARSITIES, BlockStyle
from search_spaces.cost.counting import count_batch
from search_spaces.cost.counts import BatchCounts, PartCounts
from search_spaces.space.batch import ArchitectureBatch, BlockBatch
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
# Columns of ``TERMS`` that share a unit; a transfer to another device may scale each group.
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
    # Kernels that add a bias draw more power on some GPUs.
    "bias_share",
)


@dataclass(frozen=True, slots=True)
class Roofline:
    """Memory and launch bounds of a kernel's time, in multiply-accumulates.

    ``macs_per_byte`` is the machine balance, below which a block is bound by memory.
    ``macs_per_launch`` is the number of multiply-accumulates in the time of the shortest kernel.
    With zeros, time is proportional to multiply-accumulates. All compute classes share these
    numbers, since the cost of each is fitted.
    """

    macs_per_byte: float
    macs_per_launch: float


# From a CPU core (about 50 GMAC/s, 10 GB/s) to a large GPU (about 400 TMAC/s, 4 TB/s).
ROOFLINES = tuple(
    Roofline(balance, launch) for balance in (0.0, 8.0, 64.0) for launch in (0.0, 1e6, 3e7)
)

# Stated costs for terms that no row determines: narrower products cost less than fp32 ones, a byte
# about a dozen products (Horowitz 2014), a launch some microseconds.
_STATED_PRECISION = {"fp32": 1.0, "bf16": 0.5, "int8": 0.5, "fp8": 0.35}
_STATED_MAC_J = 1e-10
_STATED_BYTE_J = 1e-10
_STATED_LAUNCH_J = 3e-5


def stated_costs() -> Array:
    """Return assumed joules per unit of each of ``TERMS``, typical of current CPUs and GPUs."""
    per_class = [
        _STATED_MAC_J * _STATED_PRECISION.get(precision, 1.0) * (0.8 if s != "dense" else 1.0)
        for precision in PRECISIONS
        for s in SPARSITIES
    ]
    return np.array([*per_class, *per_class, _STATED_BYTE_J, _STATED_BYTE_J, _STATED_LAUNCH_J])


def terms(counts: BatchCounts, workload: Workload, roofline: Roofline) -> Array:
    """Return terms ``(N, len(TERMS))`` per unit of the workload (a sample, or a decoder's token).

    Work outside the blocks has the compute class of the residual stream.
    """
    batch_size = workload.batch_size
    n = len(counts.outer.macs)
    macs, time = np.zeros((n, len(CLASSES))), np.zeros((n, len(CLASSES)))
    for part in counts.parts:
        bytes_moved = part.activation_bytes + part.read_bytes / batch_size
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
        # Including those of the key-value cache.
        counts.total("activation_bytes"),
        counts.total("read_bytes") / batch_size,
        counts.total("n_kernels") / batch_size,
    ]
    return np.column_stack(columns) / workload.units_per_sample


def features(batch: ArchitectureBatch, counts: BatchCounts, workload: Workload) -> Array:
    """Return features ``(N, len(FEATURES))``: natural logarithms of sizes, and shares of layers.

    In an encoder-decoder, means are over the blocks of both stacks, depth is the sum of both and
    width the mean over layers.
    """
    attention, ffn = _stacked(batch, counts)

    log_d_ff = np.log(ffn["d_ff"])
    mean_log_d_ff = _row_sums(log_d_ff, ffn["share"])
    spread = np.sqrt(np.maximum(_row_sums(log_d_ff**2, ffn["share"]) - mean_log_d_ff**2, 0))
    macs = counts.total("macs")
    moved = counts.total("activation_bytes") + counts.total("read_bytes") / workload.batch_size
    n, units = len(batch), workload.units_per_sample
    depth, log_d_model = batch.depth, np.log(batch.d_model)
    attention_macs = counts.attention.macs.sum(axis=1)
    if batch.decoder is not None and counts.decoder is not None:
        own = batch.decoder
        depth = depth + own.depth
        log_d_model = (batch.depth * log_d_model + own.depth * np.log(own.d_model)) / depth
        for part in (counts.decoder.attention, counts.decoder.cross_attention):
            attention_macs = attention_macs + part.macs.sum(axis=1)

    def both(name: str) -> Array:
        means = [_row_sums(kind[name].astype(float), kind["share"]) for kind in (attention, ffn)]
        result: Array = (means[0] + means[1]) / 2
        return result

    return np.column_stack(
        [
            np.log(macs / units),
            np.log(moved / units),
            np.log(counts.total("n_kernels")),
            log_d_model,
            np.log(depth),
            # A generation step has one new token; its operations and bytes include the context.
            np.log(batch.n_new_tokens(workload) + workload.n_steps),
            np.full(n, np.log(workload.batch_size)),
            batch.of_style(workload.reads_past_only),
            _row_sums(np.log(attention["d_head"]), attention["share"]),
            _row_sums(attention["n_kv_heads"] / attention["n_heads"], attention["share"]),
            mean_log_d_ff,
            spread,
            attention_macs / macs,
            both("is_factorised"),
            both("is_sparse"),
            *(
                _row_sums((kind["precision"] == code).astype(float), kind["share"])
                for kind in (attention, ffn)
                for code in range(1, len(PRECISIONS))
            ),
            batch.of_style(_bias_share),
        ]
    )


def _bias_share(style: BlockStyle) -> float:
    """Return the share of a layer's kinds of projections that have a bias."""
    biases = style.biases
    return (biases.qkv + biases.o + biases.ffn) / 3


def _stacked(
    batch: ArchitectureBatch, counts: BatchCounts
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return arrays of all attention and all feed-forward blocks of both stacks, by name.

    ``share`` is a block's weight in the mean of its kind, 0 for absent blocks.
    """
    attention = [(batch.attention, counts.attention, batch.active)]
    ffn = [(batch.ffn, counts.ffn, batch.active)]
    if batch.decoder is not None and counts.decoder is not None:
        own, counted, active = batch.decoder, counts.decoder, batch.decoder.active
        attention.append((own.attention, counted.attention, active))
        attention.append((own.cross_attention, counted.cross_attention, active))
        ffn.append((own.ffn, counted.ffn, active))
    widths = ("n_heads", "n_kv_heads", "d_head")
    return _side_by_side(attention, widths), _side_by_side(ffn, ("d_ff",))


def _side_by_side(
    parts: Sequence[tuple[BlockBatch, PartCounts, NDArray[np.bool_]]], widths: Sequence[str]
) -> dict[str, NDArray[Any]]:
    def joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)

    active = joined([there for _, _, there in parts])
    return {
        **{name: joined([getattr(block, name) for block, _, _ in parts]) for name in widths},
        "precision": joined([block.precision for block, _, _ in parts]),
        "is_sparse": joined([block.sparsity > 0 for block, _, _ in parts]),
        "is_factorised": joined([counted.is_factorised for _, counted, _ in parts]),
        "share": active / active.sum(axis=1, keepdims=True).astype(float),
    }


def counted(
    batch: ArchitectureBatch, workload: Workload, device: str = "cpu"
) -> tuple[BatchCounts, Array]:
    """Return counts and features of a batch on ``device``, which determines 4-bit storage.

    Raises:
        ValueError: a patch size does not fit the workload.
    """
    counts = count_batch(batch, workload, device)
    return counts, features(batch, counts, workload)


def _row_sums(values: Array, weights: Array) -> Array:
    """Return weighted sums over layers, or the products if there is no axis of layers."""
    # einsum is faster than sum(axis=1) for few layers, since it has no overhead per row.
    if values.ndim != 2:
        return values * weights
    sums: Array = np.einsum("nl,nl->n", values, weights)
    return sums
