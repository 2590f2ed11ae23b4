"""Attention, feed-forward and the layer that joins them.

Shape legend: B batch, T tokens, D d_model, Q query heads, K key-value heads, E d_head, S tokens
that a cache has room for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.architecture import AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.attend import attend
from search_spaces.models.projection import make_projection
from search_spaces.models.style import feed_forward, make_norm, residual


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
        self, d_model: int, spec: AttentionSpec, *, is_causal: bool, d_memory: int | None = None
    ) -> None:
        """Build the projections; ``d_memory`` is the width of the input of keys and values."""
        super().__init__()
        self.n_heads, self.n_kv_heads, self.d_head = spec.n_heads, spec.n_kv_heads, spec.d_head
        self.is_causal = is_causal
        shapes = spec.projections(d_model, d_memory)
        self.q = make_projection(*shapes["q"], spec.rank)
        self.k = make_projection(*shapes["k"], spec.rank)
        self.v = make_projection(*shapes["v"], spec.rank)
        self.o = make_projection(*shapes["o"], spec.rank)

    def forward(
        self,
        x_BTD: Tensor,
        keep_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        start: int = 0,
    ) -> Tensor:
        """``(B, T, d_model)`` to the same shape; ``keep_BT`` masks tokens.

        With a ``cache``, ``x_BTD`` has the tokens from position ``start`` on: all from 0, or one.
        """
        k_BKTE, v_BKTE = self.keys_and_values(x_BTD)
        if cache is not None:
            k_BKTE, v_BKTE = cache.extended(k_BKTE, v_BKTE, start)
        # A single token has no later tokens to mask.
        is_causal = self.is_causal and start == 0
        return self.read(x_BTD, k_BKTE, v_BKTE, keep_BT, is_causal=is_causal)

    def keys_and_values(self, memory_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of ``memory_BTD``, each ``(B, K, T, E)``."""
        k_BKTE = self._split(self.k(memory_BTD), self.n_kv_heads)
        return k_BKTE, self._split(self.v(memory_BTD), self.n_kv_heads)

    def read(
        self,
        x_BTD: Tensor,
        k_BKSE: Tensor,
        v_BKSE: Tensor,
        keep_BS: Tensor | None = None,
        *,
        is_causal: bool = False,
    ) -> Tensor:
        """Attend from ``x_BTD`` to keys and values, masked by ``keep_BS``."""
        q_BQTE = self._split(self.q(x_BTD), self.n_heads)
        out_BQTE = attend(q_BQTE, k_BKSE, v_BKSE, keep_BT=keep_BS, is_causal=is_causal)
        out_BTD: Tensor = self.o(out_BQTE.transpose(1, 2).flatten(2))
        return out_BTD

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(*x.shape[:2], heads, self.d_head).transpose(1, 2)


class FeedForward(nn.Module):
    """The feed-forward block of ``style``."""

    def __init__(self, d_model: int, spec: FfnSpec) -> None:
        """Build both projections."""
        super().__init__()
        shapes = spec.projections(d_model)
        self.up = make_projection(*shapes["up"], spec.rank)
        self.down = make_projection(*shapes["down"], spec.rank)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """``(B, T, d_model)`` to the same shape."""
        return feed_forward(x_BTD, self.up, self.down)


class Layer(nn.Module):
    """A layer: attention, then feed-forward; ``style`` says where norms stand."""

    def __init__(self, d_model: int, spec: LayerSpec, *, is_causal: bool) -> None:
        """Build both blocks and their norms."""
        super().__init__()
        self.attention_norm = make_norm(d_model)
        self.attention = Attention(d_model, spec.attention, is_causal=is_causal)
        self.ffn_norm = make_norm(d_model)
        self.ffn = FeedForward(d_model, spec.ffn)

    def forward(
        self,
        x_BTD: Tensor,
        keep_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        start: int = 0,
    ) -> Tensor:
        """``(B, T, d_model)`` to the same shape; see ``Attention.forward``."""
        x_BTD = residual(x_BTD, self.attention_norm, self.attention, keep_BT, cache, start)
        return residual(x_BTD, self.ffn_norm, self.ffn)


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
