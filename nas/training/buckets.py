"""Training batches of texts that are about equally long, cut where the longest of them ends.

Padding is neither attended to nor pooled, so a network says the same of a text without it, and the
work on it is saved. Widths are a few fixed ones, so that kernels meet few shapes. Measuring never
does this: a workload states one length, and joules of different texts would not compare.

Source of batches by length: Khomenko et al. 2016.

Shape legend: N samples, B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces.models.encoder_decoder import EncoderDecoder
from search_spaces.models.transformer import Transformer
from search_spaces.workload import PADDING_TOKEN

_WIDTHS = 4
# Batches that are sorted by length among each other: of more, their order would say the length.
_POOL = 16


@dataclass(frozen=True, slots=True)
class Buckets:
    """Draws the batches of an epoch; without ``lengths`` they are as wide as the inputs."""

    n: int
    batch_size: int
    width: int
    lengths: Tensor | None

    @classmethod
    def of(cls, model: nn.Module, inputs: Tensor, batch_size: int) -> Buckets:
        """Those for ``model``, by the lengths of texts where it does without their padding."""
        skips_padding = isinstance(model, EncoderDecoder) or (
            isinstance(model, Transformer) and model.is_pooled and not model.is_image
        )
        if not skips_padding:
            return cls(len(inputs), batch_size, 0, None)
        return cls(len(inputs), batch_size, inputs.shape[1], _lengths(inputs).cpu())

    def draw(self, generator: torch.Generator) -> Iterator[tuple[Tensor, int | None]]:
        """Indices of each batch of an epoch, on the CPU, and to which width it may be cut."""
        order = torch.randperm(self.n, generator=generator)
        if self.lengths is None:
            yield from ((indices, None) for indices in torch.split(order, self.batch_size))
            return
        pools = torch.split(order, self.batch_size * _POOL)
        batches = [
            batch
            for pool in pools
            for batch in torch.split(
                pool[torch.argsort(self.lengths[pool], stable=True)], self.batch_size
            )
        ]
        step = -(-self.width // _WIDTHS)
        for i in torch.randperm(len(batches), generator=generator).tolist():
            longest = int(self.lengths[batches[i]].max())
            yield batches[i], min(self.width, -(-longest // step) * step)


def _lengths(tokens_NT: Tensor) -> Tensor:
    """How many tokens of each text precede its padding, at least 1, ``(N,)``."""
    places_T = torch.arange(1, tokens_NT.shape[1] + 1, device=tokens_NT.device)
    return ((tokens_NT != PADDING_TOKEN) * places_T).amax(dim=1).clamp_min(1)
