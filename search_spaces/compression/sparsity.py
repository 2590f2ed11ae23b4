"""Masks of weights: 2:4, whose zeros CUDA kernels skip, and unstructured, which no kernel skips.

2:4 keeps the two largest of each four consecutive weights along the input: Mishra et al. 2021,
"Accelerating Sparse Deep Neural Networks". On CUDA the masked weight becomes torch's
semi-structured tensor, whose product is the sparse tensor-core kernel. Elsewhere, and for
unstructured masks everywhere, the mask is *simulated* and saves nothing
(``search_spaces.architecture.simulated``).

A network recovers by a fine-tune that keeps its zeros:

```python
masks = Masks.of(model, architecture)  # prunes the model now
for inputs, targets in batches:
    loss(model(inputs), targets).backward()
    optimizer.step()
    masks.apply_()
```

``apply.compress`` then prunes the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.architecture import UNSTRUCTURED, Architecture, Sparsity
from search_spaces.compression.torch_internals import searched_sparse_products
from search_spaces.cost.kernels import SPARSE_CUDA_MULTIPLE


@dataclass(frozen=True, slots=True)
class Masks:
    """Masked weights of a network.

    ``weights`` are the network's own parameters, ``masks`` boolean tensors of the same shapes,
    True where a weight stays.
    """

    weights: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: nn.Module, architecture: Architecture) -> Masks:
        """Make and apply masks by magnitude for every sparse block.

        Raises:
            ValueError: a layer's shape has no such mask; the message names the layer.
        """
        weights: list[Tensor] = []
        masks: list[Tensor] = []
        for placed in architecture.placed_blocks:
            sparsity = placed.spec.compression.sparsity
            if sparsity == "dense":
                continue
            # By parameter, not by layer type: wrappers for quantisation-aware training are
            # masked too.
            for path, weight in model.get_submodule(placed.path).named_parameters():
                if weight.ndim == 2:
                    layer = path.removesuffix(".weight")
                    weights.append(weight)
                    masks.append(make_mask(weight, sparsity, f"{placed.path}.{layer}"))
        made = cls(tuple(weights), tuple(masks))
        made.apply_()
        return made

    def apply_(self) -> None:
        """Zero the masked weights; call it after each optimiser step."""
        with torch.no_grad():
            for weight, mask in zip(self.weights, self.masks, strict=True):
                weight.mul_(mask)


def make_mask(weight: Tensor, sparsity: Sparsity, name: str) -> Tensor:
    """Make a boolean mask over ``weight`` ``(d_out, d_in)``, True where a weight stays.

    Unstructured masks keep the largest weights of the whole matrix; ties go to the first.

    Raises:
        ValueError: the shape has no such mask; ``name`` is the layer's.
    """
    if sparsity == "2:4":
        return mask_2_4(weight, name)
    n_zero = round(UNSTRUCTURED[sparsity] * weight.numel())
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.ones_like(order, dtype=torch.bool)
    mask[order[len(order) - n_zero :]] = False
    return mask.reshape(weight.shape)


def mask_2_4(weight: Tensor, name: str = "weight") -> Tensor:
    """Make a boolean mask, True for the two largest of each four weights of a row.

    Raises:
        ValueError: the input size is not divisible by 4.
    """
    rows, columns = weight.shape
    if columns % 4:
        raise ValueError(f"{name} must have an input size divisible by 4 for 2:4, got {columns}")
    groups = weight.detach().abs().reshape(rows, columns // 4, 4)
    largest = groups.topk(2, dim=-1).indices
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, largest, True)
    return mask.reshape(rows, columns)


def prune(block: nn.Module, name: str, sparsity: Sparsity) -> None:
    """Mask the weight of every ``Linear`` under ``block`` by magnitude, in place.

    Raises:
        ValueError: a layer's shape has no such mask; the message has ``name`` and the layer.
    """
    for inner, linear in _linears(block):
        with torch.no_grad():
            linear.weight.mul_(make_mask(linear.weight, sparsity, f"{name}.{inner}"))


def _linears(block: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in block.named_modules() if isinstance(m, nn.Linear)]


def to_sparse_kernels(block: nn.Module, name: str) -> None:
    """Convert masked CUDA weights to semi-structured tensors, in place.

    Raises:
        ValueError: a layer's shape has no sparse kernel.
    """
    from torch.sparse import to_sparse_semi_structured

    for inner, linear in _linears(block):
        shape = (linear.out_features, linear.in_features)
        if any(size % SPARSE_CUDA_MULTIPLE for size in shape):
            raise ValueError(
                f"{name}.{inner} must have sizes divisible by {SPARSE_CUDA_MULTIPLE} for 2:4 "
                f"kernels, got {shape}"
            )
        sparse = to_sparse_semi_structured(linear.weight.detach())
        linear.weight = nn.Parameter(sparse, requires_grad=False)


def search_sparse_algorithms(model: nn.Module, run: Callable[[], object]) -> None:
    """Choose cuSPARSELt's algorithm for each sparse product of ``model``, in place.

    The fastest depends on shapes, so the library tries all in ``run``, a pass of ``model``.
    Without a search every product runs the library's first algorithm.
    """
    from torch.sparse import SparseSemiStructuredTensorCUSPARSELT

    weights: list[Any] = [
        linear.weight
        for _, linear in _linears(model)
        if isinstance(linear.weight, SparseSemiStructuredTensorCUSPARSELT)
    ]
    if not weights:
        return
    with searched_sparse_products() as algorithms, torch.no_grad():
        run()
    for weight in weights:
        # A layer that did not run keeps the first algorithm.
        default = weight.alg_id_cusparselt
        weight.alg_id_cusparselt = algorithms.get(weight.packed.data_ptr(), default)
