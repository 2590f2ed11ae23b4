"""Load an artifact's network in the forms that formats convert."""

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


def compressed_network(folder: Path) -> nn.Module:
    """Return the artifact's network on the CPU, compressed as in the search."""
    architecture, _ = read_description(folder)
    return compress(load_any_network(folder), architecture)


def fp32_network(folder: Path) -> nn.Module:
    """Return the network in fp32; weights that sparsity set to zero stay zero."""
    architecture, _ = read_description(folder)
    return compress(load_any_network(folder), in_fp32(architecture))


def in_fp32(architecture: Architecture) -> Architecture:
    """Return ``architecture`` with every block in fp32 and its sparsity unchanged."""

    def convert(spec: Spec) -> Spec:
        return replace(spec, compression=Compression("fp32", spec.compression.sparsity))

    layers = tuple(LayerSpec(convert(each.attention), convert(each.ffn)) for each in
                   architecture.layers)  # fmt: skip
    return replace(architecture, layers=layers)


def blank_inputs(workload: Workload, *, batch: int) -> Tensor:
    """Return inputs of ones: some formats store them, and the user's data are private."""
    dtype = torch.float32 if workload.is_image else torch.int64
    return torch.ones((batch, *workload.input_shape), dtype=dtype)
