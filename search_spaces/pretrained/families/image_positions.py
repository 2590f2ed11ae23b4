"""Position tables of images interpolated to another size, as ``transformers`` does.

Shape legend: T tokens, D d_model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Resizing:
    """How a family interpolates: with a low-pass filter or without, and in which type."""

    antialias: bool = False
    in_fp32: bool = False


def resized(table_TD: Tensor, n_prefix: int, rows: int, columns: int, how: Resizing) -> Tensor:
    """Return the table of ``n_prefix`` tokens and ``rows`` times ``columns`` patches.

    The positions of prefix tokens stay. Those of patches are of a square and are interpolated
    bicubically (Dosovitskiy et al. 2021, section 3.2).
    """
    # Describing a family needs no torch.
    import torch
    import torch.nn.functional as F

    prefix_TD, patches_TD = table_TD[:n_prefix], table_TD[n_prefix:]
    side = math.isqrt(len(patches_TD))
    is_wide = table_TD.dtype == torch.float64 and not how.in_fp32
    values = patches_TD.to(torch.float64 if is_wide else torch.float32)
    larger = F.interpolate(
        values.T.reshape(1, -1, side, side),
        size=(rows, columns),
        mode="bicubic",
        align_corners=False,
        antialias=how.antialias,
    )
    return torch.cat([prefix_TD, larger[0].flatten(1).T.to(table_TD.dtype)])
