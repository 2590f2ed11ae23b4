"""Parameters, multiply-accumulates and bytes in closed form, without torch.

What is counted, and is what ``models.build`` builds:

* images: ``Linear(channels * patch**2 -> d_model)`` on patches; tokens: an embedding table;
  then a learned position table ``(n_tokens, d_model)``;
* each layer: LayerNorm, attention (q, k, v, o), LayerNorm, feed-forward (up, down); every
  projection has a bias; a factorised one is ``d_in -> rank`` without bias, then
  ``rank -> d_out`` with it;
* a final LayerNorm and a linear head: on the mean over tokens for classification, on every
  token for language modelling (not tied to the embedding).

``macs`` are those of matrix products per *sample*, the two inside attention included; causal
masks are not credited. One MAC is two FLOPs. Softmax, norms, GELU and additions are left out.
2:4 sparsity halves stored weights (and adds 2 bits of index a kept weight) but not ``macs``:
what a kernel skips is for measurement to say. Unstructured zeros are stored and multiplied like
any other weight. Bytes assume that each tensor is moved once per
kernel; caches are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.architecture import (
    INT4_GROUP_SIZE,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    Precision,
    is_factorised,
)
from search_spaces.workload import Workload

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
    ``n_kernels`` is launches of a forward pass in eager mode. ``blocks`` are in running order;
    embeddings, position table, final norm and head are counted outside them.
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


def count(architecture: Architecture, workload: Workload) -> Counts:
    """Counts of ``architecture`` on ``workload``.

    Raises:
        ValueError: the architecture's patch size does not fit the workload.
    """
    d_model, tokens = architecture.d_model, workload.n_tokens(architecture)
    blocks = tuple(
        _attention(block, d_model, tokens)
        if isinstance(block, AttentionSpec)
        else _ffn(block, d_model, tokens)
        for block in architecture.blocks
    )
    if workload.is_image:
        d_patch = workload.input_shape[0] * architecture.patch_size**2
        embed_params, embed_macs = (d_patch + 1) * d_model, tokens * d_patch * d_model
    else:
        # Reading a row of a table multiplies nothing.
        embed_params, embed_macs = (workload.vocab_size or 0) * d_model, 0
    head_tokens = tokens if workload.is_causal else 1
    outer_params = (
        embed_params + tokens * d_model + 2 * d_model + (d_model + 1) * workload.n_classes
    )
    stream = architecture.stream_precision
    per_weight, per_value = BYTES_PER_WEIGHT[stream], _BYTES_PER_ACTIVATION[stream]
    outer_values = 3 * tokens * d_model + head_tokens * workload.n_classes
    return Counts(
        params=outer_params + sum(block.params for block in blocks),
        macs=embed_macs
        + head_tokens * d_model * workload.n_classes
        + sum(block.macs for block in blocks),
        weight_bytes=outer_params * per_weight + sum(block.weight_bytes for block in blocks),
        activation_bytes=outer_values * per_value
        + sum(block.activation_bytes for block in blocks),
        n_kernels=5 + sum(block.n_kernels for block in blocks),
        blocks=blocks,
    )


def _projections(
    shapes: list[tuple[int, int]], rank: int | None, tokens: int, compression: Compression
) -> tuple[int, int, float, float, int]:
    """Params, MACs, weight bytes, activation bytes and kernels of a block's projections."""
    params = macs = values = kernels = 0
    stored = 0.0
    per_weight = BYTES_PER_WEIGHT[compression.precision]
    per_value = _BYTES_PER_ACTIVATION[compression.precision]
    if compression.sparsity == "2:4":
        per_weight = (per_weight + _INDEX_BYTES_PER_KEPT_WEIGHT) / 2
    for d_in, d_out in shapes:
        if rank is not None and is_factorised(d_in, d_out, rank):
            weights, moved, launches = rank * (d_in + d_out), d_in + 2 * rank + d_out, 2
        else:
            weights, moved, launches = d_in * d_out, d_in + d_out, 1
        params += weights + d_out
        macs += tokens * weights
        stored += weights * per_weight + d_out * per_value
        values += tokens * moved
        kernels += launches
    return params, macs, stored, values * per_value, kernels


def _attention(spec: AttentionSpec, d_model: int, tokens: int) -> BlockCounts:
    shapes = list(spec.projections(d_model).values())
    params, macs, stored, moved, kernels = _projections(
        shapes, spec.rank, tokens, spec.compression
    )
    d_q, d_kv = spec.n_heads * spec.d_head, spec.n_kv_heads * spec.d_head
    per_value = _BYTES_PER_ACTIVATION[spec.compression.precision]
    # Scores and weighted values; a fused kernel never writes the score matrix.
    macs += 2 * tokens * tokens * d_q
    moved += tokens * (2 * d_q + 2 * d_kv + 4 * d_model) * per_value
    return BlockCounts(
        spec.compression.precision,
        params + 2 * d_model,
        macs,
        stored + 2 * d_model * per_value,
        moved,
        kernels + 3,
    )


def _ffn(spec: FfnSpec, d_model: int, tokens: int) -> BlockCounts:
    shapes = list(spec.projections(d_model).values())
    params, macs, stored, moved, kernels = _projections(
        shapes, spec.rank, tokens, spec.compression
    )
    per_value = _BYTES_PER_ACTIVATION[spec.compression.precision]
    moved += tokens * (2 * spec.d_ff + 4 * d_model) * per_value
    return BlockCounts(
        spec.compression.precision,
        params + 2 * d_model,
        macs,
        stored + 2 * d_model * per_value,
        moved,
        kernels + 3,
    )
