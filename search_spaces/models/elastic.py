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
* *LayerNorm has a gain and a bias for each width* (switchable, Yu et al. 2019). It keeps no
  running statistics, so nothing is to be calibrated when the width changes.

Shape legend: B batch, T tokens, D d_model, Q query heads, K key-value heads, E d_head, O d_out,
I d_in, R rank, F d_ff.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import AttentionSpec, FfnSpec, LayerSpec, is_factorised
from search_spaces.models.attend import attend
from search_spaces.models.projection import Weights
from search_spaces.models.style import feed_forward, residual


class ElasticProjection(nn.Module):
    """A linear map of any size up to the largest, full or as two factors of any rank up to one."""

    def __init__(self, d_in: int, d_out: int, rank: int | None) -> None:
        """``rank`` is the largest rank of the factors, ``None`` without factors."""
        super().__init__()
        full = nn.Linear(d_in, d_out)
        self.weight_OI, self.bias_O = full.weight, full.bias
        self.is_factored = rank is not None
        if rank is not None:
            reduce, expand = nn.Linear(d_in, rank, bias=False), nn.Linear(rank, d_out)
            self.reduce_RI, self.expand_OR = reduce.weight, expand.weight
            self.factored_bias_O = expand.bias

    def views(self, d_in: int, d_out: int, rank: int | None, *, step: int = 1) -> Weights:
        """The parameters at one size; outputs are every ``step``-th, ``d_out`` of them."""
        rows = slice(0, d_out * step, step)
        if rank is None or not is_factorised(d_in, d_out, rank):
            return Weights((self.weight_OI[rows, :d_in],), self.bias_O[rows])
        assert self.is_factored
        weights = (self.expand_OR[rows, :rank], self.reduce_RI[:rank, :d_in])
        return Weights(weights, self.factored_bias_O[rows])


class ElasticNorm(nn.Module):
    """LayerNorm with parameters of its own for each width."""

    def __init__(self, widths: Iterable[int]) -> None:
        """Start as the identity after normalising, at each of ``widths``."""
        super().__init__()
        self.gain_D = nn.ParameterDict({str(d): torch.ones(d) for d in widths})
        self.bias_D = nn.ParameterDict({str(d): torch.zeros(d) for d in widths})

    def views(self, width: int) -> tuple[Tensor, Tensor]:
        """Gain and bias at ``width``."""
        return self.gain_D[str(width)], self.bias_D[str(width)]

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        width = x_BTD.shape[-1]
        return F.layer_norm(x_BTD, (width,), *self.views(width))


class ElasticAttention(nn.Module):
    """Grouped-query attention of any width, heads, key-value heads and rank."""

    def __init__(self, d_model: int, rank: int | None, *, is_causal: bool) -> None:
        """``d_model`` and ``rank`` are the largest."""
        super().__init__()
        self.is_causal = is_causal
        self.q = ElasticProjection(d_model, d_model, rank)
        self.k = ElasticProjection(d_model, d_model, rank)
        self.v = ElasticProjection(d_model, d_model, rank)
        self.o = ElasticProjection(d_model, d_model, rank)

    def views(self, d_model: int, spec: AttentionSpec) -> dict[str, Weights]:
        """Parameters of each projection, heads interleaved."""
        group = spec.n_heads // spec.n_kv_heads
        steps = {"q": 1, "k": group, "v": group, "o": 1}
        return {
            name: getattr(self, name).views(*shape, spec.rank, step=steps[name])
            for name, shape in spec.projections(d_model).items()
        }

    def forward(self, x_BTD: Tensor, spec: AttentionSpec, keep_BT: Tensor | None) -> Tensor:
        """``(B, T, d_model)`` to the same shape, as ``blocks.Attention`` of ``spec`` would."""
        views = self.views(x_BTD.shape[-1], spec)
        q_BQTE = _split(views["q"](x_BTD), spec.n_heads)
        k_BKTE = _split(views["k"](x_BTD), spec.n_kv_heads)
        v_BKTE = _split(views["v"](x_BTD), spec.n_kv_heads)
        out_BQTE = attend(q_BQTE, k_BKTE, v_BKTE, keep_BT=keep_BT, is_causal=self.is_causal)
        return views["o"](out_BQTE.permute(0, 2, 3, 1).flatten(2))


def _split(x_BTD: Tensor, heads: int) -> Tensor:
    return x_BTD.view(*x_BTD.shape[:2], -1, heads).permute(0, 3, 1, 2)


class ElasticFeedForward(nn.Module):
    """A feed-forward block of any width and rank."""

    def __init__(self, d_model: int, d_ff: int, rank: int | None) -> None:
        """All are the largest."""
        super().__init__()
        self.up = ElasticProjection(d_model, d_ff, rank)
        self.down = ElasticProjection(d_ff, d_model, rank)

    def views(self, d_model: int, spec: FfnSpec) -> dict[str, Weights]:
        """Parameters of each projection."""
        return {
            name: getattr(self, name).views(*shape, spec.rank)
            for name, shape in spec.projections(d_model).items()
        }

    def forward(self, x_BTD: Tensor, spec: FfnSpec) -> Tensor:
        """``(B, T, d_model)`` to the same shape, as ``blocks.FeedForward`` of ``spec`` would."""
        views = self.views(x_BTD.shape[-1], spec)
        return feed_forward(x_BTD, views["up"], views["down"])


class ElasticLayer(nn.Module):
    """A layer of any size; see ``blocks.Layer``."""

    def __init__(
        self,
        widths: Sequence[int],
        d_ff: int,
        ranks: tuple[int | None, int | None],
        *,
        is_causal: bool,
    ) -> None:
        """``d_ff`` and ``ranks`` (attention's and feed-forward's) are the largest."""
        super().__init__()
        self.attention_norm, self.ffn_norm = ElasticNorm(widths), ElasticNorm(widths)
        self.attention = ElasticAttention(max(widths), ranks[0], is_causal=is_causal)
        self.ffn = ElasticFeedForward(max(widths), d_ff, ranks[1])

    def forward(self, x_BTD: Tensor, spec: LayerSpec, keep_BT: Tensor | None) -> Tensor:
        """``(B, T, d_model)`` to the same shape."""
        x_BTD = residual(x_BTD, self.attention_norm, self.attention, spec.attention, keep_BT)
        return residual(x_BTD, self.ffn_norm, self.ffn, spec.ffn)
