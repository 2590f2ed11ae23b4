"""Decoding with a cache of keys and values: prompts, single tokens, and measured phases.

Shape legend: B batch, T tokens of a prompt, S tokens that a cache has room for, V vocabulary,
K key-value heads, E d_head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_spaces.models.blocks import KeyValueCache
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload


def empty_caches(network: Transformer) -> list[KeyValueCache]:
    """Make a cache for each layer of ``network``, with room for every position."""
    return [KeyValueCache(network.n_positions) for _ in network.layers]


def decode(
    network: Transformer, tokens_BT: Tensor, caches: Sequence[KeyValueCache], start: int
) -> Tensor:
    """Read a whole prompt (``start`` 0), or one token more; ``caches`` have the tokens before.

    Returns:
        Logits of the token after the last one read, ``(B, V)``.

    Raises:
        ValueError: ``network`` is no decoder or has too few positions, or several tokens do not
            start at 0.
    """
    if not network.is_decoder:
        raise ValueError("network must be a decoder, got an encoder")
    end, most = start + tokens_BT.shape[1], network.n_positions
    if end > most:
        raise ValueError(f"tokens must be at most {most} (the network's positions), got {end}")
    if start and tokens_BT.shape[1] != 1:
        raise ValueError(f"after the prompt tokens must come singly, got {tokens_BT.shape[1]}")
    x_BTD = network.embedded(tokens_BT, start)
    rotations = network.rotations(x_BTD, start)
    for layer, cache in zip(network.stack, caches, strict=True):
        x_BTD = layer(x_BTD, None, cache, start, rotations.of(layer.d_head))
    return network.logits_of(network.norm(x_BTD[:, -1]))


@torch.no_grad()
def generate(
    network: Transformer,
    prompt_BT: Tensor,
    n_tokens: int,
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue prompts by ``n_tokens`` each.

    Args:
        network: A decoder in evaluation mode.
        prompt_BT: At least one token each.
        n_tokens: How many to add.
        temperature: 0 takes the most probable token; above it tokens are drawn from the softmax
            of logits over ``temperature``.
        generator: Draws them.

    Returns:
        The new tokens, ``(B, n_tokens)``.

    Raises:
        ValueError: an argument is out of range, or prompt and new tokens are more than the
            network has positions for.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be >= 1, got {n_tokens}")
    if not prompt_BT.shape[1]:
        raise ValueError("prompt_BT must have a token or more each, got none")
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, got {temperature!r}")
    caches, new_tokens = empty_caches(network), []
    tokens_BT, start = prompt_BT, 0
    for _ in range(n_tokens):
        logits_BV = decode(network, tokens_BT, caches, start).float()
        start += tokens_BT.shape[1]
        if temperature:
            shares_BV = (logits_BV / temperature).softmax(-1)
            tokens_BT = torch.multinomial(shares_BV, 1, generator=generator)
        else:
            tokens_BT = logits_BV.argmax(-1, keepdim=True)
        new_tokens.append(tokens_BT)
    return torch.cat(new_tokens, dim=1)


class Phase(nn.Module):
    """One phase of a decoder's use with static shapes, from position ``start`` on.

    The constructor fills the caches from ``tokens_BT``; each call then writes to the same
    positions.
    """

    def __init__(self, network: Transformer, tokens_BT: Tensor, start: int) -> None:
        """Fill the caches from ``tokens_BT``."""
        super().__init__()
        self.network, self.start = network, start
        caches = empty_caches(network)
        with torch.no_grad():
            decode(network, tokens_BT, caches, 0)
        self.caches = nn.ModuleList(caches)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """``(B, T)`` tokens to logits ``(B, V)`` of the next one."""
        caches: Sequence[KeyValueCache] = list(self.caches)  # type: ignore[arg-type]
        return decode(self.network, tokens_BT, caches, self.start)


def as_priced(network: nn.Module, workload: Workload, inputs: Tensor) -> tuple[nn.Module, Tensor]:
    """Return the module and the inputs that a measurement of ``workload`` runs.

    These are the network and its inputs, or the workload's phase with whole sequences
    (``prefill``) or their last tokens (``generate``).

    Raises:
        ValueError: the workload has a phase, and ``network`` is of a family without a cache.
    """
    if workload.phase is None:
        return network, inputs
    if not isinstance(network, Transformer):
        raise ValueError(
            f"network must be a Transformer for the phase {workload.phase}, got a "
            f"{type(network).__name__}"
        )
    start = 0 if workload.phase == "prefill" else inputs.shape[1] - 1
    return Phase(network, inputs, start), inputs[:, start:].contiguous()
