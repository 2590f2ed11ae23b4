"""2:4 sparsity: of each four consecutive weights along the input, the two largest stay.

Source: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks". On CUDA the masked weight
becomes torch's semi-structured tensor, whose product is the sparse tensor-core kernel. Elsewhere
there is no such kernel: the mask alone is a *simulation*, which saves nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# What cuSPARSELt takes in bf16.
_CUDA_MULTIPLE = 64


def mask_2_4(weight: Tensor) -> Tensor:
    """A boolean mask, True where a weight stays: two of each four along the last dimension.

    Raises:
        ValueError: the last dimension is not divisible by 4.
    """
    rows, columns = weight.shape
    if columns % 4:
        raise ValueError(f"columns must be divisible by 4 for 2:4, got {columns}")
    groups = weight.abs().reshape(rows, columns // 4, 4)
    kept = groups.topk(2, dim=-1).indices
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, kept, True)
    return mask.reshape(rows, columns)


def prune_2_4(block: nn.Module, name: str) -> None:
    """Zero half of the weights of every ``Linear`` under ``block``, in place.

    Raises:
        ValueError: a layer's input size is not divisible by 4; ``name`` and the layer are said.
    """
    for inner, module in block.named_modules():
        if isinstance(module, nn.Linear):
            if module.in_features % 4:
                raise ValueError(
                    f"{name}.{inner} must have an input size divisible by 4 for 2:4, "
                    f"got {module.in_features}"
                )
            with torch.no_grad():
                module.weight.mul_(mask_2_4(module.weight))


def to_sparse_kernels(block: nn.Module, name: str) -> None:
    """Make masked CUDA weights run as sparse products, in place.

    Raises:
        ValueError: a layer's shape has no sparse kernel.
    """
    from torch.sparse import to_sparse_semi_structured

    for inner, module in block.named_modules():
        if isinstance(module, nn.Linear):
            shape = (module.out_features, module.in_features)
            if any(size % _CUDA_MULTIPLE for size in shape):
                raise ValueError(
                    f"{name}.{inner} must have sizes divisible by {_CUDA_MULTIPLE} for 2:4 "
                    f"kernels, got {shape}"
                )
            sparse = to_sparse_semi_structured(module.weight.detach())
            module.weight = nn.Parameter(sparse, requires_grad=False)
