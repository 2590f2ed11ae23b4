"""Precision of one block: casts, and torchao's int8, fp8 and int4. The one door to torchao."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.architecture import INT4_GROUP_SIZE, Precision
from search_spaces.compression.padded import pad_rows
from search_spaces.cost.kernels import least_rows, size_multiples

# Type of a block's plain tensors, which its products read. int8 reads the stream's type; fp8 by
# rows and the weight-only products need bf16.
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp8": torch.bfloat16,
    "int8wo": torch.bfloat16,
    "int4wo": torch.bfloat16,
}
_FP8_CAPABILITY = (8, 9)
_INT4_CAPABILITY = (8, 0)


def quantize_linears(block: nn.Module, name: str, precision: Precision) -> None:
    """Replace the weight of every ``Linear`` under ``block`` by its quantised form, in place.

    Activations are quantised when they come (int8 per token, fp8 per row) or, with the
    weight-only precisions, stay in bf16. ``name`` is what the block is called in errors.

    Raises:
        ValueError: a layer's shape or the device has no such kernel; no layer is ever skipped.
    """
    linears = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear)}
    for inner, linear in linears.items():
        _check_shape(f"{name}.{inner}", linear, precision)
    # torchao allows TF32 for the whole process, which would change later fp32 models.
    matmul_precision = torch.get_float32_matmul_precision()
    with quiet_torchao():
        from torchao.quantization import quantize_

        device = next(block.parameters()).device
        config = torchao_config(precision, device.type)
        quantize_(block, config, filter_fn=lambda module, _: isinstance(module, nn.Linear))
    torch.set_float32_matmul_precision(matmul_precision)
    for inner, linear in linears.items():
        actual = weight_precision(linear)
        if actual != precision:
            raise ValueError(f"{name}.{inner} must become {precision}, but became {actual}")
    if (fewest := least_rows(precision, device.type)) > 1:
        pad_rows(block, fewest)


def torchao_config(precision: Precision, device_type: str = "cpu") -> Any:
    """Configuration of torchao for ``precision`` on a device of that type.

    None changes the compiler's settings. torchao's defaults switch on coordinate-descent tuning
    for the whole process, which takes most of a minute for each kind of layer on a GPU.

    Raises:
        ValueError: the precision is none of torchao's.
    """
    with quiet_torchao():
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            Int4WeightOnlyConfig,
            Int8DynamicActivationInt8WeightConfig,
            Int8WeightOnlyConfig,
            PerRow,
        )
        from torchao.quantization.quantize_.workflows import Int4PackingFormat
    match precision:
        case "int8":
            return Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
        case "fp8":
            return Float8DynamicActivationFloat8WeightConfig(
                granularity=PerRow(), set_inductor_config=False
            )
        case "int8wo":
            return Int8WeightOnlyConfig(set_inductor_config=False)
        case "int4wo" if device_type == "cpu":
            with quiet_torchao():
                # torchao 0.18 has the only 4-bit product for CPUs here.
                from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
            return PrototypeInt4WeightOnlyConfig(
                group_size=INT4_GROUP_SIZE, set_inductor_config=False
            )
        case "int4wo":
            return Int4WeightOnlyConfig(
                group_size=INT4_GROUP_SIZE,
                int4_packing_format=Int4PackingFormat.TILE_PACKED_TO_4D,
                set_inductor_config=False,
            )
        case _:
            raise ValueError(f"precision must be one of torchao's, got {precision!r}")


def torchao_description(precision: Precision) -> dict[str, Any]:
    """Return ``torchao_config`` as plain data for JSON, which names torchao's class."""
    config = torchao_config(precision)
    from torchao.core.config import config_to_dict

    described: dict[str, Any] = config_to_dict(config)
    return described


def dequantised_weight(linear: nn.Linear) -> Tensor:
    """Return the weight that the layer's quantised one stands for, in its own type."""
    weight: Any = linear.weight.data
    dequantised: Tensor = weight.dequantize()
    return dequantised


def is_quantized(linear: nn.Linear) -> bool:
    """Whether the layer's weight is one of torchao's quantised tensors."""
    return type(linear.weight.data).__module__.startswith("torchao.")


def weight_precision(linear: nn.Linear) -> str:
    """Return the precision of the layer's weight: one of ours, or its type's name."""
    weight = linear.weight.data
    if not is_quantized(linear):
        plain = {torch.float32: "fp32", torch.bfloat16: "bf16"}
        return plain.get(weight.dtype, str(weight.dtype))
    name = type(weight).__name__
    is_dynamic = getattr(weight, "act_quant_kwargs", None) is not None
    if name == "Int8Tensor":
        return "int8" if is_dynamic else "int8wo"
    if name == "Float8Tensor" and is_dynamic:
        return "fp8"
    is_four_bit = name in ("Int4OpaqueTensor", "Int4TilePackedTo4dTensor")
    return "int4wo" if is_four_bit else name


def rounded_weight(weight: Tensor, config: Any, dtype: torch.dtype) -> tuple[Tensor, Any]:
    """Return ``weight`` as quantised, and how activations are quantised, ``None`` if not."""
    with quiet_torchao():
        from torchao.quantization import quantize_

    with torch.no_grad():
        holder = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        holder.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        # torchao sets this for the whole process; training in fp32 must not change with it.
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


def rounded_activations(x: Tensor, how: Any) -> Tensor:
    """Return ``x`` quantised per row as the product quantises it, and dequantised.

    Raises:
        RuntimeError: torchao has no such function; the message names versions that have.
    """
    try:
        from torchao.quantization.quantize_.common import _choose_quant_func_and_quantize_tensor
    except ImportError as error:
        raise RuntimeError(
            f"quantisation-aware training must have torchao 0.18, and cannot use this one: {error}"
        ) from None

    with torch.no_grad():
        # Products quantise rows of a matrix: all dimensions but the last are one.
        rows = _choose_quant_func_and_quantize_tensor(x.detach().reshape(-1, x.shape[-1]), how)
        return rows.dequantize().reshape(x.shape)  # type: ignore[no-any-return]


def _check_shape(name: str, linear: nn.Linear, precision: Precision) -> None:
    device = linear.weight.device
    on_cuda = device.type == "cuda"
    capability = torch.cuda.get_device_capability(device) if on_cuda else None
    if precision == "fp8" and (capability is None or capability < _FP8_CAPABILITY):
        raise ValueError(f"precision fp8 must run on CUDA with SM >= 8.9, got {device}")
    if precision == "int4wo" and capability is not None and capability < _INT4_CAPABILITY:
        raise ValueError(
            f"precision int4wo must run on a CPU or CUDA with SM >= 8.0, got {device}"
        )
    multiples = size_multiples(precision, on_cuda)
    shape = (linear.in_features, linear.out_features)
    if any(size % multiple for size, multiple in zip(shape, multiples, strict=True)):
        allowed = (
            f"sizes divisible by {multiples[0]}"
            if multiples[0] == multiples[1]
            else f"an input size divisible by {multiples[0]} and an output size by {multiples[1]}"
        )
        raise ValueError(f"{name} must have {allowed} for {precision}, got {shape}")


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """Silence warnings of importing torchao: missing CUDA libraries, an enum that it registers."""
    loggers = [logging.getLogger(n) for n in ("torchao", "torch.utils._pytree")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
