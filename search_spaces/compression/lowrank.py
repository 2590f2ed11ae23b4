"""Low-rank factors of a trained weight, by truncated singular value decomposition.

The truncated decomposition has the least error of all matrices of its rank, in the Frobenius and
the spectral norm: Eckart & Young 1936, Mirsky 1960.
"""

from __future__ import annotations

import torch
from torch import Tensor


def truncated_svd(weight_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the nearest product ``expand @ reduce`` of ``rank``.

    Each factor gets the square root of the singular values, so that both learn at one speed in a
    fine-tune. Computed in double precision.

    Args:
        weight_OI: a weight of shape ``(d_out, d_in)``.
        rank: from 1 to the smaller of both sizes.

    Returns:
        ``reduce`` of shape ``(rank, d_in)`` and ``expand`` of shape ``(d_out, rank)``.

    Raises:
        ValueError: the rank is out of range.
    """
    most = min(weight_OI.shape)
    if not 1 <= rank <= most:
        raise ValueError(f"rank must be in 1..{most} for {tuple(weight_OI.shape)}, got {rank}")
    u_OK, s_K, v_KI = torch.linalg.svd(weight_OI.detach().double(), full_matrices=False)
    root_R = s_K[:rank].sqrt()
    reduce_RI = root_R[:, None] * v_KI[:rank]
    expand_OR = u_OK[:, :rank] * root_R
    return reduce_RI.to(weight_OI.dtype), expand_OR.to(weight_OI.dtype)
