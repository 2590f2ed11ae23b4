"""Scores of whole layers: the order in which a network loses them at the least cost.

Shape legend: L layers, N samples, T tokens, D d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.compression.prune import Loss
from search_spaces.models.transformer import Transformer

Batches = Sequence[tuple[Tensor, Tensor]]
# How layers were compared; see ``layer_order``.
Method = Literal["greedy loss", "loss", "block influence"]

# Layer passes over a sample that scoring may take, in multiplications: a minute or two of a core.
_MOST_MACS = 4e12


@dataclass(frozen=True, slots=True)
class LayerOrder:
    """Scores ``(L,)``, larger for layers to keep longer, and how they were found."""

    scores: Tensor
    method: Method


def layer_order(
    model: Transformer, batches: Batches, loss: Loss, *, most_macs: float = _MOST_MACS
) -> LayerOrder:
    """Score the layers of ``model`` on ``batches`` of training data.

    * *greedy loss*: the layer without which the loss is least goes first, then the one without
      which it is least beside that, and so on; a score is the place in this order.
    * *loss*: the loss without each layer alone, where greedy takes more than ``most_macs``.
    * *block influence*: ``1 - cos(input, output)``, from one pass, where that does too (Men et al.
      2024, arXiv 2403.03853).

    ``model`` is unchanged.

    Raises:
        ValueError: no batch was given.
    """
    if not batches:
        raise ValueError("batches must hold one or more batches of training data, got none")
    depth = len(model.layers)
    pass_macs = _macs_of_a_layer(model, batches)
    n_greedy = sum(n * (n + 1) for n in range(1, depth))
    if pass_macs * n_greedy <= most_macs:
        return LayerOrder(_greedy(model, batches, loss), "greedy loss")
    if pass_macs * depth * (depth - 1) <= most_macs:
        layers = list(model.layers)
        losses = [
            _loss_of(model, layers[:index] + layers[index + 1 :], batches, loss)
            for index in range(depth)
        ]
        return LayerOrder(torch.tensor(losses), "loss")
    return LayerOrder(_influence(model, batches), "block influence")


def _macs_of_a_layer(model: Transformer, batches: Batches) -> float:
    """Multiplications of one layer on all batches; attention products are left out."""
    n_tokens = sum(model.embedded(inputs[:1]).shape[1] * len(inputs) for inputs, _ in batches)
    n_weights = sum(parameter.numel() for parameter in model.layers[0].parameters())
    return float(n_tokens * n_weights)


def _greedy(model: Transformer, batches: Batches, loss: Loss) -> Tensor:
    layers, left = list(model.layers), list(range(len(model.layers)))
    scores_L = torch.zeros(len(left))
    for place in range(len(left) - 1):
        losses = {
            index: _loss_of(model, [layers[i] for i in left if i != index], batches, loss)
            for index in left
        }
        first = min(left, key=lambda index: losses[index])
        scores_L[first] = place
        left.remove(first)
    scores_L[left[0]] = len(layers) - 1
    return scores_L


@torch.no_grad()
def _loss_of(
    model: Transformer, layers: Sequence[nn.Module], batches: Batches, loss: Loss
) -> float:
    """Mean loss of ``model`` with these layers only."""
    whole, total, n_samples = model.layers, 0.0, 0
    model.layers = nn.ModuleList(layers)
    try:
        for inputs, targets in batches:
            total += float(loss(model(inputs), targets)) * len(inputs)
            n_samples += len(inputs)
    finally:
        model.layers = whole
    return total / n_samples


@torch.no_grad()
def _influence(model: Transformer, batches: Batches) -> Tensor:
    sums_L = torch.zeros(len(model.layers))

    def read(index: int) -> object:
        def add(_: nn.Module, arguments: tuple[Tensor, ...], out_BTD: Tensor) -> None:
            cosines_BT = F.cosine_similarity(arguments[0], out_BTD, dim=-1)
            sums_L[index] += float((1 - cosines_BT).mean(dim=1).sum())

        return model.layers[index].register_forward_hook(add)

    handles = [read(index) for index in range(len(model.layers))]
    try:
        for inputs, _ in batches:
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    return sums_L / sum(len(inputs) for inputs, _ in batches)
