"""Attention, feed-forward and the layer that joins them.

Shape legend: B batch, T tokens, D d_model, Q query heads, K key-value heads, E d_head, S tokens
that a cache has room for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.architecture import (
    DEFAULT_STYLE,
    AttentionSpec,
    BlockStyle,
    FfnSpec,
    LayerSpec,
)
from search_spaces.models.attend import attend
from search_spaces.models.projection import make_projection
from search_spaces.models.style import feed_forward, make_norm, residual, rotate


class KeyValueCache(nn.Module):
    """Keys and values of a decoder's earlier tokens in one layer, at a fixed address.

    The first write allocates it, in the type that the layer computes with.
    """

    def __init__(self, capacity: int) -> None:
        """Make a cache for ``capacity`` tokens a sample."""
        super().__init__()
        self.capacity = capacity
        self.k_BKSE: Tensor | None
        self.v_BKSE: Tensor | None
        self.register_buffer("k_BKSE", None)
        self.register_buffer("v_BKSE", None)

    def extended(self, k_BKTE: Tensor, v_BKTE: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Write keys and values at ``start``, and return those of all tokens up to their end."""
        end = start + k_BKTE.shape[2]
        if self.k_BKSE is None or self.v_BKSE is None:
            batch, heads, _, width = k_BKTE.shape
            self.k_BKSE = k_BKTE.new_zeros(batch, heads, self.capacity, width)
            self.v_BKSE = v_BKTE.new_zeros(batch, heads, self.capacity, width)
        self.k_BKSE[:, :, start:end] = k_BKTE
        self.v_BKSE[:, :, start:end] = v_BKTE
        if start == 0:
            # The same numbers, without reading them back.
            return k_BKTE, v_BKTE
        return self.k_BKSE[:, :, :end], self.v_BKSE[:, :, :end]


class Attention(nn.Module):
    """Grouped-query attention over ``n_heads`` heads; see ``attend``."""

    def __init__(
        self,
        d_model: int,
        spec: AttentionSpec,
        style: BlockStyle = DEFAULT_STYLE,
        *,
        is_causal: bool,
        d_memory: int | None = None,
    ) -> None:
        """Build the projections; ``d_memory`` is the width of the input of keys and values."""
        super().__init__()
        self.n_heads, self.n_kv_heads, self.d_head = spec.n_heads, spec.n_kv_heads, spec.d_head
        self.is_causal = is_causal
        shapes, biases = spec.projections(d_model, d_memory), style.biases
        self.q = make_projection(*shapes["q"], spec.rank, has_bias=biases.qkv)
        self.k = make_projection(*shapes["k"], spec.rank, has_bias=biases.qkv)
        self.v = make_projection(*shapes["v"], spec.rank, has_bias=biases.qkv)
        self.o = make_projection(*shapes["o"], spec.rank, has_bias=biases.o)
        self.q_norm: nn.Module | None = None
        self.k_norm: nn.Module | None = None
        if style.norm.on_queries_and_keys:
            self.q_norm = make_norm(style, self.d_head)
            self.k_norm = make_norm(style, self.d_head)

    def forward(
        self,
        x_BTD: Tensor,
        keep_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        start: int = 0,
        rotation_2TE: Tensor | None = None,
    ) -> Tensor:
        """``(B, T, d_model)`` to the same shape; ``keep_BT`` masks tokens.

        With a ``cache``, ``x_BTD`` has the tokens from position ``start`` on: all from 0, or one.
        ``rotation_2TE`` is that of the tokens of ``x_BTD``; keys are cached rotated.
        """
        k_BKTE, v_BKTE = self.keys_and_values(x_BTD, rotation_2TE)
        if cache is not None:
            k_BKTE, v_BKTE = cache.extended(k_BKTE, v_BKTE, start)
        # A single token has no later tokens to mask.
        is_causal = self.is_causal and start == 0
        return self.read(x_BTD, k_BKTE, v_BKTE, keep_BT, rotation_2TE, is_causal=is_causal)

    def keys_and_values(
        self, memory_BTD: Tensor, rotation_2TE: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of ``memory_BTD``, each ``(B, K, T, E)``; keys are rotated."""
        k_BKTE = _placed(
            self._split(self.k(memory_BTD), self.n_kv_heads), self.k_norm, rotation_2TE
        )
        return k_BKTE, self._split(self.v(memory_BTD), self.n_kv_heads)

    def read(
        self,
        x_BTD: Tensor,
        k_BKSE: Tensor,
        v_BKSE: Tensor,
        keep_BS: Tensor | None = None,
        rotation_2TE: Tensor | None = None,
        *,
        is_causal: bool = False,
    ) -> Tensor:
        """Attend from ``x_BTD`` to keys and values, masked by ``keep_BS``."""
        # In one expression, so that what is rotated is not held any longer.
        q_BQTE = _placed(self._split(self.q(x_BTD), self.n_heads), self.q_norm, rotation_2TE)
        out_BQTE = attend(q_BQTE, k_BKSE, v_BKSE, keep_BT=keep_BS, is_causal=is_causal)
        out_BTD: Tensor = self.o(out_BQTE.transpose(1, 2).flatten(2))
        return out_BTD

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(*x.shape[:2], heads, self.d_head).transpose(1, 2)


def _placed(x_BHTE: Tensor, norm: nn.Module | None, rotation_2TE: Tensor | None) -> Tensor:
    """Queries or keys after their norm and rotation, where there are any."""
    if norm is not None:
        x_BHTE = norm(x_BHTE)
    return x_BHTE if rotation_2TE is None else rotate(x_BHTE, rotation_2TE)


class FeedForward(nn.Module):
    """The feed-forward block of ``style``; ``gate`` is ``None`` where it is not gated."""

    gate: nn.Module | None
    up: nn.Module
    down: nn.Module

    def __init__(self, d_model: int, spec: FfnSpec, style: BlockStyle = DEFAULT_STYLE) -> None:
        """Build the projections."""
        super().__init__()
        self.style = style
        self.gate = None
        for name, shape in spec.projections(d_model, is_gated=style.is_gated).items():
            setattr(self, name, make_projection(*shape, spec.rank, has_bias=style.biases.ffn))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """``(B, T, d_model)`` to the same shape."""
        return feed_forward(self.style, x_BTD, self.up, self.down, self.gate)


class Layer(nn.Module):
    """A layer: attention, then feed-forward; ``style`` says where norms stand."""

    def __init__(
        self, d_model: int, spec: LayerSpec, style: BlockStyle = DEFAULT_STYLE, *, is_causal: bool
    ) -> None:
        """Build both blocks and their norms."""
        super().__init__()
        self.style, self.d_head = style, spec.attention.d_head
        self.attention_norm = make_norm(style, d_model)
        self.attention = Attention(d_model, spec.attention, style, is_causal=is_causal)
        self.ffn_norm = make_norm(style, d_model)
        self.ffn = FeedForward(d_model, spec.ffn, style)

    def forward(
        self,
        x_BTD: Tensor,
        keep_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        start: int = 0,
        rotation_2TE: Tensor | None = None,
    ) -> Tensor:
        """``(B, T, d_model)`` to the same shape; see ``Attention.forward``."""
        rest = (keep_BT, cache, start, rotation_2TE)
        x_BTD = residual(self.style, x_BTD, self.attention_norm, self.attention, *rest)
        return residual(self.style, x_BTD, self.ffn_norm, self.ffn)


class CastBlock(nn.Module):
    """Run ``block`` in its own precision inside a stream of another."""

    def __init__(self, block: nn.Module, inner: torch.dtype, outer: torch.dtype) -> None:
        """``inner`` is the dtype of the block, ``outer`` that of the stream."""
        super().__init__()
        self.block, self.inner, self.outer = block, inner, outer

    def forward(self, x: Tensor, *rest: object) -> Tensor:
        """The block's output in the stream's dtype; other arguments are passed on."""
        out: Tensor = self.block(x.to(self.inner), *rest).to(self.outer)
        return out
