"""Precision of one block: casts, and dynamic int8 or fp8 by torchao. The one door to torchao."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from search_spaces.architecture import Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
# cuBLASLt's scaled product takes multiples of 16, the int8 product multiples of 8.
_FP8_MULTIPLE = 16
_INT8_CUDA_MULTIPLE = 8
_FP8_CAPABILITY = (8, 9)


def quantize_linears(block: nn.Module, name: str, precision: Precision) -> None:
    """Replace the weight of every ``Linear`` under ``block`` by its int8 or fp8 form, in place.

    Activations are quantised when they come: int8 per token, fp8 per row. ``name`` is what the
    block is called in errors.

    Raises:
        ValueError: a layer's shape or the device has no such kernel; no layer is ever skipped.
    """
    linears = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear)}
    for inner, linear in linears.items():
        _check_shape(f"{name}.{inner}", linear, precision)
    with quiet_torchao():
        from torchao.quantization import quantize_

        config = torchao_config(precision)
        quantize_(block, config, filter_fn=lambda module, _: isinstance(module, nn.Linear))
    for inner, linear in linears.items():
        if not is_quantized(linear):
            raise ValueError(f"{name}.{inner} must become {precision}, but kept its plain weight")


def torchao_config(precision: Precision) -> Any:
    """How torchao is told of ``precision``."""
    with quiet_torchao():
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            Int8DynamicActivationInt8WeightConfig,
            PerRow,
        )
    if precision == "int8":
        return Int8DynamicActivationInt8WeightConfig()
    return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())


def is_quantized(linear: nn.Linear) -> bool:
    """Whether the layer's weight is one of torchao's quantised tensors."""
    return type(linear.weight.data).__module__.startswith("torchao.")


def _check_shape(name: str, linear: nn.Linear, precision: Precision) -> None:
    device = linear.weight.device
    if precision == "fp8":
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < _FP8_CAPABILITY:
            raise ValueError(f"precision fp8 must run on CUDA with SM >= 8.9, got {device}")
        multiple = _FP8_MULTIPLE
    else:
        multiple = _INT8_CUDA_MULTIPLE if device.type == "cuda" else 1
    shape = (linear.in_features, linear.out_features)
    if any(size % multiple for size in shape):
        raise ValueError(
            f"{name} must have sizes divisible by {multiple} for {precision}, got {shape}"
        )


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """Keep what torchao says on import, which has no bearing here, off the user's screen."""
    # On import torchao logs each CUDA library that a CPU build cannot load, and torch warns of
    # an enum that torchao registers: neither says anything about what is done here.
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
