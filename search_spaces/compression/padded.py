"""Linear layers that pad batches of too few rows for their kernel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# Rows are padded to whole tiles of tensor cores.
_TILE = 32


class PaddedLinear(nn.Linear):
    """A ``Linear`` whose product takes at least ``least_rows`` rows; zeros are added to fewer.

    Products that quantise each row by itself give the same numbers as without.
    """

    least_rows: int

    @classmethod
    def of(cls, linear: nn.Linear, least_rows: int) -> PaddedLinear:
        """The same layer, with the same parameters."""
        padded = cls(
            linear.in_features, linear.out_features, linear.bias is not None, device="meta"
        )
        padded.weight, padded.bias = linear.weight, linear.bias
        padded.least_rows = least_rows
        return padded.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., d_in)`` to ``(..., d_out)``."""
        rows = x.reshape(-1, x.shape[-1])
        n_rows = rows.shape[0]
        if n_rows >= self.least_rows:
            return super().forward(x)
        n_padded = -(-self.least_rows // _TILE) * _TILE
        out = super().forward(F.pad(rows, (0, 0, 0, n_padded - n_rows)))
        return out[:n_rows].reshape(*x.shape[:-1], -1)


def pad_rows(block: nn.Module, least_rows: int) -> None:
    """Have every ``Linear`` under ``block`` pad to ``least_rows`` rows, in place."""
    for module in list(block.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, PaddedLinear.of(child, least_rows))
