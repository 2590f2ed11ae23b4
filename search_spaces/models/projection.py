"""Linear projections of blocks, full or as two factors of low rank, and copies of their weights.

Shape legend: O d_out, I d_in, M rows averaged to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import is_factorised


class FactorisedLinear(nn.Module):
    """``d_in -> rank -> d_out``; only the second factor may have a bias."""

    def __init__(self, d_in: int, d_out: int, rank: int, *, has_bias: bool = True) -> None:
        """Build both factors."""
        super().__init__()
        self.reduce = nn.Linear(d_in, rank, bias=False)
        self.expand = nn.Linear(rank, d_out, bias=has_bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., d_in)`` to ``(..., d_out)``."""
        out: Tensor = self.expand(self.reduce(x))
        return out


def make_projection(
    d_in: int, d_out: int, rank: int | None, *, has_bias: bool = True
) -> nn.Module:
    """Make a ``Linear``, or two factors where ``rank`` saves weights."""
    if rank is not None and is_factorised(d_in, d_out, rank):
        return FactorisedLinear(d_in, d_out, rank, has_bias=has_bias)
    return nn.Linear(d_in, d_out, bias=has_bias)


@dataclass(frozen=True, slots=True)
class Weights:
    """A projection's factors ``(d_out, ..., d_in)``, the last applied first, and its bias."""

    factors: tuple[Tensor, ...]
    bias: Tensor | None

    @classmethod
    def of(cls, projection: nn.Module) -> Weights:
        """Read a projection."""
        if isinstance(projection, FactorisedLinear):
            expand, reduce = projection.expand, projection.reduce
            return cls((expand.weight, reduce.weight), expand.bias)
        assert isinstance(projection, nn.Linear)
        return cls((projection.weight,), projection.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the projection."""
        *last, first = self.factors
        if not last:
            return F.linear(x, first, self.bias)
        return F.linear(F.linear(x, first), last[0], self.bias)

    def outputs(self, rows_MO: Tensor) -> Weights:
        """Select rows, the mean over ``m`` of ``rows_MO[m]``."""
        last, *others = self.factors
        bias = None if self.bias is None else self.bias[rows_MO].mean(dim=0)
        return Weights((last[rows_MO].mean(dim=0), *others), bias)

    def inputs(self, columns_I: Tensor) -> Weights:
        """Select columns."""
        *others, first = self.factors
        return Weights((*others, first[:, columns_I]), self.bias)

    def write_to(self, projection: nn.Module) -> None:
        """Copy into ``projection``, factorising or multiplying factors where forms differ."""
        if isinstance(projection, FactorisedLinear):
            rank = projection.reduce.out_features
            if len(self.factors) == 2 and self.factors[1].shape[0] == rank:
                expand_OR, reduce_RI = self.factors
            else:
                reduce_RI, expand_OR = truncated_svd(self.product(), rank)
            projection.reduce.weight.copy_(reduce_RI)
            projection.expand.weight.copy_(expand_OR)
            bias = projection.expand.bias
        else:
            assert isinstance(projection, nn.Linear)
            projection.weight.copy_(self.product())
            bias = projection.bias
        if self.bias is not None:
            bias.copy_(self.bias)

    def product(self) -> Tensor:
        """Return the weight ``(d_out, d_in)`` that the factors multiply to."""
        return self.factors[0] if len(self.factors) == 1 else self.factors[0] @ self.factors[1]


def truncated_svd(weight_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return ``reduce (rank, d_in)`` and ``expand (d_out, rank)``, whose product is nearest.

    The truncated decomposition has the least error of all matrices of its rank, in the Frobenius
    and the spectral norm (Eckart & Young 1936, Mirsky 1960). Each factor gets the square root of
    the singular values, so that both learn at one speed. Computed in double precision.

    Raises:
        ValueError: the rank is not from 1 to the smaller size of the weight.
    """
    most = min(weight_OI.shape)
    if not 1 <= rank <= most:
        raise ValueError(f"rank must be in 1..{most} for {tuple(weight_OI.shape)}, got {rank}")
    u_OK, s_K, v_KI = torch.linalg.svd(weight_OI.detach().double(), full_matrices=False)
    root_R = s_K[:rank].sqrt()
    reduce_RI = root_R[:, None] * v_KI[:rank]
    expand_OR = u_OK[:, :rank] * root_R
    return reduce_RI.to(weight_OI.dtype), expand_OR.to(weight_OI.dtype)
