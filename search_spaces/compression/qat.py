"""Networks that train as if quantised, so that their weights bear it.

In the forward pass weights and activations take the values that torchao's quantised tensors give
them; in the backward pass rounding counts as the identity (straight-through estimator, Bengio et
al. 2013; quantisation-aware training, Jacob et al. 2018). What is trained are plain fp32 weights,
which ``compress`` then quantises like any others. torchao's own fake quantiser is not used, since
it rounds activations asymmetrically and its int8 kernels symmetrically (0.18).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import PRECISIONS, Architecture, Precision
from search_spaces.architecture.layer_kinds import PLAIN
from search_spaces.compression.quantize import DTYPES, torchao_config
from search_spaces.models.transformer import Transformer

# Precisions that torchao rounds to. bf16 is a cast, which costs accuracy only in odd cases.
FAKE_QUANTISED: tuple[Precision, ...] = tuple(p for p in PRECISIONS if p not in PLAIN)


def is_quantised(architecture: Architecture) -> bool:
    """Whether a block of ``architecture`` could gain from quantisation-aware training."""
    return any(b.compression.precision in FAKE_QUANTISED for b in architecture.blocks)


def fake_quantised(model: Transformer, architecture: Architecture) -> Transformer:
    """A copy of ``model`` whose quantised blocks round in the forward pass.

    Parameters keep their names, so ``model.load_state_dict`` takes the copy's back.

    Raises:
        ValueError: no block of ``architecture`` is quantised.
    """
    if not is_quantised(architecture):
        raise ValueError(
            f"architecture must have a block of {', '.join(FAKE_QUANTISED)}, "
            f"got {architecture.describe()}"
        )
    fake = copy.deepcopy(model)
    device = model.position_TD.device.type
    for layer, spec in zip(fake.layers, architecture.layers, strict=True):
        for name, block_spec in (("attention", spec.attention), ("ffn", spec.ffn)):
            precision = block_spec.compression.precision
            if precision in FAKE_QUANTISED:
                _replace_linears(getattr(layer, name), precision, device)
    return fake


class FakeQuantisedLinear(nn.Module):
    """A ``Linear`` that computes with rounded values and learns as if they were not."""

    def __init__(self, linear: nn.Linear, precision: Precision, device_type: str = "cpu") -> None:
        """Take over the parameters of ``linear``."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._config = torchao_config(precision, device_type)
        self._dtype = DTYPES.get(precision, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., d_in)`` to ``(..., d_out)``."""
        rounded, activations = _rounded_weight(self.weight, self._config, self._dtype)
        weight = _straight_through(self.weight, rounded)
        if activations is not None:
            x = _straight_through(x, _round_trip(x, activations))
        return F.linear(x, weight, self.bias)


def _replace_linears(block: nn.Module, precision: Precision, device_type: str) -> None:
    for name, module in list(block.named_children()):
        if isinstance(module, nn.Linear):
            setattr(block, name, FakeQuantisedLinear(module, precision, device_type))
        else:
            _replace_linears(module, precision, device_type)


def _straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    return value + (rounded.to(value.dtype) - value).detach()


def _rounded_weight(weight: Tensor, config: Any, dtype: torch.dtype) -> tuple[Tensor, Any]:
    """What the product makes of ``weight``, and how it rounds activations, ``None`` if not."""
    # Imported already, and quietly, by ``torchao_config``.
    from torchao.quantization import quantize_

    with torch.no_grad():
        holder = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        holder.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        # torchao sets this for the whole process, which training in fp32 must not notice.
        matmul_precision = torch.get_float32_matmul_precision()
        quantize_(holder, config)
        torch.set_float32_matmul_precision(matmul_precision)
        quantised: Any = holder.weight.data
        activations = getattr(quantised, "act_quant_kwargs", None)
        if activations is not None:
            return quantised.dequantize(), activations
        # Packed weights cannot be read back (0.18), but the identity times them can.
        identity = torch.eye(weight.shape[1], dtype=dtype, device=weight.device)
        return holder(identity).T, None


def _round_trip(x: Tensor, how: Any) -> Tensor:
    """``x`` quantised as the product would quantise it when it comes, and back."""
    from torchao.quantization.quantize_.common import _choose_quant_func_and_quantize_tensor

    with torch.no_grad():
        # Products quantise rows of a matrix: all dimensions but the last are one.
        rows = _choose_quant_func_and_quantize_tensor(x.detach().reshape(-1, x.shape[-1]), how)
        return rows.dequantize().reshape(x.shape)  # type: ignore[no-any-return]
