"""Data augmentation: shifted and mirrored images, and token dropout.

Each combination of shift and mirroring is a numbered version of an image, so that a teacher's
outputs for all versions can be tabulated.

Shape legend: B batch, T tokens, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.training.config import TrainingConfig
from nas.training.objective import MovingTargets
from search_spaces.workload import PADDING_TOKEN


def n_versions(inputs: Tensor, config: TrainingConfig) -> int | None:
    """Return the number of versions of a sample, ``None`` if they are not numbered."""
    if inputs.ndim == 2 and config.token_dropout > 0:
        return None
    return _n_shifts(inputs, config) * (2 if _flips(inputs, config) else 1)


def augment(
    inputs: Tensor,
    config: TrainingConfig,
    generator: torch.Generator,
    padding_token: int = PADDING_TOKEN,
) -> tuple[Tensor, Tensor | None]:
    """Augment a batch; also return the version of each sample ``(B,)`` if it is numbered.

    Dropped tokens become padding. Source: Iyyer et al. 2015, section 3.2.
    """
    if n_versions(inputs, config) is None:
        uniform_BT = torch.rand(inputs.shape, generator=generator).to(inputs.device)
        return inputs.masked_fill(uniform_BT < config.token_dropout, padding_token), None
    versions_B = _draw_versions(inputs, config, generator)
    return make_versions(inputs, versions_B, config), versions_B


def make_versions(inputs: Tensor, versions_B: Tensor, config: TrainingConfig) -> Tensor:
    """Return the numbered version of each sample; shifted images repeat their border."""
    n_shifts = _n_shifts(inputs, config)
    if _flips(inputs, config):
        is_flipped_B111 = (versions_B >= n_shifts)[:, None, None, None]
        inputs = torch.where(is_flipped_B111, inputs.flip(-1), inputs)
        versions_B = versions_B % n_shifts
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


def moved_targets(targets: Tensor, versions_B: Tensor | None, config: TrainingConfig) -> Tensor:
    """Return the targets of augmented samples: per-pixel targets move with the pixels."""
    if targets.ndim != 3 or versions_B is None:
        return targets
    # Replication padding requires floats, which represent class numbers exactly.
    return make_versions(targets[:, None].float(), versions_B, config)[:, 0].long()


def moved_with(
    inputs: Tensor,
    targets: Tensor,
    versions_B: Tensor | None,
    config: TrainingConfig,
    objective: object,
) -> Tensor:
    """Return the targets of augmented ``inputs``, moved as ``objective`` says if it does."""
    if versions_B is None or not isinstance(objective, MovingTargets):
        return moved_targets(targets, versions_B, config)
    n_shifts, most = _n_shifts(inputs, config), _most(inputs, config)
    places_B, side = versions_B % n_shifts, 2 * most + 1
    # The first version shows what is furthest above and to the left.
    shift_B2 = most - torch.stack([places_B % side, places_B // side], dim=1)
    height, width = inputs.shape[-2:]
    return objective.moved(targets, versions_B >= n_shifts, shift_B2, (height, width))


def _draw_versions(inputs: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    most, n = _most(inputs, config), len(inputs)
    versions_B = torch.zeros(n, dtype=torch.int64)
    if most > 0:
        side = 2 * most + 1
        offsets_2B = torch.randint(0, side, (2, n), generator=generator)
        versions_B = offsets_2B[0] * side + offsets_2B[1]
    if _flips(inputs, config):
        is_flipped_B = torch.randint(0, 2, (n,), generator=generator)
        versions_B = versions_B + is_flipped_B * _n_shifts(inputs, config)
    return versions_B.to(inputs.device)


def _n_shifts(inputs: Tensor, config: TrainingConfig) -> int:
    return (2 * _most(inputs, config) + 1) ** 2


def _flips(inputs: Tensor, config: TrainingConfig) -> bool:
    return config.flip_images and inputs.ndim == 4


def _most(inputs: Tensor, config: TrainingConfig) -> int:
    return config.shift_pixels if inputs.ndim == 4 else 0
