"""Second moments of activations, and cuts of projections that lose the least of their outputs.

A projection that loses inputs is adapted to those that are left: the weights of the others are
replaced by their regression on them (least squares, as in Optimal Brain Surgeon, Hassibi & Stork
1993, and ZipLM, Kurtic et al. 2023, arXiv 2302.04089). A factorisation minimises the error of
outputs on the data rather than of weights: the SVD is taken of the weight times a root of the
inputs' moments (SVD-LLM, Wang et al. 2024, arXiv 2403.07378).

Moments are of inputs with a constant 1 appended, so that they contain the mean.

Shape legend: O d_out, I d_in, J inputs and a constant, K kept inputs (and a constant), R removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from search_spaces.models.blocks import Layer
from search_spaces.models.pooling import token_mask
from search_spaces.models.projection import FactorisedLinear, Weights, truncated_svd
from search_spaces.models.transformer import Transformer

# Added to the diagonal, as a share of its mean: inputs may depend on each other.
_DAMPING = 1e-3
# What moments are of, in the order of a layer's projections; see ``LayerMoments``.
READ = ("attention", "heads", "ffn", "channels")


@dataclass(frozen=True, slots=True)
class LayerMoments:
    """Moments ``(J, J)`` of what one layer's projections read; ``None`` where not computed.

    ``attention`` are of the input of queries, keys and values, ``heads`` of their output
    projection's, ``ffn`` of the feed-forward block's, ``channels`` of its last projection's.
    """

    attention: Tensor | None = None
    heads: Tensor | None = None
    ffn: Tensor | None = None
    channels: Tensor | None = None

    def to(self, device: torch.device) -> LayerMoments:
        """Return the moments on ``device``."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return LayerMoments(
            **{n: None if part is None else part.to(device) for n, part in parts.items()}
        )


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of every layer's inputs."""

    layers: tuple[LayerMoments, ...]


def moments_of(
    model: Transformer, batches: Iterable[Tensor], names: Collection[str] = READ
) -> Moments:
    """Compute the moments ``names`` of ``model`` on ``batches`` of training inputs.

    Padding is left out. ``model`` is unchanged.

    Raises:
        ValueError: no batch was given.
    """
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    sums: list[dict[str, Tensor]] = [{} for _ in layers]
    n_samples = 0
    keep: list[Tensor | None] = [None]

    def add(
        module: nn.Module, of_layer: dict[str, Tensor], name: str
    ) -> torch.utils.hooks.RemovableHandle:
        def read(_: nn.Module, arguments: tuple[Tensor]) -> None:
            x_BTI = arguments[0].detach()
            rows_NI = x_BTI.flatten(0, 1) if keep[0] is None else x_BTI[keep[0]]
            rows_NJ = torch.cat([rows_NI, rows_NI.new_ones(len(rows_NI), 1)], dim=1).float()
            product_JJ = rows_NJ.T @ rows_NJ
            of_layer[name] = of_layer[name] + product_JJ if name in of_layer else product_JJ

        return module.register_forward_pre_hook(read)

    with ExitStack() as stack, torch.no_grad():
        for layer, of_layer in zip(layers, sums, strict=True):
            readers = (layer.attention.q, layer.attention.o, layer.ffn.up, layer.ffn.down)
            for name, module in zip(READ, readers, strict=True):
                if name in names:
                    stack.callback(add(module, of_layer, name).remove)
        for inputs in batches:
            keep[0] = None
            if model.has_padding:
                read = inputs if model.n_read is None else inputs[:, : model.n_read]
                keep[0] = token_mask(read, model.padding_token)
            model(inputs)
            n_samples += len(inputs)
    if not n_samples:
        raise ValueError("batches must hold one or more batches of training inputs, got none")
    return Moments(
        tuple(
            LayerMoments(**{name: total / total[-1, -1] for name, total in of_layer.items()})
            for of_layer in sums
        )
    )


def cut(
    weights: Weights, kept_I: Tensor, moments_JJ: Tensor | None
) -> tuple[Weights, Tensor | None]:
    """Return ``weights`` with the inputs ``kept_I`` only, and the moments of these.

    Without moments, or where all inputs are kept in order, weights are selected as they are.
    """
    n_inputs = weights.factors[-1].shape[1]
    selected = weights.inputs(kept_I)
    if moments_JJ is None:
        return selected, None
    is_kept_I = torch.zeros(n_inputs, dtype=torch.bool, device=kept_I.device)
    is_kept_I[kept_I] = True
    constant = torch.tensor([n_inputs], device=kept_I.device)
    kept_K = torch.cat([kept_I, constant])
    of_kept_KK = moments_JJ[kept_K][:, kept_K]
    removed_R = (~is_kept_I).nonzero().flatten()
    if not len(removed_R):
        return selected, of_kept_KK
    has_bias = weights.bias is not None
    used_K = kept_K if has_bias else kept_I
    left_KK = moments_JJ[used_K][:, used_K].double()
    left_KK = left_KK + _DAMPING * left_KK.diagonal().mean() * torch.eye(
        len(used_K), dtype=left_KK.dtype, device=left_KK.device
    )
    # The regression of removed inputs on those that are left.
    across_KR = moments_JJ[used_K][:, removed_R].double()
    regression_KR = torch.cholesky_solve(across_KR, torch.linalg.cholesky(left_KK))
    weight_OI = weights.product().double()
    added_OK = weight_OI[:, removed_R] @ regression_KR.T
    n_kept = len(kept_I)
    changed_OK = weight_OI[:, kept_I] + added_OK[:, :n_kept]
    dtype, bias = weights.factors[0].dtype, weights.bias
    if bias is not None:
        bias = bias + added_OK[:, n_kept].to(dtype)
    return Weights((changed_OK.to(dtype),), bias), of_kept_KK


def write(weights: Weights, projection: nn.Module, moments_JJ: Tensor | None) -> None:
    """Copy ``weights`` into ``projection``; a new factorisation loses the least of outputs."""
    is_new = isinstance(projection, FactorisedLinear) and not (
        len(weights.factors) == 2 and weights.factors[1].shape[0] == projection.reduce.out_features
    )
    if moments_JJ is None or not is_new:
        weights.write_to(projection)
        return
    assert isinstance(projection, FactorisedLinear)
    inputs_II = moments_JJ[:-1, :-1].double()
    inputs_II = inputs_II + _DAMPING * inputs_II.diagonal().mean() * torch.eye(
        len(inputs_II), dtype=inputs_II.dtype, device=inputs_II.device
    )
    root_II = torch.linalg.cholesky(inputs_II)
    weight_OI = weights.product()
    reduce_RI, expand_OR = truncated_svd(
        weight_OI.double() @ root_II, projection.reduce.out_features
    )
    # ``reduce`` reads inputs, not their whitened form.
    reduce_RI = torch.linalg.solve_triangular(root_II, reduce_RI, upper=False, left=False)
    Weights((expand_OR.to(weight_OI.dtype), reduce_RI.to(weight_OI.dtype)), weights.bias).write_to(
        projection
    )
