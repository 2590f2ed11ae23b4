"""The whole network: embedding, layers, norm, head.

Shape legend: B batch, T tokens, D d_model, C channels, P patch side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.models.blocks import Layer
from search_spaces.workload import Workload

# Position vectors start at a size comparable with the embedded input: with the usual 0.02 small
# vision models took several times as many epochs to tell patches apart.
_POSITION_STD = 0.5


class PatchEmbedding(nn.Module):
    """Non-overlapping square patches of an image, each mapped to ``d_model``."""

    def __init__(self, channels: int, patch_size: int, d_model: int) -> None:
        """Build the map."""
        super().__init__()
        self.patch_size = patch_size
        self.project = nn.Linear(channels * patch_size**2, d_model)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, T, D)``, patches in reading order."""
        side = self.patch_size
        batch, channels, height, width = images_BCHW.shape
        rows, columns = height // side, width // side
        grid = images_BCHW.reshape(batch, channels, rows, side, columns, side)
        patches_BTP = grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        out_BTD: Tensor = self.project(patches_BTP)
        return out_BTD


class Transformer(nn.Module):
    """Encoder with a mean-pooled classifier, or causal decoder with a language-model head."""

    def __init__(self, architecture: Architecture, workload: Workload) -> None:
        """Build the network with torch's default initialisation."""
        super().__init__()
        d_model, tokens = architecture.d_model, workload.n_tokens(architecture)
        self.is_causal = workload.is_causal
        self.is_image = workload.is_image
        self.embed: nn.Module
        if workload.is_image:
            self.embed = PatchEmbedding(workload.input_shape[0], architecture.patch_size, d_model)
        else:
            self.embed = nn.Embedding(workload.vocab_size or 1, d_model)
        self.position_TD = nn.Parameter(torch.randn(tokens, d_model) * _POSITION_STD)
        self.layers = nn.ModuleList(
            Layer(d_model, spec, is_causal=workload.is_causal) for spec in architecture.layers
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, workload.n_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` or tokens ``(B, T)`` to logits.

        Returns:
            ``(B, n_classes)``, or ``(B, T, n_classes)`` for language modelling.
        """
        if self.is_image:
            inputs = inputs.to(self.position_TD.dtype)
        x_BTD = self.embed(inputs)
        # A decoder may read fewer tokens than it has positions for.
        x_BTD = x_BTD + self.position_TD[: x_BTD.shape[1]]
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        x_BTD = self.norm(x_BTD)
        logits: Tensor = self.head(x_BTD if self.is_causal else x_BTD.mean(dim=1))
        return logits
