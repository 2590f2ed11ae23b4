"""Quantisation-aware training: round in the forward pass, so that weights adapt to rounding.

Weights and activations take the values that torchao's quantised tensors give them; the backward
pass treats rounding as the identity (straight-through estimator, Bengio et al. 2013;
quantisation-aware training, Jacob et al. 2018). The trained weights are plain fp32, which
``compress`` then quantises. torchao's own fake quantiser is not used: it rounds activations
asymmetrically, its int8 kernels symmetrically (0.18).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import PRECISIONS, Architecture, Precision
from search_spaces.architecture.layer_kinds import PLAIN
from search_spaces.compression.quantize import (
    DTYPES,
    rounded_activations,
    rounded_weight,
    torchao_config,
)
from search_spaces.models.transformer import Transformer

# Precisions that torchao rounds to. bf16 is a cast, which seldom costs accuracy.
FAKE_QUANTISED: tuple[Precision, ...] = tuple(p for p in PRECISIONS if p not in PLAIN)


def is_quantised(architecture: Architecture) -> bool:
    """Whether a block of ``architecture`` has a precision that torchao rounds to."""
    return any(b.compression.precision in FAKE_QUANTISED for b in architecture.blocks)


def fake_quantised(model: Transformer, architecture: Architecture) -> Transformer:
    """Return a copy of ``model`` whose quantised blocks round in the forward pass.

    Parameters keep their names, so that ``model.load_state_dict`` accepts the copy's.

    Raises:
        ValueError: no block of ``architecture`` is quantised.
    """
    if not is_quantised(architecture):
        raise ValueError(
            f"architecture must have a block of {', '.join(FAKE_QUANTISED)}, "
            f"got {architecture.describe()}"
        )
    fake = copy.deepcopy(model)
    device = next(model.parameters()).device.type
    for placed in architecture.placed_blocks:
        precision = placed.spec.compression.precision
        if precision in FAKE_QUANTISED:
            _replace_linears(fake.get_submodule(placed.path), precision, device)
    return fake


class FakeQuantisedLinear(nn.Module):
    """A ``Linear`` that computes with rounded values, with straight-through gradients."""

    def __init__(self, linear: nn.Linear, precision: Precision, device_type: str = "cpu") -> None:
        """Share the parameters of ``linear``."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._config = torchao_config(precision, device_type)
        self._dtype = DTYPES.get(precision, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., d_in)`` to ``(..., d_out)``."""
        rounded, activations = rounded_weight(self.weight, self._config, self._dtype)
        weight = _straight_through(self.weight, rounded)
        if activations is not None:
            x = _straight_through(x, rounded_activations(x, activations))
        return F.linear(x, weight, self.bias)


def _replace_linears(block: nn.Module, precision: Precision, device_type: str) -> None:
    for name, module in list(block.named_children()):
        if isinstance(module, nn.Linear):
            setattr(block, name, FakeQuantisedLinear(module, precision, device_type))
        else:
            _replace_linears(module, precision, device_type)


def _straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    return value + (rounded.to(value.dtype) - value).detach()
