"""Linear projections of blocks: full, or two factors of low rank."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.architecture import is_factorised


class FactorisedLinear(nn.Module):
    """``d_in -> rank -> d_out``, with a bias on the second factor only."""

    def __init__(self, d_in: int, d_out: int, rank: int) -> None:
        """Build both factors."""
        super().__init__()
        self.reduce = nn.Linear(d_in, rank, bias=False)
        self.expand = nn.Linear(rank, d_out)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., d_in)`` to ``(..., d_out)``."""
        out: Tensor = self.expand(self.reduce(x))
        return out


def make_projection(d_in: int, d_out: int, rank: int | None) -> nn.Module:
    """Make a ``Linear``, or two factors where ``rank`` saves weights."""
    if rank is not None and is_factorised(d_in, d_out, rank):
        return FactorisedLinear(d_in, d_out, rank)
    return nn.Linear(d_in, d_out)
