"""Load an artifact's network in the forms that formats convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from nas.tasks.base.artifact_files import CHECK
from nas.training.weights import load_any_network, read_description
from search_spaces.compression.apply import compress
from search_spaces.runtimes.converting import in_fp32
from search_spaces.workload import Workload


def compressed_network(folder: Path) -> nn.Module:
    """Return the artifact's network on the CPU, compressed as in the search."""
    architecture, _ = read_description(folder)
    return compress(load_any_network(folder), architecture)


def fp32_network(folder: Path) -> nn.Module:
    """Return the network in fp32; weights that sparsity set to zero stay zero."""
    architecture, _ = read_description(folder)
    return compress(load_any_network(folder), in_fp32(architecture))


def blank_inputs(workload: Workload, *, batch: int) -> Tensor:
    """Return inputs of ones: some formats store them, and the user's data are private."""
    dtype = torch.float32 if workload.is_image else torch.int64
    return torch.ones((batch, *workload.input_shape), dtype=dtype)


def check_arrays(folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the artifact's stored batch of real inputs, and the expected outputs in fp32."""
    check = load_file(str(folder / CHECK))
    return check["inputs"].numpy(), check["outputs"].float().numpy()
