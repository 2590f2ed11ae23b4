"""Shifts of training images, numbered so that a teacher's outputs for each can be kept.

Shape legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.training.config import TrainingConfig


def n_versions(inputs: Tensor, config: TrainingConfig) -> int:
    """In how many versions training may show one sample of ``inputs``."""
    return (2 * _most(inputs, config) + 1) ** 2


def draw_versions(inputs: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """A version for each sample, ``(B,)``; draws nothing where there is only one."""
    most = _most(inputs, config)
    if most == 0:
        return torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    side = 2 * most + 1
    rows_B, columns_B = torch.randint(0, side, (2, len(inputs)), generator=generator)
    return (rows_B * side + columns_B).to(inputs.device)


def make_versions(inputs: Tensor, versions_B: Tensor, config: TrainingConfig) -> Tensor:
    """Each sample in the version of that number; edges repeat the border's value."""
    most = _most(inputs, config)
    if most == 0:
        return inputs
    _, _, height, width = inputs.shape
    side = 2 * most + 1
    padded_BCHW = F.pad(inputs, (most,) * 4, mode="replicate")
    rows_BH = (versions_B // side)[:, None] + torch.arange(height, device=inputs.device)
    columns_BW = (versions_B % side)[:, None] + torch.arange(width, device=inputs.device)
    sample_B11 = torch.arange(len(inputs), device=inputs.device)[:, None, None]
    # Advanced indices around the channel slice put channels last.
    shifted_BHWC = padded_BCHW[sample_B11, :, rows_BH[:, :, None], columns_BW[:, None, :]]
    return shifted_BHWC.permute(0, 3, 1, 2)


def _most(inputs: Tensor, config: TrainingConfig) -> int:
    return config.shift_pixels if inputs.ndim == 4 else 0
