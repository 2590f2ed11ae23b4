"""Layers whose size is chosen at each call: the largest parameters, read through views.

A smaller layer is the first rows and columns of the larger one's weights, sliced without copies
(AutoFormer, Chen et al. 2021). The layouts make this work for every size:

* *Heads are interleaved*: of ``Q`` heads, head ``i`` owns the features ``i, i + Q, i + 2 Q, ...``
  and not a block of neighbours. The first ``d`` features then hold the first ``d / Q`` features of
  *each* head, so that a narrower network keeps all heads and thins them, and ``Q`` that divide
  each other nest.
* *Key-value heads are every so many-th head*: where ``G`` query heads share one, it is the first
  of them, whose features are the rows ``0, G, 2 G, ...``: a strided view.
* *Factors are shared by ranks*: rank ``r`` takes the first ``r``, which training orders by use.
* *Norms have parameters of their own for each width* (switchable, Yu et al. 2019), and those of
  queries and keys for each size of head. They keep no running statistics, so nothing is to be
  calibrated when the width changes.

Shape legend: B batch, T tokens, D d_model, Q query heads, K key-value heads, E d_head, O d_out,
I d_in, R rank, F d_ff.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces.architecture import (
    AttentionSpec,
    BlockStyle,
    FfnSpec,
    LayerSpec,
    is_factorised,
)
from search_spaces.models.attend import attend
from search_spaces.models.projection import Weights
from search_spaces.models.style import activate, feed_forward, norm_by, residual, rotate


class ElasticProjection(nn.Module):
    """A linear map of any size up to the largest, full or as two factors of any rank up to one."""

    def __init__(self, d_in: int, d_out: int, rank: int | None, *, has_bias: bool = True) -> None:
        """``rank`` is the largest rank of the factors, ``None`` without factors."""
        super().__init__()
        full = nn.Linear(d_in, d_out, bias=has_bias)
        self.weight_OI, self.bias_O = full.weight, full.bias
        self.is_factored = rank is not None
        if rank is not None:
            reduce = nn.Linear(d_in, rank, bias=False)
            expand = nn.Linear(rank, d_out, bias=has_bias)
            self.reduce_RI, self.expand_OR = reduce.weight, expand.weight
            self.factored_bias_O = expand.bias

    def views(self, d_in: int, d_out: int, rank: int | None, *, step: int = 1) -> Weights:
        """The parameters at one size; outputs are every ``step``-th, ``d_out`` of them."""
        rows = slice(0, d_out * step, step)
        if rank is None or not is_factorised(d_in, d_out, rank):
            bias = None if self.bias_O is None else self.bias_O[rows]
            return Weights((self.weight_OI[rows, :d_in],), bias)
        assert self.is_factored
        weights = (self.expand_OR[rows, :rank], self.reduce_RI[:rank, :d_in])
        bias = self.factored_bias_O
        return Weights(weights, None if bias is None else bias[rows])


class ElasticNorm(nn.Module):
    """A norm with parameters of its own for each width; RMSNorm has no bias."""

    def __init__(self, style: BlockStyle, widths: Iterable[int]) -> None:
        """Start as the identity after normalising, at each of ``widths``."""
        super().__init__()
        self.style = style
        self.gain_D = nn.ParameterDict({str(d): torch.ones(d) for d in widths})
        biased = widths if style.norm.kind == "layer" else ()
        self.bias_D = nn.ParameterDict({str(d): torch.zeros(d) for d in biased})

    def views(self, width: int) -> tuple[Tensor, Tensor | None]:
        """Gain and bias at ``width``."""
        key = str(width)
        return self.gain_D[key], self.bias_D.get(key, None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        return norm_by(x, self.style, *self.views(x.shape[-1]))


class ElasticHeadTransform(nn.Module):
    """A transform before the output layer, of any width; see ``style.HeadTransform``."""

    def __init__(self, style: BlockStyle, widths: Sequence[int]) -> None:
        """Build the largest map, and a norm for each width."""
        super().__init__()
        self.style = style
        self.dense = ElasticProjection(max(widths), max(widths), None)
        self.norm = ElasticNorm(style, widths)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to the same shape."""
        width = x.shape[-1]
        mapped = self.dense.views(width, width, None)(x)
        out: Tensor = self.norm(activate(mapped, self.style.activation))
        return out


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that elastic layers of one style take: ``d_ff`` and ``ranks`` are the largest.

    ``ranks`` are attention's and the feed-forward block's; ``head_sizes`` are those whose queries
    and keys have norms.
    """

    style: BlockStyle
    widths: Sequence[int]
    d_ff: int
    ranks: tuple[int | None, int | None]
    head_sizes: Sequence[int] = ()


class ElasticAttention(nn.Module):
    """Grouped-query attention of any width, heads, key-value heads and rank."""

    def __init__(self, sizes: Sizes, *, is_causal: bool) -> None:
        """Build the largest."""
        super().__init__()
        self.is_causal, style = is_causal, sizes.style
        d_model, rank = max(sizes.widths), sizes.ranks[0]
        for name in ("q", "k", "v", "o"):
            has_bias = style.biases.o if name == "o" else style.biases.qkv
            setattr(self, name, ElasticProjection(d_model, d_model, rank, has_bias=has_bias))
        self.q_norm: ElasticNorm | None = None
        self.k_norm: ElasticNorm | None = None
        if style.norm.on_queries_and_keys:
            self.q_norm = ElasticNorm(style, sizes.head_sizes)
            self.k_norm = ElasticNorm(style, sizes.head_sizes)

    def views(self, d_model: int, spec: AttentionSpec) -> dict[str, Weights]:
        """Parameters of each projection, heads interleaved."""
        group = spec.n_heads // spec.n_kv_heads
        steps = {"q": 1, "k": group, "v": group, "o": 1}
        return {
            name: getattr(self, name).views(*shape, spec.rank, step=steps[name])
            for name, shape in spec.projections(d_model).items()
        }

    def forward(
        self,
        x_BTD: Tensor,
        spec: AttentionSpec,
        keep_BT: Tensor | None,
        rotation_2TE: Tensor | None = None,
    ) -> Tensor:
        """``(B, T, d_model)`` to the same shape, as ``blocks.Attention`` of ``spec`` would."""
        views = self.views(x_BTD.shape[-1], spec)
        q_BQTE = _split(views["q"](x_BTD), spec.n_heads)
        k_BKTE = _split(views["k"](x_BTD), spec.n_kv_heads)
        if self.q_norm is not None and self.k_norm is not None:
            q_BQTE, k_BKTE = self.q_norm(q_BQTE), self.k_norm(k_BKTE)
        if rotation_2TE is not None:
            q_BQTE, k_BKTE = rotate(q_BQTE, rotation_2TE), rotate(k_BKTE, rotation_2TE)
        v_BKTE = _split(views["v"](x_BTD), spec.n_kv_heads)
        out_BQTE = attend(q_BQTE, k_BKTE, v_BKTE, keep_BT=keep_BT, is_causal=self.is_causal)
        return views["o"](out_BQTE.permute(0, 2, 3, 1).flatten(2))


def _split(x_BTD: Tensor, heads: int) -> Tensor:
    return x_BTD.view(*x_BTD.shape[:2], -1, heads).permute(0, 3, 1, 2)


class ElasticFeedForward(nn.Module):
    """A feed-forward block of any width and rank."""

    def __init__(self, sizes: Sizes) -> None:
        """Build the largest."""
        super().__init__()
        self.style = sizes.style
        largest = FfnSpec(sizes.d_ff).projections(max(sizes.widths), is_gated=self.style.is_gated)
        for name, shape in largest.items():
            has_bias = self.style.biases.ffn
            setattr(self, name, ElasticProjection(*shape, sizes.ranks[1], has_bias=has_bias))

    def views(self, d_model: int, spec: FfnSpec) -> dict[str, Weights]:
        """Parameters of each projection."""
        shapes = spec.projections(d_model, is_gated=self.style.is_gated)
        return {
            name: getattr(self, name).views(*shape, spec.rank) for name, shape in shapes.items()
        }

    def forward(self, x_BTD: Tensor, spec: FfnSpec) -> Tensor:
        """``(B, T, d_model)`` to the same shape, as ``blocks.FeedForward`` of ``spec`` would."""
        views = self.views(x_BTD.shape[-1], spec)
        return feed_forward(self.style, x_BTD, **views)


class ElasticLayer(nn.Module):
    """A layer of any size; see ``blocks.Layer``."""

    def __init__(self, sizes: Sizes, *, is_causal: bool) -> None:
        """Build the largest."""
        super().__init__()
        self.style = sizes.style
        self.attention_norm = ElasticNorm(sizes.style, sizes.widths)
        self.ffn_norm = ElasticNorm(sizes.style, sizes.widths)
        self.attention = ElasticAttention(sizes, is_causal=is_causal)
        self.ffn = ElasticFeedForward(sizes)

    def forward(
        self,
        x_BTD: Tensor,
        spec: LayerSpec,
        keep_BT: Tensor | None,
        rotation_2TE: Tensor | None = None,
    ) -> Tensor:
        """``(B, T, d_model)`` to the same shape."""
        rest = (spec.attention, keep_BT, rotation_2TE)
        x_BTD = residual(self.style, x_BTD, self.attention_norm, self.attention, *rest)
        return residual(self.style, x_BTD, self.ffn_norm, self.ffn, spec.ffn)
