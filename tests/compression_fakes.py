"""Small networks with compressed blocks."""

import shutil

import pytest
import torch
from torch import nn

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 16)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="int8 compiles C++")


def make(attention="fp32", ffn="fp32", sparsity="dense", rank=None, d_model=32):
    layer = LayerSpec(
        AttentionSpec(4, 2, d_model // 4, rank, Compression(attention, sparsity)),
        FfnSpec(2 * d_model, rank, Compression(ffn, sparsity)),
    )
    return Architecture(d_model, (layer, layer), patch_size=2)


def inputs():
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def linears(module):
    return [m for m in module.modules() if isinstance(m, nn.Linear)]
