"""Transformer with one stack of layers: embedding, layers, norm, head.

Shape legend: B batch, T tokens, D d_model, N prefix tokens, W pooled width, C channels,
P patch side.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.models.blocks import Layer
from search_spaces.models.pooling import map_pooled, mean_over, pool, token_mask
from search_spaces.models.style import (
    HeadTransform,
    Rotations,
    apply_head,
    final_norm,
    make_head,
    make_norm,
    position_table,
    prefix_tokens,
    token_embedding,
)
from search_spaces.workload import BLANK_TOKEN, Workload

# Logit of the blank at padding: others are 0, and have together a probability below 1e-10.
_CERTAIN = 30.0


class PatchEmbedding(nn.Module):
    """Non-overlapping patches of an image, each mapped to ``d_model``.

    Patches are square, or as high as ``patch_height``. Images of another size than ``size``,
    ``(height, width)``, are shrunk to it first.
    """

    def __init__(
        self,
        channels: int,
        patch_size: int,
        d_model: int,
        size: tuple[int, int],
        patch_height: int | None = None,
    ) -> None:
        """Build the map."""
        super().__init__()
        self.patch_size, self.size = patch_size, size
        self.patch_height = patch_size if patch_height is None else patch_height
        self.project = nn.Linear(channels * self.patch_height * patch_size, d_model)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, T, D)``, patches in reading order."""
        patches_BTP = to_patches(
            shrunk(images_BCHW, self.size), self.patch_size, self.patch_height
        )
        out_BTD: Tensor = self.project(patches_BTP)
        return out_BTD


class RecordingEmbedding(PatchEmbedding):
    """``PatchEmbedding`` of recordings of any number of frames, each patch as high as all."""

    def __init__(self, workload: Workload, patch_size: int, d_model: int) -> None:
        """Build the map."""
        channels, bands, frames = workload.input_shape
        super().__init__(channels, patch_size, d_model, (bands, frames), bands)

    def forward(self, recordings_BCHW: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, T, D)``; W is a multiple of the patch size."""
        out_BTD: Tensor = self.project(
            to_patches(recordings_BCHW, self.patch_size, self.patch_height)
        )
        return out_BTD

    def kept(self, recordings_BCHW: Tensor) -> Tensor:
        """Mask of the patches that are no padding, ``(B, T)``; the first always counts."""
        frames_BW = (recordings_BCHW != 0).flatten(1, 2).any(dim=1)
        n_tokens = frames_BW.shape[1] // self.patch_size
        # By shape and not by len(), which would fix the batch of an exported network.
        frames_BTP = frames_BW.reshape(frames_BW.shape[0], n_tokens, self.patch_size)
        is_first_T = torch.arange(n_tokens, device=frames_BW.device) == 0
        keep_BT: Tensor = frames_BTP.any(dim=2) | is_first_T
        return keep_BT


class Transformer(nn.Module):
    """An encoder with a head on one vector, on each token or for each pixel, or a causal decoder.

    Embeddings have no head: their output is the pooled vector.

    ``n_positions`` is the most tokens that it reads, prefix tokens included.
    """

    def __init__(self, architecture: Architecture, workload: Workload) -> None:
        """Build the network; embeddings and positions start small, the rest as in torch.

        Raises:
            ValueError: the architecture does not fit the workload.
        """
        super().__init__()
        style = architecture.style
        workload.check_style(style)
        workload.check_width(style, architecture.d_model)
        d_model, tokens = architecture.d_model, workload.n_tokens(architecture)
        self.style, self.d_model, self.n_positions = style, d_model, tokens
        self.is_causal, self.is_pooled = workload.reads_past_only(style), workload.is_pooled
        # A decoder continues texts; other causal networks only read them.
        self.is_decoder, self.predicts_tokens = workload.is_causal, workload.predicts_tokens
        self.has_padding, self.padding_token = workload.has_padding, workload.padding_token
        self.is_image, self.is_dense = workload.is_image, workload.is_dense
        self.is_detection, self.n_outputs = workload.is_detection, workload.n_outputs
        self.n_classes, self.patch_size = workload.n_classes, architecture.patch_size
        # Tokens of a text that are read; ``None`` for all.
        self.n_read = None if workload.is_image else architecture.resolution
        # In segmentation and detection: the grid of patches, and the size of the pictures.
        self.grid, self.size = (0, 0), (0, 0)
        if workload.is_dense or workload.is_detection:
            height, width = workload.image_size(architecture)
            self.grid = (height // self.patch_size, width // self.patch_size)
            self.size = (workload.input_shape[1], workload.input_shape[2])
        self.embed: nn.Module
        if workload.is_transcription:
            self.embed = RecordingEmbedding(workload, architecture.patch_size, d_model)
        elif workload.is_image:
            self.embed = PatchEmbedding(
                workload.input_shape[0],
                architecture.patch_size,
                d_model,
                workload.image_size(architecture),
            )
        else:
            self.embed = token_embedding(workload.vocab_size or 1, d_model)
        self.prefix_ND = prefix_tokens(style, d_model)
        self.token_types: nn.Embedding | None = None
        if style.n_token_types:
            self.token_types = token_embedding(style.n_token_types, d_model)
        self.position_TD = position_table(style, workload, tokens, d_model)
        self.embed_norm: nn.Module | None = None
        if style.norm.after_embeddings:
            self.embed_norm = make_norm(style, d_model)
        self.layers = nn.ModuleList(
            Layer(d_model, spec, style, is_causal=self.is_causal) for spec in architecture.layers
        )
        self.norm = final_norm(style, d_model)
        self.pooler: nn.Module | None = None
        if workload.is_pooled and style.has_pooler:
            self.pooler = nn.Linear(d_model, d_model)
        self.head_transform: nn.Module | None = None
        if workload.has_head_transform(style):
            self.head_transform = HeadTransform(style, d_model)
        per_token = workload.n_outputs * (self.patch_size**2 if workload.is_dense else 1)
        self.head = make_head(style, workload, d_model, per_token)

    def forward(self, inputs: Tensor, types_BT: Tensor | None = None) -> Tensor:
        """Images ``(B, C, H, W)`` or tokens ``(B, T)`` to logits.

        The padding token is masked in attention and pooling, except in language modelling. In
        causal styles attention needs no mask, as padding comes after all that is read. Texts are
        cut to the architecture's resolution. ``types_BT`` are the tokens' types, where the style
        has some; all are 0 by default.

        Returns:
            ``(B, n_classes)``, embeddings included; ``(B, T, n_classes)`` for language modelling,
            masked or not; ``(B, H, W, n_classes)`` for segmentation;
            ``(B, rows, columns, n_outputs)`` of each patch for detection; ``(B, 2, T)`` for
            question answering: scores of each token as an answer's first and last;
            ``(B, T, n_classes)`` for transcription, of each patch, with the blank as the only
            output of padding.
        """
        inputs = self._read(inputs)
        keep_BT = self._kept(inputs)
        x_BTD = self.embedded(inputs, types_BT=types_BT)
        rotations = self.rotations(x_BTD)
        read_BT = None if self.is_causal else keep_BT
        for layer in self.stack:
            x_BTD = layer(x_BTD, read_BT, None, 0, rotations.of(layer.d_head))
        return self._logits(x_BTD, keep_BT)

    def with_features(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """``forward``'s logits, and the mean over tokens after each layer, ``(B, L, D)``."""
        inputs = self._read(inputs)
        keep_BT = self._kept(inputs)
        x_BTD = self.embedded(inputs)
        rotations, means = self.rotations(x_BTD), []
        read_BT = None if self.is_causal else keep_BT
        for layer in self.stack:
            x_BTD = layer(x_BTD, read_BT, None, 0, rotations.of(layer.d_head))
            means.append(mean_over(x_BTD, keep_BT))
        return self._logits(x_BTD, keep_BT), torch.stack(means, dim=1)

    @property
    def stack(self) -> list[Layer]:
        """The layers, typed."""
        return cast(list[Layer], list(self.layers))

    def embedded(self, inputs: Tensor, start: int = 0, types_BT: Tensor | None = None) -> Tensor:
        """The stream before the first layer, ``(B, T, D)``, from position ``start`` on."""
        if isinstance(self.embed, PatchEmbedding):
            inputs = inputs.to(self.embed.project.weight.dtype)
        x_BTD: Tensor = self.embed(inputs)
        if self.prefix_ND is not None:
            prefix_BND = self.prefix_ND.expand(x_BTD.shape[0], -1, -1)
            x_BTD = torch.cat([prefix_BND, x_BTD], dim=1)
        if self.token_types is not None:
            # Without types all are the first.
            weight_KD = self.token_types.weight
            x_BTD = x_BTD + (weight_KD[0] if types_BT is None else self.token_types(types_BT))
        if self.position_TD is not None:
            # A decoder may read fewer tokens than it has positions for.
            x_BTD = x_BTD + self.position_TD[start : start + x_BTD.shape[1]]
        return x_BTD if self.embed_norm is None else self.embed_norm(x_BTD)

    def rotations(self, x_BTD: Tensor, start: int = 0) -> Rotations:
        """Rotations of the tokens of ``x_BTD``, which are at ``start`` and after it."""
        n_tokens = x_BTD.shape[1]
        return Rotations(self.style, torch.arange(start, start + n_tokens, device=x_BTD.device))

    def logits_of(self, normed: Tensor) -> Tensor:
        """Apply the head to normed vectors, ``(..., D)`` to ``(..., n_outputs)``."""
        if self.head_transform is not None:
            normed = self.head_transform(normed)
        return apply_head(self.head, normed, self.embed)

    def _read(self, inputs: Tensor) -> Tensor:
        return inputs if self.n_read is None else inputs[:, : self.n_read]

    def _kept(self, inputs: Tensor) -> Tensor | None:
        if isinstance(self.embed, RecordingEmbedding):
            return self.embed.kept(inputs)
        return token_mask(inputs, self.padding_token) if self.has_padding else None

    def _logits(self, x_BTD: Tensor, keep_BT: Tensor | None) -> Tensor:
        x_BTD = self.norm(x_BTD)
        if self.is_pooled:
            pooled_BW = pool(x_BTD, keep_BT, self.style)
            return self.logits_of(map_pooled(pooled_BW, self.style, self.pooler))
        # No pixels are the prefix tokens'.
        x_BTD = x_BTD[:, self.style.n_prefix_tokens :]
        logits_BTC = self.logits_of(x_BTD)
        if self.is_dense:
            return self._pixels(logits_BTC)
        if self.is_detection:
            return logits_BTC.reshape(-1, *self.grid, self.n_outputs)
        if isinstance(self.embed, RecordingEmbedding) and keep_BT is not None:
            # Padding writes blanks, so that losses and texts need no lengths.
            is_blank_C = torch.arange(self.n_classes, device=logits_BTC.device) == BLANK_TOKEN
            blank_C = _CERTAIN * is_blank_C.to(logits_BTC.dtype)
            return torch.where(keep_BT.unsqueeze(-1), logits_BTC, blank_C)
        return logits_BTC if self.predicts_tokens else logits_BTC.transpose(1, 2)

    def _pixels(self, logits_BTC: Tensor) -> Tensor:
        """Rearrange outputs of patches to pixels, ``(B, H, W, n_classes)``."""
        (rows, columns), side = self.grid, self.patch_size
        cells = logits_BTC.reshape(-1, rows, columns, side, side, self.n_classes)
        logits_BHWC = cells.transpose(2, 3).reshape(
            -1, rows * side, columns * side, self.n_classes
        )
        if logits_BHWC.shape[1:3] == self.size:
            return logits_BHWC
        # Enlarge the outputs of images that were shrunk.
        larger_BCHW = F.interpolate(
            logits_BHWC.permute(0, 3, 1, 2), self.size, mode="bilinear", align_corners=False
        )
        return larger_BCHW.permute(0, 2, 3, 1)


def shrunk(images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Images shrunk to ``size``, ``(height, width)``, by the mean over areas."""
    if tuple(images_BCHW.shape[-2:]) == size:
        return images_BCHW
    return F.adaptive_avg_pool2d(images_BCHW, size)


def to_patches(images_BCHW: Tensor, side: int, tall: int | None = None) -> Tensor:
    """``(B, C, H, W)`` to ``(B, T, C * tall * side)``, patches in reading order.

    Patches are ``side`` wide and ``tall`` high, by default square.
    """
    batch, channels, height, width = images_BCHW.shape
    tall = side if tall is None else tall
    rows, columns = height // tall, width // side
    grid = images_BCHW.reshape(batch, channels, rows, tall, columns, side)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
