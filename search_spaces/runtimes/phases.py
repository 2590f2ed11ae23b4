"""A decoder's phases as functions without state, which converters require.

Keys and values of earlier tokens are inputs, those of the tokens that are read are outputs: a
server keeps them.

Shape legend: B batch, T tokens that are read, S tokens before them, K key-value heads, E d_head,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from search_spaces.models.blocks import KeyValueCache
from search_spaces.models.decoding import decode, empty_caches
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload


class _Past:
    """Keys and values of earlier tokens; stands in for ``KeyValueCache``."""

    def __init__(self, earlier: tuple[Tensor, Tensor] | None) -> None:
        self._earlier = earlier
        self.new: tuple[Tensor, ...] = ()

    def extended(self, k_BKTE: Tensor, v_BKTE: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of all tokens, and store the new ones."""
        self.new = (k_BKTE, v_BKTE)
        if self._earlier is None:
            return self.new[0], self.new[1]
        k_BKSE, v_BKSE = self._earlier
        return torch.cat([k_BKSE, k_BKTE], dim=2), torch.cat([v_BKSE, v_BKTE], dim=2)


class PhaseFunction(nn.Module):
    """``decode`` from position ``start`` on, with caches as inputs and outputs."""

    def __init__(self, network: Transformer, start: int) -> None:
        """Keep the decoder."""
        super().__init__()
        self.network, self.start = network, start

    def forward(self, tokens_BT: Tensor, *earlier: Tensor) -> tuple[Tensor, ...]:
        """Return the next token's logits ``(B, V)``, then new keys and values of each layer.

        ``earlier`` are keys and values ``(B, K, S, E)`` of each layer in turn; none at the start.
        """
        pairs = list(zip(earlier[::2], earlier[1::2], strict=True))
        pasts = [_Past(pair) for pair in pairs] or [_Past(None) for _ in self.network.stack]
        logits_BV = decode(
            self.network, tokens_BT, cast(Sequence[KeyValueCache], pasts), self.start
        )
        return (logits_BV, *(each for past in pasts for each in past.new))


def as_converted(
    network: nn.Module, workload: Workload, inputs: Tensor
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the module that a converter reads, and its inputs; see ``decoding.as_priced``.

    Raises:
        ValueError: the workload has a phase, and ``network`` is of a family without a cache.
    """
    if workload.phase is None:
        return network, (inputs,)
    if not isinstance(network, Transformer):
        raise ValueError(
            f"network must be a Transformer for the phase {workload.phase}, got a "
            f"{type(network).__name__}"
        )
    if workload.phase == "prefill":
        return PhaseFunction(network, 0), (inputs,)
    start = inputs.shape[1] - 1
    caches = empty_caches(network)
    with torch.no_grad():
        decode(network, inputs[:, :start], caches, 0)
    earlier = [
        cast(Tensor, each)[:, :, :start].contiguous()
        for cache in caches
        for each in (cache.k_BKSE, cache.v_BKSE)
    ]
    return PhaseFunction(network, start), (inputs[:, start:].contiguous(), *earlier)
