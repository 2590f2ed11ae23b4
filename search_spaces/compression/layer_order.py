"""Which layers of a network stay at each depth, at the least loss.

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
Method = Literal["loss of sets", "loss of layers", "block influence"]

# Multiplications that the choice may take: a minute or two of a core.
_MOST_MACS = 4e12
# Sets of one depth from which smaller ones are made.
_WIDEST_BEAM = 8


@dataclass(frozen=True, slots=True)
class LayerOrder:
    """Layers to keep, ``keeps[depth - 1, layer]`` of shape ``(L, L)``, and how they were found."""

    keeps: Tensor
    method: Method


def layer_order(
    model: Transformer, batches: Batches, loss: Loss, *, most_macs: float = _MOST_MACS
) -> LayerOrder:
    """Choose the layers of ``model`` to keep at each depth, on ``batches`` of training data.

    * *loss of sets*: of the best sets of one depth every layer is left out in turn, and the best
      of those sets go on (a beam search, as wide as ``most_macs`` allows).
    * *loss of layers*: the layers without which alone the loss is largest, where that is less.
    * *block influence*: those of the largest ``1 - cos(input, output)``, from one pass (Men et al.
      2024, arXiv 2403.03853), where ``most_macs`` allows no more.

    ``model`` is unchanged.

    Raises:
        ValueError: no batch was given.
    """
    if not batches:
        raise ValueError("batches must hold one or more batches of training data, got none")
    depth = len(model.layers)
    pass_macs = _macs_of_a_layer(model, batches)
    n_passes = sum(n * (n + 1) for n in range(1, depth))
    beam = int(min(_WIDEST_BEAM, most_macs / (pass_macs * max(1, n_passes))))
    if beam >= 1:
        return LayerOrder(_searched(model, batches, loss, beam), "loss of sets")
    if pass_macs * depth * (depth - 1) <= most_macs:
        layers = list(model.layers)
        losses = [
            _loss_of(model, layers[:index] + layers[index + 1 :], batches, loss)
            for index in range(depth)
        ]
        return LayerOrder(_kept_by(torch.tensor(losses)), "loss of layers")
    return LayerOrder(_kept_by(_influence(model, batches)), "block influence")


def _kept_by(scores_L: Tensor) -> Tensor:
    """Keep the layers of the largest scores at each depth."""
    keeps_LL = torch.zeros(len(scores_L), len(scores_L), dtype=torch.bool)
    order = scores_L.argsort(descending=True, stable=True)
    for index in range(len(scores_L)):
        keeps_LL[index, order[: index + 1]] = True
    return keeps_LL


def _macs_of_a_layer(model: Transformer, batches: Batches) -> float:
    """Multiplications of one layer on all batches; attention products are left out."""
    n_tokens = sum(model.embedded(inputs[:1]).shape[1] * len(inputs) for inputs, _ in batches)
    n_weights = sum(parameter.numel() for parameter in model.layers[0].parameters())
    return float(n_tokens * n_weights)


def _searched(model: Transformer, batches: Batches, loss: Loss, beam: int) -> Tensor:
    layers, depth = list(model.layers), len(model.layers)
    keeps_LL = torch.zeros(depth, depth, dtype=torch.bool)
    keeps_LL[-1] = True
    best = [tuple(range(depth))]
    for left in range(depth - 1, 0, -1):
        sets = {kept[:at] + kept[at + 1 :] for kept in best for at in range(left + 1)}
        losses = {kept: _loss_of(model, [layers[i] for i in kept], batches, loss) for kept in sets}
        best = sorted(sets, key=lambda kept: (losses[kept], kept))[:beam]
        keeps_LL[left - 1, list(best[0])] = True
    return keeps_LL


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
