"""One vector of each sample: masks of padding, and the poolings of a ``BlockStyle``.

Shape legend: B batch, T tokens, D d_model, W pooled width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from search_spaces.architecture import BlockStyle
from search_spaces.workload import PADDING_TOKEN


def token_mask(tokens_BT: Tensor, padding_token: int = PADDING_TOKEN) -> Tensor:
    """Mask of the tokens that are no padding, ``(B, T)``."""
    first_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) == 0
    # The first token always counts, so that no sample is empty.
    return (tokens_BT != padding_token) | first_T


def pool(x_BTD: Tensor, keep_BT: Tensor | None, style: BlockStyle) -> Tensor:
    """One vector of each sample, ``(B, W)``; a pooler's map of it is not applied here."""
    n_prefix = style.n_prefix_tokens
    match style.pooling:
        case "mean":
            return mean_over(x_BTD[:, n_prefix:], keep_BT)
        case "cls" | "pooler" | "pooler-relu":
            return x_BTD[:, 0]
        case "last":
            return _last(x_BTD, keep_BT)
        case "cls-mean":
            return torch.cat([x_BTD[:, 0], x_BTD[:, n_prefix:].mean(dim=1)], dim=-1)
        case "prefix":
            return x_BTD[:, :n_prefix].flatten(1)


def map_pooled(
    x_BD: Tensor, style: BlockStyle, pooler: Callable[[Tensor], Tensor] | None
) -> Tensor:
    """Apply a pooler's linear map and activation, where the style has one."""
    if pooler is None:
        return x_BD
    return pooler(x_BD).tanh() if style.pooling == "pooler" else pooler(x_BD).relu()


def mean_over(x_BTD: Tensor, keep_BT: Tensor | None) -> Tensor:
    """Mean over the tokens of the mask, ``(B, D)``."""
    if keep_BT is None:
        return x_BTD.mean(dim=1)
    keep_BT1 = keep_BT.unsqueeze(-1).to(x_BTD.dtype)
    return (x_BTD * keep_BT1).sum(dim=1) / keep_BT1.sum(dim=1)


def _last(x_BTD: Tensor, keep_BT: Tensor | None) -> Tensor:
    if keep_BT is None:
        return x_BTD[:, -1]
    places_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    last_B = (places_T * keep_BT).amax(dim=1)
    return x_BTD.gather(1, last_B[:, None, None].expand(-1, 1, x_BTD.shape[2])).squeeze(1)
