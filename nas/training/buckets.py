"""Length bucketing: training batches of texts or recordings of similar length, cut to the longest.

Attention and pooling mask padding, so that cutting it changes no output and saves its cost.
Batches have one of a few widths, which limits the number of shapes for kernels. Measurements do
not use buckets: joules are comparable at the one length of a workload.

Source: Khomenko et al. 2016.

Shape legend: N samples, B batch, T tokens or frames, C channels, M bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces.models.encoder_decoder import EncoderDecoder
from search_spaces.models.transformer import RecordingEmbedding, Transformer
from search_spaces.workload import PADDING_TOKEN

_WIDTHS = 4
# Batches per pool; each pool is sorted by length. Larger pools make batches less random.
_POOL = 16


@dataclass(frozen=True, slots=True)
class Buckets:
    """Sampler of an epoch's batches; without ``lengths`` they are as wide as the inputs.

    Widths are along the last axis of the inputs, and multiples of ``multiple``.
    """

    n: int
    batch_size: int
    width: int
    lengths: Tensor | None
    multiple: int = 1

    @classmethod
    def of(cls, model: nn.Module, inputs: Tensor, batch_size: int) -> Buckets:
        """Create a sampler for ``model``, by length if the model masks padding."""
        if isinstance(model, Transformer) and isinstance(model.embed, RecordingEmbedding):
            lengths_N = _frames(inputs).cpu()
            return cls(len(inputs), batch_size, inputs.shape[-1], lengths_N, model.patch_size)
        skips_padding = isinstance(model, EncoderDecoder) or (
            isinstance(model, Transformer) and model.is_pooled and not model.is_image
        )
        if not skips_padding:
            return cls(len(inputs), batch_size, 0, None)
        lengths_N = lengths(inputs, padding_token_of(model))
        return cls(len(inputs), batch_size, inputs.shape[1], lengths_N.cpu())

    def draw(self, generator: torch.Generator) -> Iterator[tuple[Tensor, int | None]]:
        """Yield the indices of each batch, on the CPU, and its width (``None``: not cut)."""
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
        step = -(-self.width // (_WIDTHS * self.multiple)) * self.multiple
        for i in torch.randperm(len(batches), generator=generator).tolist():
            longest = int(self.lengths[batches[i]].max())
            yield batches[i], min(self.width, -(-longest // step) * step)


def padding_token_of(model: nn.Module) -> int:
    """Return the token that fills up the texts that ``model`` reads."""
    return model.padding_token if isinstance(model, Transformer) else PADDING_TOKEN


def lengths(tokens_NT: Tensor, padding_token: int) -> Tensor:
    """Return the number of tokens of each text before its padding, at least 1, ``(N,)``."""
    positions_T = torch.arange(1, tokens_NT.shape[1] + 1, device=tokens_NT.device)
    return ((tokens_NT != padding_token) * positions_T).amax(dim=1).clamp_min(1)


def _frames(inputs_NCMT: Tensor) -> Tensor:
    """Return the number of frames of each recording before its padding, at least 1, ``(N,)``."""
    positions_T = torch.arange(1, inputs_NCMT.shape[-1] + 1, device=inputs_NCMT.device)
    frames_NT = (inputs_NCMT != 0).flatten(1, 2).any(dim=1)
    return (frames_NT * positions_T).amax(dim=1).clamp_min(1)
