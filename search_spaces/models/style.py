"""The choices of a block's style, which every network of ours shares.

Norm kind, place of the norm, activation and positions are decided here and nowhere else:
``blocks``, ``elastic``, ``transformer`` and ``encoder_decoder`` call these functions. Projections
are ``projection``'s. ``nas.exporting.formats.standalone_source`` repeats the style as source text,
``search_spaces.cost.block_counts`` as closed forms.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.workload import Workload

# Position vectors start at a size comparable with the embedded input: with the usual 0.02 small
# vision models took several times as many epochs to tell patches apart.
POSITION_STD = 0.5
# Embeddings of tokens start small, and their positions smaller still: training hardly moves rare
# tokens, so that their initial vectors stay as noise.
TOKEN_STD, TOKEN_POSITION_STD = 0.1, 0.05


def make_norm(width: int) -> nn.LayerNorm:
    """Make a norm of the stream."""
    return nn.LayerNorm(width)


def residual(
    x_BTD: Tensor, norm: nn.Module, block: Callable[..., Tensor], *rest: object
) -> Tensor:
    """Add a block's output to the stream; the block reads a norm (pre-norm, Xiong et al. 2020)."""
    return x_BTD + block(norm(x_BTD), *rest)


def feed_forward(
    x_BTD: Tensor, up: Callable[[Tensor], Tensor], down: Callable[[Tensor], Tensor]
) -> Tensor:
    """Apply two projections with GELU between."""
    return down(F.gelu(up(x_BTD)))


def token_embedding(n_tokens: int, d_model: int) -> nn.Embedding:
    """Make the embedding of a vocabulary."""
    embedding = nn.Embedding(n_tokens, d_model)
    nn.init.normal_(embedding.weight, std=TOKEN_STD)
    return embedding


def positions(workload: Workload, n_tokens: int, d_model: int) -> nn.Parameter:
    """Make a learned position table, ``(T, D)``."""
    std = POSITION_STD if workload.is_image else TOKEN_POSITION_STD
    return nn.Parameter(torch.randn(n_tokens, d_model) * std)
