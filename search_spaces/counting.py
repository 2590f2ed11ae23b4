"""Parameters, multiply-accumulates and bytes in closed form, without torch.

What is counted, and is what ``models.build`` builds:

* images: shrunk first where the architecture has a resolution (a kernel that reads and writes
  pixels and multiplies nothing); ``Linear(channels * patch**2 -> d_model)`` on patches; tokens:
  an embedding table; then a learned position table ``(n_tokens, d_model)``;
* each layer: LayerNorm, attention (q, k, v, o), LayerNorm, feed-forward (up, down); every
  projection has a bias; a factorised one is ``d_in -> rank`` without bias, then
  ``rank -> d_out`` with it;
* a final LayerNorm and a linear head: on the mean over tokens for classification, on every
  token for language modelling (not tied to the embedding) and question answering, on every token
  for all pixels of its patch for segmentation (which outputs are then enlarged to the image's
  size where that was shrunk: a kernel that multiplies nothing).

``macs`` are those of matrix products per *sample*, the two inside attention included; causal
masks are not credited. One MAC is two FLOPs. Softmax, norms, GELU and additions are left out.
2:4 sparsity halves stored weights (and adds 2 bits of index a kept weight) but not ``macs``:
what a kernel skips is for measurement to say. Unstructured zeros are stored and multiplied like
any other weight. Bytes assume that each tensor is moved once per
kernel; caches of the hardware are left out.

Of a decoder that is priced by its phase (``Workload.phase``) the head is counted for the last
token only. *Prefill* also writes every block's keys and values to its cache. A *generation step*
runs one token through every projection; attention reads the whole cache, which is the context
long, and writes one token's keys and values to it. The cache holds what the block computes
with (``kv_cache_bytes``).

Every formula stands once, on arrays (``count_batch``); ``count`` is a batch of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import (
    BF16_STREAM,
    INT4_GROUP_SIZE,
    PRECISIONS,
    SPARSITIES,
    TRANSFORMER,
    Architecture,
    Precision,
)
from search_spaces.batch import ArchitectureBatch, AttentionBatch, BlockBatch, FfnBatch, Ints
from search_spaces.families import get_family
from search_spaces.workload import AS_IT_IS, Workload

Floats = NDArray[np.float64]

BYTES_PER_WEIGHT: dict[Precision, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "int8": 1.0,
    "fp8": 1.0,
    "int8wo": 1.0,
    # Half a byte, and a bf16 scale and zero point for each group.
    "int4wo": 0.5 + 4 / INT4_GROUP_SIZE,
}
_BYTES_PER_ACTIVATION: dict[Precision, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "int8": 4.0,
    "fp8": 2.0,
    "int8wo": 2.0,
    "int4wo": 2.0,
}
# 2:4 keeps half of the weights and stores a 2-bit position for each one kept.
_INDEX_BYTES_PER_KEPT_WEIGHT = 0.25
_PER_WEIGHT = np.array([BYTES_PER_WEIGHT[p] for p in PRECISIONS])
_PER_VALUE = np.array([_BYTES_PER_ACTIVATION[p] for p in PRECISIONS])
_HALVED = SPARSITIES.index("2:4")
_STREAMS = (PRECISIONS.index("fp32"), PRECISIONS.index("bf16"))


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """One attention or feed-forward block; see ``Counts`` for the units."""

    precision: Precision
    params: int
    macs: int
    weight_bytes: float
    activation_bytes: float
    n_kernels: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Closed-form counts of one architecture on one workload.

    ``macs`` and ``activation_bytes`` are per sample; ``weight_bytes`` are read once a batch;
    ``n_kernels`` is launches of a pass (a phase, where the workload has one) in eager mode.
    ``blocks`` are in running order; embeddings, position table, final norm and head are counted
    outside them.
    """

    params: int
    macs: int
    weight_bytes: float
    activation_bytes: float
    n_kernels: int
    blocks: tuple[BlockCounts, ...]

    @property
    def flops(self) -> int:
        """Two per multiply-accumulate."""
        return 2 * self.macs


@dataclass(frozen=True)
class PartCounts:
    """Counts of one kind of part, all of one shape; see ``Counts`` for the units.

    ``precision`` and ``sparsity`` are positions in ``PRECISIONS`` and ``SPARSITIES``.
    ``is_factorised`` says that some projection is built as two factors.
    """

    precision: Ints
    sparsity: Ints
    is_factorised: NDArray[np.bool_]
    params: Floats
    macs: Floats
    weight_bytes: Floats
    activation_bytes: Floats
    n_kernels: Floats


@dataclass(frozen=True)
class BatchCounts:
    """Counts of ``N`` architectures: blocks ``(N, L)``, zero in layers that do not exist.

    ``outer`` is what lies outside the blocks (embedding, position table, final norm, head), with
    fields of shape ``(N,)``.
    """

    attention: PartCounts
    ffn: PartCounts
    outer: PartCounts

    def total(self, field: str) -> Floats:
        """Sum of one field over all parts, shape ``(N,)``."""
        found: Floats = (
            getattr(self.outer, field)
            + getattr(self.attention, field).sum(axis=1)
            + getattr(self.ffn, field).sum(axis=1)
        )
        return found


def count(architecture: Architecture, workload: Workload) -> Counts:
    """Counts of ``architecture`` on ``workload``.

    Raises:
        ValueError: the architecture's patch size does not fit the workload.
    """
    counts = count_batch(ArchitectureBatch.of([architecture]), workload)
    blocks = tuple(
        BlockCounts(
            PRECISIONS[part.precision[0, layer]],
            int(part.params[0, layer]),
            int(part.macs[0, layer]),
            float(part.weight_bytes[0, layer]),
            float(part.activation_bytes[0, layer]),
            int(part.n_kernels[0, layer]),
        )
        for layer in range(architecture.depth)
        for part in (counts.attention, counts.ffn)
    )
    return Counts(
        params=int(counts.total("params")[0]),
        macs=int(counts.total("macs")[0]),
        weight_bytes=float(counts.total("weight_bytes")[0]),
        activation_bytes=float(counts.total("activation_bytes")[0]),
        n_kernels=int(counts.total("n_kernels")[0]),
        blocks=blocks,
    )


def count_batch(batch: ArchitectureBatch, workload: Workload) -> BatchCounts:
    """Counts of every architecture of ``batch`` on ``workload``.

    Raises:
        ValueError: a patch size does not fit the workload.
    """
    if batch.family != TRANSFORMER:
        return _of_family(batch, workload)
    context = workload.n_tokens_batch(batch.patch_size, batch.resolution)
    tokens = workload.n_new_tokens_batch(batch.patch_size, batch.resolution)
    d_model, active = batch.d_model[:, None].astype(float), batch.active
    attention = _attention(
        batch.attention, d_model, tokens[:, None], context[:, None], active, workload
    )
    ffn = _ffn(batch.ffn, d_model, tokens[:, None], active)
    return BatchCounts(attention, ffn, _outer(batch, tokens, context, workload))


def _of_family(batch: ArchitectureBatch, workload: Workload) -> BatchCounts:
    """What another family counts stands outside of blocks, of which it has none that we know."""
    found = get_family(batch.family).count(batch, workload)
    none = np.zeros(batch.attention.rank.shape)
    codes = np.zeros_like(batch.attention.rank)
    blocks = PartCounts(codes, codes, codes.astype(bool), none, none, none, none, none)
    stream = np.full(len(batch), _STREAMS[0])
    outer = PartCounts(
        precision=stream,
        sparsity=np.zeros_like(stream),
        is_factorised=np.zeros(len(batch), dtype=bool),
        params=found.params,
        macs=found.macs,
        weight_bytes=found.params * _PER_WEIGHT[stream],
        activation_bytes=found.moved_values * _PER_VALUE[stream],
        n_kernels=found.n_kernels,
    )
    return BatchCounts(blocks, blocks, outer)


def kv_cache_bytes(batch: ArchitectureBatch, workload: Workload) -> Floats:
    """Keys and values of all layers of one sample at the workload's full context, ``(N,)``.

    Zero where the workload has no cache.
    """
    if workload.phase is None:
        return np.zeros(len(batch))
    context = workload.n_tokens_batch(batch.patch_size, batch.resolution)
    blocks = batch.attention
    values = 2 * (blocks.n_kv_heads * blocks.d_head).astype(float) * batch.active
    found: Floats = context * (values * _PER_VALUE[blocks.precision]).sum(axis=1)
    return found


def _outer(
    batch: ArchitectureBatch, tokens: Floats, context: Floats, workload: Workload
) -> PartCounts:
    d_model = batch.d_model.astype(float)
    if workload.is_image:
        d_patch = workload.input_shape[0] * batch.patch_size.astype(float) ** 2
        embed_params, embed_macs = (d_patch + 1) * d_model, tokens * d_patch * d_model
    else:
        # Reading a row of a table multiplies nothing.
        embed_params, embed_macs = (workload.vocab_size or 0) * d_model, np.zeros_like(d_model)
    # Of a phase, only what follows the last token is asked for.
    has_one_output = workload.is_pooled or workload.phase is not None
    head_tokens = np.ones_like(tokens) if has_one_output else tokens
    n_outputs: Floats | float = float(workload.n_classes)
    if workload.is_dense:
        n_outputs = n_outputs * batch.patch_size.astype(float) ** 2
    params = embed_params + context * d_model + 2 * d_model + (d_model + 1) * n_outputs
    stream = stream_precisions(batch)
    values = 3 * tokens * d_model + head_tokens * n_outputs
    kernels = np.full(len(batch), 5.0)
    if workload.is_image:
        is_shrunk = batch.resolution != AS_IT_IS
        heights, widths = workload.image_sizes(batch.resolution)
        channels, height, width = workload.input_shape
        values += channels * (height * width + heights * widths) * is_shrunk
        kernels += is_shrunk
        if workload.is_dense:
            values += workload.n_classes * (height * width + heights * widths) * is_shrunk
            kernels += is_shrunk
    return PartCounts(
        precision=stream,
        sparsity=np.zeros_like(stream),
        is_factorised=np.zeros(len(batch), dtype=bool),
        params=params,
        macs=embed_macs + head_tokens * d_model * n_outputs,
        weight_bytes=params * _PER_WEIGHT[stream],
        activation_bytes=values * _PER_VALUE[stream],
        n_kernels=kernels,
    )


def stream_precisions(batch: ArchitectureBatch) -> Ints:
    """``Architecture.stream_precision`` of each, as positions in ``PRECISIONS``, ``(N,)``."""
    narrow = np.array([precision in BF16_STREAM for precision in PRECISIONS])
    all_narrow = (
        (narrow[batch.attention.precision] & narrow[batch.ffn.precision]) | ~batch.active
    ).all(axis=1)
    return np.where(all_narrow, _STREAMS[1], _STREAMS[0])


def _attention(
    blocks: AttentionBatch,
    d_model: Floats,
    tokens: Floats,
    context: Floats,
    active: NDArray[np.bool_],
    workload: Workload,
) -> PartCounts:
    d_q = (blocks.n_heads * blocks.d_head).astype(float)
    d_kv = (blocks.n_kv_heads * blocks.d_head).astype(float)
    # Of keys and values alike: those read, and those written to the cache.
    read, written = context, 0.0 if workload.phase is None else tokens
    # Scores and weighted values; a fused kernel never writes the score matrix.
    return _block(
        blocks,
        [(d_model, d_q), (d_model, d_kv), (d_model, d_kv), (d_q, d_model)],
        tokens,
        active,
        extra_macs=2 * tokens * context * d_q,
        extra_values=tokens * (2 * d_q + 4 * d_model) + (read + written) * 2 * d_kv,
        d_model=d_model,
        extra_kernels=0 if workload.phase is None else 2,
    )


def _ffn(
    blocks: FfnBatch, d_model: Floats, tokens: Floats, active: NDArray[np.bool_]
) -> PartCounts:
    d_ff = blocks.d_ff.astype(float)
    return _block(
        blocks,
        [(d_model, d_ff), (d_ff, d_model)],
        tokens,
        active,
        extra_macs=0.0,
        extra_values=tokens * (2 * d_ff + 4 * d_model),
        d_model=d_model,
    )


def _block(
    blocks: BlockBatch,
    shapes: list[tuple[Floats, Floats]],
    tokens: Floats,
    active: NDArray[np.bool_],
    *,
    extra_macs: Floats | float,
    extra_values: Floats,
    d_model: Floats,
    extra_kernels: int = 0,
) -> PartCounts:
    """A block's projections, its norm and three more kernels, and what is extra to it."""
    rank = blocks.rank.astype(float)
    weights, moved, biases = np.zeros(rank.shape), np.zeros(rank.shape), np.zeros(rank.shape)
    kernels = np.full(rank.shape, 3.0 + extra_kernels)
    any_factorised = np.zeros(rank.shape, dtype=bool)
    has_rank = rank > 0
    for d_in, d_out in shapes:
        full, ends = d_in * d_out, d_in + d_out
        factors = rank * ends
        # As ``architecture.is_factorised``: factors that do not save weights are not built.
        factorised = has_rank & (factors < full)
        weights += np.where(factorised, factors, full)
        moved += ends
        moved += 2 * rank * factorised
        biases += d_out
        kernels += factorised
        any_factorised |= factorised
    kernels += len(shapes)
    per_weight, per_value = _PER_WEIGHT[blocks.precision], _PER_VALUE[blocks.precision]
    per_weight = np.where(
        blocks.sparsity == _HALVED, (per_weight + _INDEX_BYTES_PER_KEPT_WEIGHT) / 2, per_weight
    )
    norm = 2 * d_model
    return PartCounts(
        precision=blocks.precision,
        sparsity=blocks.sparsity,
        is_factorised=any_factorised & active,
        params=(weights + biases + norm) * active,
        macs=(tokens * weights + extra_macs) * active,
        weight_bytes=(weights * per_weight + (biases + norm) * per_value) * active,
        activation_bytes=(tokens * moved + extra_values) * per_value * active,
        n_kernels=kernels * active,
    )
