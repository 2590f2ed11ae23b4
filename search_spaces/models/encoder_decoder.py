"""Encoder-decoder (Vaswani et al. 2017): reads sources at once, writes translations in steps.

Shape legend: B batch, S tokens of a source, T tokens of a translation, D widths of a stack, R rows
written at once (``beam_size`` a source), K key-value heads, E d_head, C classes (tokens, and
last the end).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture, BlockStyle, DecoderLayerSpec, DecoderSpec
from search_spaces.models.beam import SearchShape, beam_search, greedy_search
from search_spaces.models.blocks import Attention, FeedForward, Layer
from search_spaces.models.pooling import token_mask
from search_spaces.models.style import (
    Rotations,
    apply_head,
    final_norm,
    make_head,
    make_norm,
    position_table,
    residual,
    token_embedding,
)
from search_spaces.workload import Workload


class DecoderLayer(nn.Module):
    """Attention to earlier tokens, attention to the source, feed-forward."""

    def __init__(
        self, d_model: int, d_memory: int, spec: DecoderLayerSpec, style: BlockStyle
    ) -> None:
        """``d_memory`` is the encoder's width."""
        super().__init__()
        self.style, self.d_head = style, spec.attention.d_head
        self.attention_norm = make_norm(style, d_model)
        self.attention = Attention(d_model, spec.attention, style, is_causal=True)
        self.cross_norm = make_norm(style, d_model)
        self.cross_attention = Attention(
            d_model, spec.cross_attention, style, is_causal=False, d_memory=d_memory
        )
        self.ffn_norm = make_norm(style, d_model)
        self.ffn = FeedForward(d_model, spec.ffn, style)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor,
        keep_BS: Tensor,
        rotation_2TE: Tensor | None = None,
    ) -> Tensor:
        """All tokens of a translation at once, under a causal mask."""
        rest = (None, None, 0, rotation_2TE)
        x_BTD = residual(self.style, x_BTD, self.attention_norm, self.attention, *rest)
        crossed = self.cross_attention.keys_and_values(memory_BSD)
        return self._finish(x_BTD, crossed, keep_BS)

    def step(
        self,
        x_R1D: Tensor,
        own: tuple[Tensor, Tensor],
        crossed: tuple[Tensor, Tensor],
        position: Tensor,
        keep: tuple[Tensor, Tensor],
        rotation_21E: Tensor | None = None,
    ) -> Tensor:
        """One token at ``position``; writes its keys and values to ``own``, ``(R, K, T, E)``.

        ``crossed`` are those of the source, ``(R, K, S, E)``; ``keep`` masks the source's tokens
        and the layer's own, ``(R, S)`` and ``(R, T)``.
        """
        keep_RS, keep_RT = keep

        def attend_to_own(normed_R1D: Tensor) -> Tensor:
            written = self.attention.keys_and_values(normed_R1D, rotation_21E)
            for cache, new in zip(own, written, strict=True):
                cache.index_copy_(2, position, new)
            return self.attention.read(normed_R1D, *own, keep_RT, rotation_21E)

        x_R1D = residual(self.style, x_R1D, self.attention_norm, attend_to_own)
        return self._finish(x_R1D, crossed, keep_RS)

    def _finish(self, x_BTD: Tensor, crossed: tuple[Tensor, Tensor], keep_BS: Tensor) -> Tensor:
        """Attend to the source's keys and values, then apply the feed-forward block."""
        rest = (*crossed, keep_BS)
        x_BTD = residual(self.style, x_BTD, self.cross_norm, self.cross_attention.read, *rest)
        return residual(self.style, x_BTD, self.ffn_norm, self.ffn)


class Decoder(nn.Module):
    """Embedding, layers, norm and head of translations."""

    def __init__(
        self, spec: DecoderSpec, d_memory: int, style: BlockStyle, workload: Workload
    ) -> None:
        """Build it; ``d_memory`` is the encoder's width."""
        super().__init__()
        d_model = spec.d_model
        self.style, self.n_positions = style, workload.n_steps
        self.embed = token_embedding(workload.n_classes, d_model)
        self.position_TD = position_table(style, workload, workload.n_steps, d_model)
        self.embed_norm = make_norm(style, d_model) if style.norm.after_embeddings else None
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, d_memory, own, style) for own in spec.layers
        )
        self.norm = final_norm(style, d_model)
        self.head = make_head(style, workload, d_model, workload.n_classes)

    def forward(self, tokens_BT: Tensor, memory_BSD: Tensor, keep_BS: Tensor) -> Tensor:
        """Logits ``(B, T, C)`` of the token after each of ``tokens_BT``."""
        n_tokens = tokens_BT.shape[1]
        x_BTD = _embedded(self, tokens_BT, slice(n_tokens))
        rotations = Rotations(self.style, torch.arange(n_tokens, device=tokens_BT.device))
        for layer in self.stack:
            x_BTD = layer(x_BTD, memory_BSD, keep_BS, rotations.of(layer.d_head))
        return apply_head(self.head, self.norm(x_BTD), self.embed)

    @property
    def stack(self) -> list[DecoderLayer]:
        """The layers, typed."""
        return cast(list[DecoderLayer], list(self.layers))

    def step(
        self,
        tokens_R: Tensor,
        position: Tensor,
        own: Sequence[tuple[Tensor, Tensor]],
        crossed: Sequence[tuple[Tensor, Tensor]],
        keep_RS: Tensor,
    ) -> Tensor:
        """Logits ``(R, C)`` of the token after ``tokens_R`` at ``position``, of shape ``(1,)``.

        Shapes are static: the whole cache is read, unwritten places masked.
        """
        x_R1D = _embedded(self, tokens_R[:, None], position)
        places_T = torch.arange(self.n_positions, device=tokens_R.device)
        keep = keep_RS, (places_T <= position).expand(len(tokens_R), -1)
        rotations = Rotations(self.style, position)
        for layer, cache, read in zip(self.stack, own, crossed, strict=True):
            turn = rotations.of(layer.d_head)
            x_R1D = layer.step(x_R1D, cache, read, position, keep, turn)
        return apply_head(self.head, self.norm(x_R1D[:, 0]), self.embed)


def _embedded(part: Decoder | EncoderDecoder, tokens_BT: Tensor, places: slice | Tensor) -> Tensor:
    """The stream before the first layer of a stack, ``(B, T, D)``."""
    x_BTD: Tensor = part.embed(tokens_BT)
    if part.position_TD is not None:
        x_BTD = x_BTD + part.position_TD[places]
    return x_BTD if part.embed_norm is None else part.embed_norm(x_BTD)


class EncoderPass(nn.Module):
    """The encoder's output, as keys and values of each decoder layer."""

    def __init__(self, network: EncoderDecoder) -> None:
        """Share the parts of ``network``."""
        super().__init__()
        self.network = network

    def forward(self, sources_BS: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values for each layer, repeated for each beam."""
        memory_BSD = self.network.encode(sources_BS, token_mask(sources_BS))
        pairs = []
        for layer in self.network.decoder.stack:
            pair = layer.cross_attention.keys_and_values(memory_BSD)
            keys, values = (x.repeat_interleave(self.network.beam_size, dim=0) for x in pair)
            pairs.append((keys, values))
        return pairs


class EncoderDecoder(nn.Module):
    """Network from sources to translations.

    Parameters of the encoder are named as in ``Transformer``, and blocks have the paths of
    ``Architecture.placed_blocks``.
    """

    def __init__(self, architecture: Architecture, workload: Workload) -> None:
        """Build the network, initialised as a ``Transformer`` is.

        Raises:
            ValueError: there is no decoder, or nothing to translate.
        """
        super().__init__()
        workload.check_fits(architecture)
        assert architecture.decoder is not None
        d_model, style = architecture.d_model, architecture.style
        self.style = style
        self.end, self.beam_size = workload.n_classes - 1, workload.beam_size
        self.embed = token_embedding(workload.vocab_size or 1, d_model)
        n_tokens = workload.n_tokens(architecture)
        self.position_TD = position_table(style, workload, n_tokens, d_model)
        self.embed_norm = make_norm(style, d_model) if style.norm.after_embeddings else None
        self.layers = nn.ModuleList(
            Layer(d_model, spec, style, is_causal=False) for spec in architecture.layers
        )
        self.norm = final_norm(style, d_model)
        self.decoder = Decoder(architecture.decoder, d_model, style, workload)

    def forward(self, sources_BS: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """Translate ``sources_BS``, or score given translations (teacher forcing).

        Returns:
            Tokens ``(B, T)`` with the end as ``end`` and padding after it; with ``targets_BT``,
            whose padding may be cut off, logits ``(B, T, C)`` of each of them, given those before.
        """
        if targets_BT is None:
            return translate(self, sources_BS)
        keep_BS = token_mask(sources_BS)
        started_BT = nn.functional.pad(targets_BT[:, :-1], (1, 0), value=self.end)
        logits_BTC: Tensor = self.decoder(started_BT, self.encode(sources_BS, keep_BS), keep_BS)
        return logits_BTC

    def encode(self, sources_BS: Tensor, keep_BS: Tensor) -> Tensor:
        """The encoder's output, ``(B, S, D)``; sources may be cut to the longest."""
        n_tokens = sources_BS.shape[1]
        x_BSD = _embedded(self, sources_BS, slice(n_tokens))
        rotations = Rotations(self.style, torch.arange(n_tokens, device=sources_BS.device))
        for layer in cast(list[Layer], list(self.layers)):
            x_BSD = layer(x_BSD, keep_BS, None, 0, rotations.of(layer.d_head))
        memory_BSD: Tensor = self.norm(x_BSD)
        return memory_BSD


@dataclass(frozen=True, slots=True)
class Parts:
    """The two parts of a translation, as modules or compiled."""

    encode: Callable[[Tensor], list[tuple[Tensor, Tensor]]]
    step: Callable[..., Tensor]


@torch.no_grad()
def translate(
    network: EncoderDecoder,
    sources_BS: Tensor,
    *,
    parts: Parts | None = None,
    stop_early: bool = True,
) -> Tensor:
    """Translate by greedy search, or by beam search where ``network.beam_size`` is above 1.

    Args:
        network: In evaluation mode.
        sources_BS: Sources, padded.
        parts: Compiled parts; the network's own by default.
        stop_early: Whether to stop where all translations have ended, which changes no result.

    Returns:
        Tokens ``(B, T)``, with ``network.end`` as the end and padding after it.
    """
    run = Parts(EncoderPass(network), network.decoder.step) if parts is None else parts
    decoder, beam = network.decoder, network.beam_size
    crossed = run.encode(sources_BS)
    keep_RS = token_mask(sources_BS).repeat_interleave(beam, dim=0)
    n_steps, rows = decoder.n_positions, len(sources_BS) * beam
    own: list[tuple[Tensor, Tensor]] = []
    for layer, (keys, _) in zip(decoder.stack, crossed, strict=True):
        shape = (rows, layer.attention.n_kv_heads, n_steps, layer.attention.d_head)
        own.append((keys.new_zeros(shape), keys.new_zeros(shape)))

    def step(tokens_R: Tensor, position: int) -> Tensor:
        # Filled on the device: a copy from here could not be part of a CUDA graph.
        at = torch.full((1,), position, device=tokens_R.device)
        return run.step(tokens_R, at, own, crossed, keep_RS)

    def reorder(rows_R: Tensor) -> None:
        for pair in own:
            for cache in pair:
                cache.copy_(cache[rows_R])

    how = SearchShape(len(sources_BS), n_steps, network.end, sources_BS.device, stop_early)
    return greedy_search(step, how) if beam == 1 else beam_search(step, reorder, beam, how)
