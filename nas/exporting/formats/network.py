"""The networks that forms are made from, read from an artifact's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.training.weights import load_any_network, read_description
from search_spaces.architecture import Architecture, Compression, LayerSpec
from search_spaces.architecture.blocks import Spec
from search_spaces.compression.apply import compress
from search_spaces.workload import Workload


def searched_network(folder: Path, *, device: str = "cpu") -> nn.Module:
    """The network of the artifact as it runs: compressed."""
    architecture, _ = read_description(folder)
    return compress(load_any_network(folder).to(device), architecture)


def fp32_network(folder: Path) -> nn.Module:
    """The same with its trained weights in fp32; zeros of a sparsity stay zeros."""
    architecture, _ = read_description(folder)
    return compress(load_any_network(folder), in_fp32(architecture))


def in_fp32(architecture: Architecture) -> Architecture:
    """``architecture`` with every block in fp32, as sparse as it is."""
    return replace(
        architecture,
        layers=tuple(
            LayerSpec(_in_fp32(layer.attention), _in_fp32(layer.ffn))
            for layer in architecture.layers
        ),
    )


def blank_inputs(workload: Workload, *, batch: int) -> Tensor:
    """Inputs of the right shape that tell nothing of anybody's data: some formats keep them."""
    dtype = torch.float32 if workload.is_image else torch.int64
    return torch.ones((batch, *workload.input_shape), dtype=dtype)


def _in_fp32(spec: Spec) -> Spec:
    return replace(spec, compression=Compression("fp32", spec.compression.sparsity))
