"""Transformer with one stack of layers: embedding, layers, norm, head.

Shape legend: B batch, T tokens, D d_model, C channels, P patch side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.models.blocks import Layer
from search_spaces.models.style import make_norm, positions, token_embedding
from search_spaces.workload import PADDING_TOKEN, Workload


class PatchEmbedding(nn.Module):
    """Non-overlapping square patches of an image, each mapped to ``d_model``.

    Images of another size than ``size``, ``(height, width)``, are shrunk to it first.
    """

    def __init__(
        self, channels: int, patch_size: int, d_model: int, size: tuple[int, int]
    ) -> None:
        """Build the map."""
        super().__init__()
        self.patch_size, self.size = patch_size, size
        self.project = nn.Linear(channels * patch_size**2, d_model)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, T, D)``, patches in reading order."""
        out_BTD: Tensor = self.project(to_patches(shrunk(images_BCHW, self.size), self.patch_size))
        return out_BTD


class Transformer(nn.Module):
    """An encoder with a head on the mean, on each token or for each pixel, or a causal decoder."""

    def __init__(self, architecture: Architecture, workload: Workload) -> None:
        """Build the network; embeddings and positions start small, the rest as in torch."""
        super().__init__()
        d_model, tokens = architecture.d_model, workload.n_tokens(architecture)
        self.is_causal, self.is_pooled = workload.is_causal, workload.is_pooled
        self.is_image, self.is_dense = workload.is_image, workload.is_dense
        self.n_classes, self.patch_size = workload.n_classes, architecture.patch_size
        # Tokens of a text that are read; ``None`` for all.
        self.n_read = None if workload.is_image else architecture.resolution
        # In segmentation: the grid of patches, and the size of the outputs.
        self.grid, self.size = (0, 0), (0, 0)
        if workload.is_dense:
            height, width = workload.image_size(architecture)
            self.grid = (height // self.patch_size, width // self.patch_size)
            self.size = (workload.input_shape[1], workload.input_shape[2])
        self.embed: nn.Module
        if workload.is_image:
            self.embed = PatchEmbedding(
                workload.input_shape[0],
                architecture.patch_size,
                d_model,
                workload.image_size(architecture),
            )
        else:
            self.embed = token_embedding(workload.vocab_size or 1, d_model)
        self.position_TD = positions(workload, tokens, d_model)
        self.layers = nn.ModuleList(
            Layer(d_model, spec, is_causal=workload.is_causal) for spec in architecture.layers
        )
        self.norm = make_norm(d_model)
        per_token = workload.n_classes * (self.patch_size**2 if workload.is_dense else 1)
        self.head = nn.Linear(d_model, per_token)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` or tokens ``(B, T)`` to logits.

        The padding token is masked in attention and pooling, except in language modelling. Texts
        are cut to the architecture's resolution.

        Returns:
            ``(B, n_classes)``; ``(B, T, n_classes)`` for language modelling; ``(B, H, W,
            n_classes)`` for segmentation; ``(B, 2, T)`` for question answering: scores of
            each token as an answer's first and last.
        """
        inputs = self._read(inputs)
        keep_BT = self._kept(inputs)
        x_BTD = self._embedded(inputs)
        for layer in self.layers:
            x_BTD = layer(x_BTD, keep_BT)
        return self._logits(x_BTD, keep_BT)

    def with_features(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """``forward``'s logits, and the pooled stream after each layer, ``(B, L, D)``."""
        inputs = self._read(inputs)
        keep_BT = self._kept(inputs)
        x_BTD = self._embedded(inputs)
        pooled: list[Tensor] = []
        for layer in self.layers:
            x_BTD = layer(x_BTD, keep_BT)
            pooled.append(pool(x_BTD, keep_BT))
        return self._logits(x_BTD, keep_BT), torch.stack(pooled, dim=1)

    def _read(self, inputs: Tensor) -> Tensor:
        return inputs if self.n_read is None else inputs[:, : self.n_read]

    def _kept(self, inputs: Tensor) -> Tensor | None:
        return None if self.is_image or self.is_causal else token_mask(inputs)

    def _embedded(self, inputs: Tensor) -> Tensor:
        if self.is_image:
            inputs = inputs.to(self.position_TD.dtype)
        x_BTD: Tensor = self.embed(inputs)
        # A decoder may read fewer tokens than it has positions for.
        return x_BTD + self.position_TD[: x_BTD.shape[1]]

    def _logits(self, x_BTD: Tensor, keep_BT: Tensor | None) -> Tensor:
        x_BTD = self.norm(x_BTD)
        if self.is_pooled:
            pooled: Tensor = self.head(pool(x_BTD, keep_BT))
            return pooled
        logits_BTC: Tensor = self.head(x_BTD)
        if self.is_dense:
            return self._pixels(logits_BTC)
        return logits_BTC if self.is_causal else logits_BTC.transpose(1, 2)

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


def to_patches(images_BCHW: Tensor, side: int) -> Tensor:
    """``(B, C, H, W)`` to ``(B, T, C * side**2)``, square patches in reading order."""
    batch, channels, height, width = images_BCHW.shape
    rows, columns = height // side, width // side
    grid = images_BCHW.reshape(batch, channels, rows, side, columns, side)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


def token_mask(tokens_BT: Tensor) -> Tensor:
    """Mask of the tokens that are no padding, ``(B, T)``."""
    first_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) == 0
    # The first token always counts, so that no sample is empty.
    return (tokens_BT != PADDING_TOKEN) | first_T


def pool(x_BTD: Tensor, keep_BT: Tensor | None) -> Tensor:
    """Mean over the tokens of the mask, ``(B, D)``."""
    if keep_BT is None:
        return x_BTD.mean(dim=1)
    keep_BT1 = keep_BT.unsqueeze(-1).to(x_BTD.dtype)
    return (x_BTD * keep_BT1).sum(dim=1) / keep_BT1.sum(dim=1)
