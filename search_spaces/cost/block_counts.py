"""Closed-form counts of blocks and of the rest of a network; ``counting`` says what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import PRECISIONS, SPARSITIES, BlockStyle
from search_spaces.cost.counts import PER_VALUE, PER_WEIGHT, Floats, PartCounts
from search_spaces.space.batch import (
    ArchitectureBatch,
    AttentionBatch,
    BlockBatch,
    FfnBatch,
    Ints,
)
from search_spaces.workload import Workload

# torchao packs 4-bit weights for CUDA in whole tiles along the input.
_INT4_CUDA_TILE = 1024
_INT4 = PRECISIONS.index("int4wo")
# 2:4 keeps half of the weights and stores a 2-bit position for each one kept.
_INDEX_BYTES_PER_KEPT_WEIGHT = 0.25
_HALVED = SPARSITIES.index("2:4")


@dataclass(frozen=True)
class Product:
    """A projection: its shape, the tokens of a sample that it multiplies, and its calls a pass.

    ``has_bias`` and ``exists`` are 1 or 0; both may differ between architectures.
    """

    d_in: Floats
    d_out: Floats
    tokens: Floats | float
    n_calls: int = 1
    has_bias: Floats | float = 1.0
    exists: Floats | float = 1.0


@dataclass(frozen=True)
class StyleCounts:
    """What counts depend on in the styles of ``N`` architectures, each ``(N, 1)``.

    ``norm`` is the number of parameters of a norm by its width; the others are 1 or 0.
    """

    norm: Floats
    norms_heads: Floats
    is_rotary: Floats
    is_gated: Floats
    biases_qkv: Floats
    biases_o: Floats
    biases_ffn: Floats

    @classmethod
    def of(cls, batch: ArchitectureBatch) -> StyleCounts:
        """Read the styles of ``batch``."""

        def column(value: Callable[[BlockStyle], float]) -> Floats:
            return batch.of_style(value)[:, None]

        return cls(
            norm=column(lambda style: 2 if style.norm.kind == "layer" else 1),
            norms_heads=column(lambda style: style.norm.on_queries_and_keys),
            is_rotary=column(lambda style: style.is_rotary),
            is_gated=column(lambda style: style.is_gated),
            biases_qkv=column(lambda style: style.biases.qkv),
            biases_o=column(lambda style: style.biases.o),
            biases_ffn=column(lambda style: style.biases.ffn),
        )

    def placing(
        self, queries: Floats, keys: Floats, *, is_crossed: bool = False
    ) -> tuple[Floats, Floats]:
        """Values and kernels of norms and rotations of so many features of queries and keys.

        A norm reads and writes its features. A rotation is five kernels: negate half of them,
        join the halves, multiply both by their factors, add. A decoder's attention to the source
        has no rotations.
        """
        is_rotary = self.is_rotary * (not is_crossed)
        values = (2 * self.norms_heads + 10 * is_rotary) * (queries + keys)
        return values, 2 * self.norms_heads + 10 * is_rotary

    def attention_plain(self, blocks: AttentionBatch, d_model: Floats) -> Floats:
        """Parameters of an attention block's norms."""
        return self.norm * (d_model + 2 * self.norms_heads * blocks.d_head)


@dataclass(frozen=True)
class Rest:
    """What a block costs besides its projections; ``params`` are those of its norms."""

    macs: Floats | float
    values: Floats
    params: Floats
    kernels: Floats | float = 0.0


def attention_counts(
    blocks: AttentionBatch,
    d_model: Floats,
    tokens: Floats,
    context: Floats,
    active: NDArray[np.bool_],
    workload: Workload,
    style: StyleCounts,
    pads_int4: bool,
) -> PartCounts:
    """Count self-attention blocks: ``tokens`` attend to ``context``, both ``(N, 1)``."""
    d_q = (blocks.n_heads * blocks.d_head).astype(float)
    d_kv = (blocks.n_kv_heads * blocks.d_head).astype(float)
    # Keys and values that are read, and those that are written to the cache.
    read, written = context, 0.0 if workload.phase is None else tokens
    placed, placing_kernels = style.placing(tokens * d_q, tokens * d_kv)
    # Scores and weighted values; a fused kernel never writes the score matrix.
    return block_counts(
        blocks,
        [
            Product(d_model, d_q, tokens, has_bias=style.biases_qkv),
            Product(d_model, d_kv, tokens, has_bias=style.biases_qkv),
            Product(d_model, d_kv, tokens, has_bias=style.biases_qkv),
            Product(d_q, d_model, tokens, has_bias=style.biases_o),
        ],
        active,
        rest=Rest(
            macs=2 * tokens * context * d_q,
            values=tokens * (2 * d_q + 4 * d_model) + (read + written) * 2 * d_kv + placed,
            params=style.attention_plain(blocks, d_model),
            kernels=placing_kernels + (0 if workload.phase is None else 2),
        ),
        pads_int4=pads_int4,
    )


def ffn_counts(
    blocks: FfnBatch,
    d_model: Floats,
    tokens: Floats | float,
    active: NDArray[np.bool_],
    style: StyleCounts,
    *,
    n_calls: int = 1,
    pads_int4: bool = False,
) -> PartCounts:
    """Count feed-forward blocks on ``tokens``, which are multiplied in ``n_calls``."""
    d_ff, bias, gated = blocks.d_ff.astype(float), style.biases_ffn, style.is_gated
    return block_counts(
        blocks,
        [
            Product(d_model, d_ff, tokens, n_calls, bias),
            Product(d_model, d_ff, tokens, n_calls, bias, exists=gated),
            Product(d_ff, d_model, tokens, n_calls, bias),
        ],
        active,
        rest=Rest(
            macs=0.0,
            # A gate's product reads two tensors and writes one.
            values=tokens * ((2 + 3 * gated) * d_ff + 4 * d_model),
            params=style.norm * d_model,
            kernels=gated,
        ),
        n_calls=n_calls,
        pads_int4=pads_int4,
    )


def block_counts(
    blocks: BlockBatch,
    products: list[Product],
    active: NDArray[np.bool_],
    *,
    rest: Rest,
    n_calls: int = 1,
    pads_int4: bool = False,
) -> PartCounts:
    """Count a block: its projections, its norm, three more kernels, and the ``rest``.

    Everything but the projections runs in ``n_calls``.
    """
    rank = blocks.rank.astype(float)
    weights, stored, values, macs = (np.zeros(rank.shape) for _ in range(4))
    is_padded = (blocks.precision == _INT4) & pads_int4
    kernels = np.zeros(rank.shape) + (3.0 + rest.kernels) * n_calls
    any_factorised = np.zeros(rank.shape, dtype=bool)
    has_rank = rank > 0
    per_weight, per_value = PER_WEIGHT[blocks.precision], PER_VALUE[blocks.precision]
    per_weight = np.where(
        blocks.sparsity == _HALVED, (per_weight + _INDEX_BYTES_PER_KEPT_WEIGHT) / 2, per_weight
    )
    plain = np.zeros(rank.shape) + rest.params
    read_bytes = n_calls * plain * per_value
    for product in products:
        full, ends = product.d_in * product.d_out, product.d_in + product.d_out
        factors = rank * ends
        # The rule of ``architecture.is_factorised``, on arrays.
        factorised = has_rank & (factors < full)
        exists, biased = product.exists, product.d_out * product.has_bias * product.exists
        own = np.where(factorised, factors, full) * exists
        weights += own
        held = np.where(is_padded, _in_whole_tiles(product, rank, factorised) * exists, own)
        stored += held
        macs += product.tokens * own
        values += product.tokens * (ends + 2 * rank * factorised) * exists
        plain = plain + biased
        kernels += (1 + factorised) * product.n_calls * exists
        read_bytes += product.n_calls * (held * per_weight + biased * per_value)
        any_factorised |= factorised
    return PartCounts(
        precision=blocks.precision,
        sparsity=blocks.sparsity,
        is_factorised=any_factorised & active,
        params=(weights + plain) * active,
        macs=(macs + rest.macs) * active,
        weight_bytes=(stored * per_weight + plain * per_value) * active,
        activation_bytes=(values + rest.values) * per_value * active,
        n_kernels=kernels * active,
        read_bytes=read_bytes * active,
    )


def outer_counts(
    stream: Ints,
    params: Floats,
    macs: Floats,
    values: Floats,
    n_kernels: Floats,
    read_params: Floats | None = None,
) -> PartCounts:
    """Count what lies outside the blocks, in the precision of the residual stream.

    ``read_params`` are the weights that a batch reads, by default each once.
    """
    return PartCounts(
        precision=stream,
        sparsity=np.zeros_like(stream),
        is_factorised=np.zeros(len(stream), dtype=bool),
        params=params,
        macs=macs,
        weight_bytes=params * PER_WEIGHT[stream],
        activation_bytes=values * PER_VALUE[stream],
        n_kernels=n_kernels,
        read_bytes=(params if read_params is None else read_params) * PER_WEIGHT[stream],
    )


def _in_whole_tiles(product: Product, rank: Floats, factorised: NDArray[np.bool_]) -> Floats:
    """Weights of a projection whose inputs are padded to whole tiles."""

    def padded(sizes: Floats) -> Floats:
        whole: Floats = np.ceil(sizes / _INT4_CUDA_TILE) * _INT4_CUDA_TILE
        return whole

    full = padded(product.d_in) * product.d_out
    stored: Floats = np.where(
        factorised, padded(product.d_in) * rank + padded(rank) * product.d_out, full
    )
    return stored
