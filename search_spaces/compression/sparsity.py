"""Masks of weights: 2:4, whose zeros CUDA kernels skip, and unstructured, whose zeros none does.

2:4 keeps the two largest of each four consecutive weights along the input: Mishra et al. 2021,
"Accelerating Sparse Deep Neural Networks". On CUDA the masked weight becomes torch's
semi-structured tensor, whose product is the sparse tensor-core kernel. Elsewhere, and for
unstructured masks everywhere, the mask is a *simulation*, which saves nothing
(``search_spaces.architecture.simulated``).

A network recovers by training on with its zeros held:

```python
masks = Masks.of(model, architecture)  # prunes the model now
for inputs, targets in batches:
    loss(model(inputs), targets).backward()
    optimizer.step()
    masks.apply_()
```

``apply.compress`` then finds the same weights to be the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.architecture import UNSTRUCTURED, Architecture, Sparsity
from search_spaces.compression.torch_internals import searched_sparse_products

# What cuSPARSELt takes in bf16.
_CUDA_MULTIPLE = 64


@dataclass(frozen=True, slots=True)
class Masks:
    """The weights of a network that some mask rules, each with what of it stays.

    ``weights`` are the network's own parameters, ``kept`` boolean tensors of the same shapes.
    """

    weights: tuple[Tensor, ...]
    kept: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: nn.Module, architecture: Architecture) -> Masks:
        """Masks by magnitude of every block that asks for sparsity, applied at once.

        Raises:
            ValueError: a layer's shape has no such mask; the layer is named.
        """
        weights: list[Tensor] = []
        kept: list[Tensor] = []
        for index, spec in enumerate(architecture.layers):
            for name, block in (("attention", spec.attention), ("ffn", spec.ffn)):
                sparsity = block.compression.sparsity
                if sparsity != "dense":
                    where = f"layers.{index}.{name}"
                    # By parameter and not by layer type, so that layers which wrap a weight for
                    # quantisation-aware training are masked too.
                    for path, weight in model.get_submodule(where).named_parameters():
                        if weight.ndim == 2:
                            layer = path.removesuffix(".weight")
                            weights.append(weight)
                            kept.append(make_mask(weight, sparsity, f"{where}.{layer}"))
        masks = cls(tuple(weights), tuple(kept))
        masks.apply_()
        return masks

    def apply_(self) -> None:
        """Zero what does not stay; call it after each step of the optimiser."""
        with torch.no_grad():
            for weight, kept in zip(self.weights, self.kept, strict=True):
                weight.mul_(kept)


def make_mask(weight: Tensor, sparsity: Sparsity, name: str) -> Tensor:
    """A boolean mask over ``weight`` ``(d_out, d_in)``, True where a weight stays.

    Unstructured masks keep the largest of the whole matrix; ties go to the first.

    Raises:
        ValueError: the shape has no such mask; ``name`` is the layer's.
    """
    if sparsity == "2:4":
        if weight.shape[1] % 4:
            raise ValueError(
                f"{name} must have an input size divisible by 4 for 2:4, got {weight.shape[1]}"
            )
        return mask_2_4(weight)
    n_zero = round(UNSTRUCTURED[sparsity] * weight.numel())
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.ones_like(order, dtype=torch.bool)
    mask[order[len(order) - n_zero :]] = False
    return mask.reshape(weight.shape)


def mask_2_4(weight: Tensor) -> Tensor:
    """A boolean mask, True where a weight stays: two of each four along the last dimension.

    Raises:
        ValueError: the last dimension is not divisible by 4.
    """
    rows, columns = weight.shape
    if columns % 4:
        raise ValueError(f"columns must be divisible by 4 for 2:4, got {columns}")
    groups = weight.detach().abs().reshape(rows, columns // 4, 4)
    kept = groups.topk(2, dim=-1).indices
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, kept, True)
    return mask.reshape(rows, columns)


def prune(block: nn.Module, name: str, sparsity: Sparsity) -> None:
    """Mask the weight of every ``Linear`` under ``block`` by magnitude, in place.

    Raises:
        ValueError: a layer's shape has no such mask; ``name`` and the layer are said.
    """
    for inner, linear in _linears(block):
        with torch.no_grad():
            linear.weight.mul_(make_mask(linear.weight, sparsity, f"{name}.{inner}"))


def _linears(block: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in block.named_modules() if isinstance(m, nn.Linear)]


def to_sparse_kernels(block: nn.Module, name: str) -> None:
    """Make masked CUDA weights run as sparse products, in place.

    Raises:
        ValueError: a layer's shape has no sparse kernel.
    """
    from torch.sparse import to_sparse_semi_structured

    for inner, linear in _linears(block):
        shape = (linear.out_features, linear.in_features)
        if any(size % _CUDA_MULTIPLE for size in shape):
            raise ValueError(
                f"{name}.{inner} must have sizes divisible by {_CUDA_MULTIPLE} for 2:4 "
                f"kernels, got {shape}"
            )
        sparse = to_sparse_semi_structured(linear.weight.detach())
        linear.weight = nn.Parameter(sparse, requires_grad=False)


def search_sparse_algorithms(model: nn.Module, run: Callable[[], object]) -> None:
    """Choose cuSPARSELt's algorithm for each sparse product of ``model``, in place.

    Which is fastest depends on shapes, so the library tries them at those that ``run`` gives, a
    pass of ``model``. Without a search every product runs the library's first algorithm.
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
