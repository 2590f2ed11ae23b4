"""Parameters, multiply-accumulates and bytes in closed form, without torch.

The counts are those of the network that ``models.build`` builds:

The architecture's style says which norms, biases and projections there are; the default's are:

* images: shrunk first where the architecture has a resolution (a kernel that reads and writes
  pixels, without products); ``Linear(channels * patch**2 -> d_model)`` on patches; tokens:
  an embedding table; then a learned position table ``(n_tokens, d_model)``;
* each layer: LayerNorm, attention (q, k, v, o), LayerNorm, feed-forward (up, down); every
  projection has a bias; a factorised one is ``d_in -> rank`` without bias, then
  ``rank -> d_out`` with it;
* a final LayerNorm and a linear head: on the mean over tokens for classification; on every token
  for language modelling and question answering; on every token, for
  all pixels of its patch, for segmentation (outputs are then enlarged to the image's size where
  it was shrunk: a kernel without products). A style's prefix tokens are more tokens; its pooler
  is a linear map of one token; its head transform one of each token with an output over the
  vocabulary; embeddings have no head;
* an encoder-decoder: the encoder as above but for the head; a decoder with an embedding table of
  targets, a position table, layers of LayerNorm, attention, LayerNorm, attention to the encoder
  (whose keys and values are made of the encoder's width), LayerNorm, feed-forward; then a final
  LayerNorm and a linear head on every token (not tied).

``macs`` are those of matrix products per *sample*, the two inside attention included; causal
masks are not credited. One MAC is two FLOPs. Softmax, norms, GELU and additions are left out.
2:4 sparsity halves stored weights (and adds a 2-bit index for each non-zero one) but not
``macs``: only measurement shows what a kernel skips. Unstructured zeros are stored and multiplied
like other weights. On CUDA 4-bit weights are stored, and counted, with their inputs padded to
1024. Bytes assume that each kernel moves each tensor once; hardware caches are left out.

In a phase of decoding (``Workload.phase``) the head is counted for the last token only. *Prefill*
also writes every block's keys and values to its cache. A *generation step* runs one token through
every projection; attention reads the whole cache, as long as the context, and writes one token's
keys and values to it. The cache has the block's precision (``kv_cache_bytes``).

A translation is the encoder's pass, keys and values of its output for each of the decoder's
layers, then ``target_length`` steps of ``beam_size`` tokens each. Every step reads the decoder's
weights again, the whole cache of its own tokens (shapes are static, unwritten places masked) and
that of the encoder's.

Formulas are on arrays (``count_batch``); ``count`` is a batch of one.
"""

from __future__ import annotations

import numpy as np

from search_spaces.architecture import BF16_STREAM, PRECISIONS, TRANSFORMER, Architecture
from search_spaces.cost.block_counts import (
    Product,
    Rest,
    StyleCounts,
    attention_counts,
    block_counts,
    ffn_counts,
    outer_counts,
)
from search_spaces.cost.counts import (
    PER_VALUE,
    BatchCounts,
    BlockCounts,
    Counts,
    DecoderCounts,
    Floats,
    PartCounts,
)
from search_spaces.cost.families import get_family
from search_spaces.space.batch import ArchitectureBatch, AttentionBatch, DecoderBatch, Ints
from search_spaces.workload import AS_IT_IS, Workload

# Of ``models.style.rotation``, once a pass.
_ANGLE_KERNELS = 12
_STREAMS = (PRECISIONS.index("fp32"), PRECISIONS.index("bf16"))


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
    context, tokens = batch.n_tokens(workload), batch.n_new_tokens(workload)
    d_model, active = batch.d_model[:, None].astype(float), batch.active
    style = StyleCounts.of(batch)
    attention = attention_counts(
        batch.attention,
        d_model,
        tokens[:, None],
        context[:, None],
        active,
        workload,
        style,
        pads_int4=device.startswith("cuda"),
    )
    ffn = ffn_counts(
        batch.ffn, d_model, tokens[:, None], active, style, pads_int4=device.startswith("cuda")
    )
    outer = _outer(batch, tokens, context, workload)
    decoder = None if batch.decoder is None else _decoder(batch, batch.decoder, context, workload)
    return BatchCounts(attention, ffn, outer, decoder)


def _of_family(batch: ArchitectureBatch, workload: Workload) -> BatchCounts:
    """Counts of another family's networks, all outside the blocks: their blocks are not ours."""
    counts = get_family(batch.family).count(batch, workload)
    none = np.zeros(batch.attention.rank.shape)
    codes = np.zeros_like(batch.attention.rank)
    blocks = PartCounts(codes, codes, codes.astype(bool), none, none, none, none, none, none)
    stream = np.full(len(batch), _STREAMS[0])
    outer = outer_counts(stream, counts.params, counts.macs, counts.moved_values, counts.n_kernels)
    return BatchCounts(blocks, blocks, outer)


def kv_cache_bytes(batch: ArchitectureBatch, workload: Workload) -> Floats:
    """Keys and values of all layers of one sample at the workload's full context, ``(N,)``.

    Zero where the workload has no cache.
    """
    if batch.decoder is not None:
        return _decoder_cache_bytes(batch.decoder, workload)
    if workload.phase is None:
        return np.zeros(len(batch))
    context = batch.n_tokens(workload)
    blocks = batch.attention
    values = 2 * (blocks.n_kv_heads * blocks.d_head).astype(float) * batch.active
    cache: Floats = context * (values * PER_VALUE[blocks.precision]).sum(axis=1)
    return cache


def _decoder_cache_bytes(decoder: DecoderBatch, workload: Workload) -> Floats:
    """Cache of one sample: every beam has its own copy."""
    cache = np.zeros(len(decoder.d_model))
    lengths = (workload.n_steps, workload.input_shape[0])
    for blocks, tokens in zip((decoder.attention, decoder.cross_attention), lengths, strict=True):
        values = 2 * (blocks.n_kv_heads * blocks.d_head).astype(float) * decoder.active
        cache += tokens * (values * PER_VALUE[blocks.precision]).sum(axis=1)
    return cache * workload.beam_size


def _outer(
    batch: ArchitectureBatch, tokens: Floats, context: Floats, workload: Workload
) -> PartCounts:
    d_model = batch.d_model.astype(float)
    n_prefix = batch.of_style(lambda style: style.n_prefix_tokens)
    if workload.is_image:
        tall = workload.patch_heights(batch.patch_size)
        d_patch = workload.input_shape[0] * (batch.patch_size * tall).astype(float)
        embed_params = (d_patch + 1) * d_model
        embed_macs = (tokens - n_prefix) * d_patch * d_model
    else:
        # A look-up in a table has no product.
        embed_params, embed_macs = (workload.vocab_size or 0) * d_model, np.zeros_like(d_model)
    # A phase predicts the token after the last one only.
    has_one_output = workload.is_pooled or workload.phase is not None
    head_tokens = np.ones_like(tokens) if has_one_output else tokens - n_prefix
    n_outputs: Floats | float = float(workload.n_outputs)
    if workload.is_dense:
        n_outputs = n_outputs * batch.patch_size.astype(float) ** 2
    if workload.is_sequence_to_sequence or workload.is_embedding:
        # The head is the decoder's, or there is none.
        n_outputs = 0.0
    n_joined = batch.of_style(lambda style: style.n_pooled if workload.is_pooled else 1)
    params = embed_params + _head_params(batch, n_joined * d_model, n_outputs, workload)
    params += _stream_params(batch, d_model, context)
    # Norms, prefix tokens and token types of the stream, of which default blocks have one norm.
    kinds = batch.of_style(
        lambda style: (
            style.is_pre_norm
            + style.norm.after_embeddings
            + (style.n_prefix_tokens > 0)
            + (style.n_token_types > 0)
        )
    )
    stream = stream_precisions(batch)
    values = (1 + 2 * kinds) * tokens * d_model + head_tokens * n_outputs
    has_head = not (workload.is_sequence_to_sequence or workload.is_embedding)
    kernels = kinds + (3.0 if has_head else 2.0) + _position_kernels(batch)
    macs = embed_macs + head_tokens * n_joined * d_model * n_outputs
    has_transform = batch.of_style(workload.has_head_transform)
    params += has_transform * (d_model + 1 + StyleCounts.of(batch).norm[:, 0]) * d_model
    macs += has_transform * head_tokens * d_model**2
    values += has_transform * head_tokens * 6 * d_model
    kernels += has_transform * 3
    if workload.is_embedding:
        # Their lengths, then a division.
        has_units = batch.of_style(lambda style: style.has_unit_vectors)
        values += has_units * 3 * n_joined * d_model
        kernels += has_units * 3
    if workload.is_pooled:
        is_joined = n_joined > 1
        values += is_joined * 2 * n_joined * d_model
        kernels += is_joined
        has_pooler = batch.of_style(lambda style: style.has_pooler)
        params += has_pooler * (d_model + 1) * d_model
        macs += has_pooler * d_model**2
        values += has_pooler * 4 * d_model
        kernels += has_pooler * 2
    if workload.is_image:
        is_shrunk = batch.resolution != AS_IT_IS
        heights, widths = workload.image_sizes(batch.resolution)
        channels, height, width = workload.input_shape
        values += channels * (height * width + heights * widths) * is_shrunk
        kernels += is_shrunk
        if workload.is_dense:
            values += workload.n_classes * (height * width + heights * widths) * is_shrunk
            kernels += is_shrunk
    return outer_counts(stream, params, macs, values, kernels)


def _head_params(
    batch: ArchitectureBatch, d_model: Floats, n_outputs: Floats | float, workload: Workload
) -> Floats:
    """Parameters of an output layer; one that is tied to an embedding has only a bias."""
    is_own = batch.of_style(lambda style: not workload.has_tied_head(style))
    has_bias = batch.of_style(lambda style: style.biases.head)
    params: Floats = (is_own * d_model + has_bias) * n_outputs
    return params


def _stream_params(batch: ArchitectureBatch, d_model: Floats, n_positions: Floats) -> Floats:
    """Parameters of a stack's stream: position table, norms, prefix tokens, token types."""
    norm = StyleCounts.of(batch).norm[:, 0]
    n_norms = batch.of_style(lambda style: style.is_pre_norm + style.norm.after_embeddings)
    tables = batch.of_style(lambda style: style.n_prefix_tokens + style.n_token_types)
    is_learned = batch.of_style(lambda style: style.positions.kind == "learned")
    params: Floats = d_model * (is_learned * n_positions + norm * n_norms + tables)
    return params


def _position_kernels(batch: ArchitectureBatch) -> Floats:
    """Kernels of a stack's positions: an addition, or those of angles of one size of heads."""
    kernels = {"learned": 1, "rotary": _ANGLE_KERNELS, "none": 0}
    return batch.of_style(lambda style: kernels[style.positions.kind])


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


def _decoder(
    batch: ArchitectureBatch, decoder: DecoderBatch, context: Floats, workload: Workload
) -> DecoderCounts:
    """Count the decoders of ``batch``, which read the ``(N,)`` tokens of their encoders."""
    d_memory, memory = batch.d_model[:, None].astype(float), context[:, None]
    style, stream = StyleCounts.of(batch), stream_precisions(batch)
    d_model, active = decoder.d_model[:, None].astype(float), decoder.active
    steps = workload.n_steps
    tokens = float(steps * workload.beam_size)

    def attention(blocks: AttentionBatch, read: Floats | float, *, of_memory: bool) -> PartCounts:
        d_q = (blocks.n_heads * blocks.d_head).astype(float)
        d_kv = (blocks.n_kv_heads * blocks.d_head).astype(float)
        key = (
            Product(d_memory, d_kv, memory, has_bias=style.biases_qkv)
            if of_memory
            else Product(d_model, d_kv, tokens, steps, style.biases_qkv)
        )
        written = workload.beam_size * memory if of_memory else tokens
        placed, placing_kernels = style.placing(
            tokens * d_q, (memory if of_memory else tokens) * d_kv, is_crossed=of_memory
        )
        return block_counts(
            blocks,
            [
                Product(d_model, d_q, tokens, steps, style.biases_qkv),
                key,
                key,
                Product(d_q, d_model, tokens, steps, style.biases_o),
            ],
            active,
            rest=Rest(
                macs=2 * tokens * read * d_q,
                values=tokens * (2 * d_q + 4 * d_model)
                + (tokens * read + written) * 2 * d_kv
                + placed,
                params=style.attention_plain(blocks, d_model),
                kernels=placing_kernels + (0 if of_memory else 2),
            ),
            n_calls=steps,
        )

    ffn = ffn_counts(decoder.ffn, d_model, tokens, active, style, n_calls=steps)
    width, n_outputs = decoder.d_model.astype(float), float(workload.n_classes)
    # A step reads one row of the table for each token, which counts as values.
    table = n_outputs * width
    rest = _stream_params(batch, width, np.full_like(width, steps))
    rest += _head_params(batch, width, n_outputs, workload)
    is_tied = batch.of_style(workload.has_tied_head)
    outer = outer_counts(
        stream,
        params=table + rest,
        macs=tokens * width * n_outputs,
        values=tokens * (3 * width + n_outputs),
        n_kernels=steps * (4.0 + _position_kernels(batch)),
        # A tied head reads the whole table at each step.
        read_params=table * (1 + is_tied * (steps - 1)) + steps * rest,
    )
    return DecoderCounts(
        attention(decoder.attention, float(steps), of_memory=False),
        attention(decoder.cross_attention, memory, of_memory=True),
        ffn,
        outer,
    )
