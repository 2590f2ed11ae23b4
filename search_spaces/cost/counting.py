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
  size where that was shrunk: a kernel that multiplies nothing);
* an encoder-decoder: the encoder as above but for the head; a decoder with an embedding table of
  targets, a position table, layers of LayerNorm, attention, LayerNorm, attention to the encoder
  (whose keys and values are made of the encoder's width), LayerNorm, feed-forward; then a final
  LayerNorm and a linear head on every token (not tied).

``macs`` are those of matrix products per *sample*, the two inside attention included; causal
masks are not credited. One MAC is two FLOPs. Softmax, norms, GELU and additions are left out.
2:4 sparsity halves stored weights (and adds 2 bits of index a kept weight) but not ``macs``:
what a kernel skips is for measurement to say. Unstructured zeros are stored and multiplied like
any other weight. On CUDA 4-bit weights are stored with their inputs padded to 1024, and counted as
they are stored. Bytes assume that each tensor is moved once per
kernel; caches of the hardware are left out.

Of a decoder that is priced by its phase (``Workload.phase``) the head is counted for the last
token only. *Prefill* also writes every block's keys and values to its cache. A *generation step*
runs one token through every projection; attention reads the whole cache, which is the context
long, and writes one token's keys and values to it. The cache holds what the block computes
with (``kv_cache_bytes``).

A translation is the encoder's pass, keys and values of its output for each of the decoder's
layers, then ``target_length`` steps of ``beam_size`` tokens each. Every step reads the decoder's
weights again, the whole cache of its own tokens (shapes never change, so that unwritten places
are masked) and that of the encoder's.

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
from search_spaces.cost.families import get_family
from search_spaces.space.batch import (
    ArchitectureBatch,
    AttentionBatch,
    BlockBatch,
    DecoderBatch,
    FfnBatch,
    Ints,
)
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
# torchao packs 4-bit weights for CUDA in whole tiles along the input.
_INT4_CUDA_TILE = 1024
_INT4 = PRECISIONS.index("int4wo")
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
    ``is_factorised`` says that some projection is built as two factors. ``read_bytes`` are those
    of weights that a batch reads: ``weight_bytes``, but for a decoder's, which each step reads.
    """

    precision: Ints
    sparsity: Ints
    is_factorised: NDArray[np.bool_]
    params: Floats
    macs: Floats
    weight_bytes: Floats
    activation_bytes: Floats
    n_kernels: Floats
    read_bytes: Floats


@dataclass(frozen=True)
class DecoderCounts:
    """Counts of the decoders of ``N`` encoder-decoders, as ``BatchCounts`` has them."""

    attention: PartCounts
    cross_attention: PartCounts
    ffn: PartCounts
    outer: PartCounts


@dataclass(frozen=True)
class BatchCounts:
    """Counts of ``N`` architectures: blocks ``(N, L)``, zero in layers that do not exist.

    ``outer`` is what lies outside the blocks (embedding, position table, final norm, head), with
    fields of shape ``(N,)``.
    """

    attention: PartCounts
    ffn: PartCounts
    outer: PartCounts
    decoder: DecoderCounts | None = None

    @property
    def parts(self) -> tuple[PartCounts, ...]:
        """All parts, blocks and others."""
        own = (self.attention, self.ffn, self.outer)
        if self.decoder is None:
            return own
        rest = self.decoder
        return (*own, rest.attention, rest.cross_attention, rest.ffn, rest.outer)

    def total(self, field: str) -> Floats:
        """Sum of one field over all parts, shape ``(N,)``."""
        outer, *blocks = (getattr(part, field) for part in (self.outer, *self._blocks))
        found: Floats = outer + sum(part.sum(axis=1) for part in blocks)
        if self.decoder is not None:
            found = found + getattr(self.decoder.outer, field)
        return found

    @property
    def _blocks(self) -> tuple[PartCounts, ...]:
        return tuple(part for part in self.parts if part.macs.ndim == 2)


def count(architecture: Architecture, workload: Workload, device: str = "cpu") -> Counts:
    """Counts of ``architecture`` on ``workload``; see ``count_batch`` for ``device``.

    Raises:
        ValueError: the architecture's patch size does not fit the workload.
    """
    counts = count_batch(ArchitectureBatch.of([architecture]), workload, device)
    stacks: list[tuple[int, tuple[PartCounts, ...]]] = [
        (architecture.depth, (counts.attention, counts.ffn))
    ]
    if architecture.decoder is not None and (own := counts.decoder) is not None:
        parts = (own.attention, own.cross_attention, own.ffn)
        stacks.append((architecture.decoder.depth, parts))
    blocks = tuple(
        BlockCounts(
            PRECISIONS[part.precision[0, layer]],
            int(part.params[0, layer]),
            int(part.macs[0, layer]),
            float(part.weight_bytes[0, layer]),
            float(part.activation_bytes[0, layer]),
            int(part.n_kernels[0, layer]),
        )
        for depth, parts in stacks
        for layer in range(depth)
        for part in parts
    )
    return Counts(
        params=int(counts.total("params")[0]),
        macs=int(counts.total("macs")[0]),
        weight_bytes=float(counts.total("weight_bytes")[0]),
        activation_bytes=float(counts.total("activation_bytes")[0]),
        n_kernels=int(counts.total("n_kernels")[0]),
        blocks=blocks,
    )


def count_batch(batch: ArchitectureBatch, workload: Workload, device: str = "cpu") -> BatchCounts:
    """Counts of every architecture of ``batch`` on ``workload``.

    Bytes of 4-bit weights are those of their form on ``device`` (``cpu``, ``cuda:0``).

    Raises:
        ValueError: a patch size does not fit the workload, or there is a decoder and nothing to
            translate, or the reverse.
    """
    workload.check_decoder(batch.decoder is not None)
    if batch.family != TRANSFORMER:
        return _of_family(batch, workload)
    context = workload.n_tokens_batch(batch.patch_size, batch.resolution)
    tokens = workload.n_new_tokens_batch(batch.patch_size, batch.resolution)
    d_model, active = batch.d_model[:, None].astype(float), batch.active
    pads_int4 = device.startswith("cuda")
    attention = _attention(
        batch.attention, d_model, tokens[:, None], context[:, None], active, workload, pads_int4
    )
    ffn = _ffn(batch.ffn, d_model, tokens[:, None], active, pads_int4)
    outer = _outer(batch, tokens, context, workload)
    decoder = None
    if batch.decoder is not None:
        stream = stream_precisions(batch)
        decoder = _decoder(batch.decoder, d_model, context[:, None], stream, workload)
    return BatchCounts(attention, ffn, outer, decoder)


def _of_family(batch: ArchitectureBatch, workload: Workload) -> BatchCounts:
    """What another family counts stands outside of blocks, of which it has none that we know."""
    found = get_family(batch.family).count(batch, workload)
    none = np.zeros(batch.attention.rank.shape)
    codes = np.zeros_like(batch.attention.rank)
    blocks = PartCounts(codes, codes, codes.astype(bool), none, none, none, none, none, none)
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
        read_bytes=found.params * _PER_WEIGHT[stream],
    )
    return BatchCounts(blocks, blocks, outer)


def kv_cache_bytes(batch: ArchitectureBatch, workload: Workload) -> Floats:
    """Keys and values of all layers of one sample at the workload's full context, ``(N,)``.

    Zero where the workload has no cache.
    """
    if batch.decoder is not None:
        return _decoder_cache_bytes(batch.decoder, workload)
    if workload.phase is None:
        return np.zeros(len(batch))
    context = workload.n_tokens_batch(batch.patch_size, batch.resolution)
    blocks = batch.attention
    values = 2 * (blocks.n_kv_heads * blocks.d_head).astype(float) * batch.active
    found: Floats = context * (values * _PER_VALUE[blocks.precision]).sum(axis=1)
    return found


def _decoder_cache_bytes(decoder: DecoderBatch, workload: Workload) -> Floats:
    """Of one sample: every translation that is followed has its own copy."""
    found = np.zeros(len(decoder.d_model))
    lengths = (workload.n_steps, workload.input_shape[0])
    for blocks, tokens in zip((decoder.attention, decoder.cross_attention), lengths, strict=True):
        values = 2 * (blocks.n_kv_heads * blocks.d_head).astype(float) * decoder.active
        found += tokens * (values * _PER_VALUE[blocks.precision]).sum(axis=1)
    return found * workload.beam_size


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
    if workload.is_translation:
        # The head is the decoder's.
        n_outputs = 0.0
    params = embed_params + context * d_model + 2 * d_model + (d_model + 1) * n_outputs
    stream = stream_precisions(batch)
    values = 3 * tokens * d_model + head_tokens * n_outputs
    kernels = np.full(len(batch), 4.0 if workload.is_translation else 5.0)
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
        read_bytes=params * _PER_WEIGHT[stream],
    )


def stream_precisions(batch: ArchitectureBatch) -> Ints:
    """``Architecture.stream_precision`` of each, as positions in ``PRECISIONS``, ``(N,)``."""
    narrow = np.array([precision in BF16_STREAM for precision in PRECISIONS])
    all_narrow = (
        (narrow[batch.attention.precision] & narrow[batch.ffn.precision]) | ~batch.active
    ).all(axis=1)
    if (own := batch.decoder) is not None:
        for part in (own.attention, own.cross_attention, own.ffn):
            all_narrow &= (narrow[part.precision] | ~own.active).all(axis=1)
    return np.where(all_narrow, _STREAMS[1], _STREAMS[0])


@dataclass(frozen=True)
class _Product:
    """A projection: its shape, the tokens of a sample that it is given, and in how many calls."""

    d_in: Floats
    d_out: Floats
    tokens: Floats | float
    n_calls: int = 1


def _decoder(
    decoder: DecoderBatch, d_memory: Floats, memory: Floats, stream: Ints, workload: Workload
) -> DecoderCounts:
    """``memory`` tokens of width ``d_memory`` are what the encoder gives, both ``(N, 1)``."""
    d_model, active = decoder.d_model[:, None].astype(float), decoder.active
    steps = workload.n_steps
    tokens = float(steps * workload.beam_size)

    def attention(blocks: AttentionBatch, read: Floats | float, *, of_memory: bool) -> PartCounts:
        d_q = (blocks.n_heads * blocks.d_head).astype(float)
        d_kv = (blocks.n_kv_heads * blocks.d_head).astype(float)
        key = (
            _Product(d_memory, d_kv, memory)
            if of_memory
            else _Product(d_model, d_kv, tokens, steps)
        )
        written = workload.beam_size * memory if of_memory else tokens
        return _block(
            blocks,
            [
                _Product(d_model, d_q, tokens, steps),
                key,
                key,
                _Product(d_q, d_model, tokens, steps),
            ],
            active,
            extra_macs=2 * tokens * read * d_q,
            extra_values=tokens * (2 * d_q + 4 * d_model) + (tokens * read + written) * 2 * d_kv,
            d_model=d_model,
            extra_kernels=0 if of_memory else 2,
            n_calls=steps,
        )

    d_ff = decoder.ffn.d_ff.astype(float)
    ffn = _block(
        decoder.ffn,
        [_Product(d_model, d_ff, tokens, steps), _Product(d_ff, d_model, tokens, steps)],
        active,
        extra_macs=0.0,
        extra_values=tokens * (2 * d_ff + 4 * d_model),
        d_model=d_model,
        n_calls=steps,
    )
    width, n_outputs = decoder.d_model.astype(float), float(workload.n_classes)
    # Of the table a step reads a row for each token, which counts as values.
    table = n_outputs * width
    rest = steps * width + 2 * width + (width + 1) * n_outputs
    per_weight = _PER_WEIGHT[stream]
    outer = PartCounts(
        precision=stream,
        sparsity=np.zeros_like(stream),
        is_factorised=np.zeros(len(stream), dtype=bool),
        params=table + rest,
        macs=tokens * width * n_outputs,
        weight_bytes=(table + rest) * per_weight,
        activation_bytes=tokens * (3 * width + n_outputs) * _PER_VALUE[stream],
        n_kernels=np.full(len(stream), 5.0 * steps),
        read_bytes=(table + steps * rest) * per_weight,
    )
    return DecoderCounts(
        attention(decoder.attention, float(steps), of_memory=False),
        attention(decoder.cross_attention, memory, of_memory=True),
        ffn,
        outer,
    )


def _attention(
    blocks: AttentionBatch,
    d_model: Floats,
    tokens: Floats,
    context: Floats,
    active: NDArray[np.bool_],
    workload: Workload,
    pads_int4: bool,
) -> PartCounts:
    d_q = (blocks.n_heads * blocks.d_head).astype(float)
    d_kv = (blocks.n_kv_heads * blocks.d_head).astype(float)
    # Of keys and values alike: those read, and those written to the cache.
    read, written = context, 0.0 if workload.phase is None else tokens
    # Scores and weighted values; a fused kernel never writes the score matrix.
    return _block(
        blocks,
        [
            _Product(d_in, d_out, tokens)
            for d_in, d_out in (
                (d_model, d_q),
                (d_model, d_kv),
                (d_model, d_kv),
                (d_q, d_model),
            )
        ],
        active,
        extra_macs=2 * tokens * context * d_q,
        extra_values=tokens * (2 * d_q + 4 * d_model) + (read + written) * 2 * d_kv,
        d_model=d_model,
        extra_kernels=0 if workload.phase is None else 2,
        pads_int4=pads_int4,
    )


def _ffn(
    blocks: FfnBatch,
    d_model: Floats,
    tokens: Floats,
    active: NDArray[np.bool_],
    pads_int4: bool,
) -> PartCounts:
    d_ff = blocks.d_ff.astype(float)
    return _block(
        blocks,
        [_Product(d_model, d_ff, tokens), _Product(d_ff, d_model, tokens)],
        active,
        extra_macs=0.0,
        extra_values=tokens * (2 * d_ff + 4 * d_model),
        d_model=d_model,
        pads_int4=pads_int4,
    )


def _block(
    blocks: BlockBatch,
    products: list[_Product],
    active: NDArray[np.bool_],
    *,
    extra_macs: Floats | float,
    extra_values: Floats,
    d_model: Floats,
    extra_kernels: int = 0,
    n_calls: int = 1,
    pads_int4: bool = False,
) -> PartCounts:
    """A block's projections, its norm and three more kernels, and what is extra to it.

    All but the projections runs in ``n_calls``.
    """
    rank = blocks.rank.astype(float)
    weights, stored, values, macs = (np.zeros(rank.shape) for _ in range(4))
    is_padded = (blocks.precision == _INT4) & pads_int4
    kernels = np.full(rank.shape, (3.0 + extra_kernels) * n_calls)
    any_factorised = np.zeros(rank.shape, dtype=bool)
    has_rank = rank > 0
    per_weight, per_value = _PER_WEIGHT[blocks.precision], _PER_VALUE[blocks.precision]
    per_weight = np.where(
        blocks.sparsity == _HALVED, (per_weight + _INDEX_BYTES_PER_KEPT_WEIGHT) / 2, per_weight
    )
    plain = np.zeros(rank.shape) + 2 * d_model
    read_bytes = n_calls * plain * per_value
    for product in products:
        full, ends = product.d_in * product.d_out, product.d_in + product.d_out
        factors = rank * ends
        # As ``architecture.is_factorised``: factors that do not save weights are not built.
        factorised = has_rank & (factors < full)
        own = np.where(factorised, factors, full)
        weights += own
        held = np.where(is_padded, _in_whole_tiles(product, rank, factorised), own)
        stored += held
        macs += product.tokens * own
        values += product.tokens * (ends + 2 * rank * factorised)
        plain = plain + product.d_out
        kernels += (1 + factorised) * product.n_calls
        read_bytes += product.n_calls * (held * per_weight + product.d_out * per_value)
        any_factorised |= factorised
    return PartCounts(
        precision=blocks.precision,
        sparsity=blocks.sparsity,
        is_factorised=any_factorised & active,
        params=(weights + plain) * active,
        macs=(macs + extra_macs) * active,
        weight_bytes=(stored * per_weight + plain * per_value) * active,
        activation_bytes=(values + extra_values) * per_value * active,
        n_kernels=kernels * active,
        read_bytes=read_bytes * active,
    )


def _in_whole_tiles(product: _Product, rank: Floats, factorised: NDArray[np.bool_]) -> Floats:
    """Weights of a projection with the inputs of each product padded."""

    def padded(sizes: Floats) -> Floats:
        found: Floats = np.ceil(sizes / _INT4_CUDA_TILE) * _INT4_CUDA_TILE
        return found

    full = padded(product.d_in) * product.d_out
    found: Floats = np.where(
        factorised, padded(product.d_in) * rank + padded(rank) * product.d_out, full
    )
    return found
