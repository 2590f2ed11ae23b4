"""Structured pruning: importance of attention heads and feed-forward channels, and selection.

The remaining heads and channels make a smaller dense network, which every kernel runs faster.

Shape legend: Q query heads, K key-value heads, G query heads to a key-value head, E d_head,
D d_model, F d_ff, B batch, T tokens, M key-value heads merged into one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import AttentionSpec
from search_spaces.models.blocks import Layer
from search_spaces.models.projection import Weights
from search_spaces.models.transformer import Transformer

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Importance:
    """Scores of query heads and feed-forward channels of every layer; larger matters more.

    ``heads[layer]`` has shape ``(n_heads,)``, ``channels[layer]`` shape ``(d_ff,)``. Scores are
    compared within a layer only. ``layers[depth - 1, layer]``, ``(n_layers, n_layers)``, is true
    for the layers that stay at each depth; ``None`` where they are not scored.
    """

    heads: tuple[Tensor, ...]
    channels: tuple[Tensor, ...]
    layers: Tensor | None = None


def magnitude_importance(model: Transformer) -> Importance:
    """Score by weights alone: the norm of the map that a head or channel adds to the stream.

    A head adds a weighted mean over tokens of ``W_o (W_v x + b_v)``, so its score is the
    Frobenius norm of ``W_o [W_v, b_v]``; a channel's is the norm of its row of ``up``, bias
    included, times that of its column of ``down``, and with a gate times that of its row of
    ``gate``. The gain and shift of the norm that feeds the block are folded in first. A score is
    0 if and only if the head or channel adds nothing.
    """
    heads, channels = [], []
    with torch.no_grad():
        before = model.embed_norm
        for layer in _layers(model):
            attention = layer.attention
            is_pre_norm = model.style.is_pre_norm
            into_attention = layer.attention_norm if is_pre_norm else before
            into_ffn = layer.ffn_norm if is_pre_norm else layer.attention_norm
            before = layer.ffn_norm
            values_KED = _folded(attention.v, into_attention).reshape(
                attention.n_kv_heads, attention.d_head, -1
            )
            out_DD = Weights.of(attention.o).product()
            out_DQE = out_DD.reshape(-1, attention.n_heads, attention.d_head)
            values_QED = values_KED.repeat_interleave(
                attention.n_heads // attention.n_kv_heads, dim=0
            )
            added_QDD = torch.einsum("dqe,qei->qdi", out_DQE, values_QED)
            heads.append(added_QDD.flatten(1).norm(dim=1))
            down_DF = Weights.of(layer.ffn.down).product()
            scores_F = _folded(layer.ffn.up, into_ffn).norm(dim=1) * down_DF.norm(dim=0)
            if layer.ffn.gate is not None:
                scores_F = scores_F * _folded(layer.ffn.gate, into_ffn).norm(dim=1)
            channels.append(scores_F)
    return Importance(tuple(heads), tuple(channels))


def taylor_importance(
    model: Transformer,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: Loss | None = None,
    is_fisher: bool = False,
) -> Importance:
    """First-order Taylor scores: change of the loss if a head or channel were removed.

    Each head's or channel's output is multiplied by a gate of 1; the score is the mean over
    samples of the absolute gradient of the sample's loss by the gate, which equals
    ``|sum w * dL/dw|`` over the weights that read that output. Sources: Michel et al. 2019,
    equation 2 (heads); Molchanov et al. 2019, section 3.1 (channels). ``model`` is unchanged.

    With ``is_fisher`` gradients are squared: the diagonal of the empirical Fisher information of
    the gates (Kwon et al. 2022, section 4.2).

    Args:
        model: the trained network.
        batches: ``(inputs, targets)`` on the model's device, of *training* data only: other data
            would leak into the pruned network.
        loss: from logits and targets to the batch's mean loss; cross-entropy by default.
        is_fisher: whether gradients are squared.

    Raises:
        ValueError: no batch was given.
    """
    layers = _layers(model)
    heads = [torch.zeros(layer.attention.n_heads) for layer in layers]
    channels = [torch.zeros(len(Weights.of(layer.ffn.up).factors[0])) for layer in layers]
    n_samples = 0
    for inputs, targets in batches:
        gates, logits = _gated(model, layers, inputs, [len(c) for c in channels])
        mean_loss = (loss or _cross_entropy)(logits, targets)
        gradients = torch.autograd.grad(mean_loss, gates)
        for index in range(len(layers)):
            for scores, gradient in (
                (heads[index], gradients[2 * index]),
                (channels[index], gradients[2 * index + 1]),
            ):
                # The loss is a mean over samples: scale gradients to those of single samples.
                of_sample = gradient.abs() * len(inputs)
                scores += (of_sample**2 if is_fisher else of_sample).sum(dim=(0, 1)).cpu()
        n_samples += len(inputs)
    if n_samples == 0:
        raise ValueError("batches must hold one or more batches of training data, got none")
    return Importance(
        tuple(scores / n_samples for scores in heads),
        tuple(scores / n_samples for scores in channels),
    )


@dataclass(frozen=True, slots=True)
class HeadSelection:
    """Selected query heads ``(Q,)`` and key-value heads ``(K, M)``, averaged over ``M``."""

    queries: Tensor
    keys: Tensor


def choose_heads(
    scores_Q: Tensor, teacher: AttentionSpec, student: AttentionSpec, where: str
) -> HeadSelection:
    """Select heads so that each selected query still reads its own key-value head.

    With fewer queries a group, the groups whose best queries score highest stay. With more
    queries a group than the teacher has, neighbouring groups share the mean of their key-value
    heads (Ainslie et al. 2023, section 2.1). Ties go to the first head.

    Raises:
        ValueError: too few key-value heads for such groups; ``where`` names the block.
    """
    group = teacher.n_heads // teacher.n_kv_heads
    group_size = student.n_heads // student.n_kv_heads
    merged = math.ceil(group_size / group)
    if student.n_kv_heads * merged > teacher.n_kv_heads:
        raise ValueError(
            f"{where}.n_kv_heads must be at most {teacher.n_kv_heads // merged} with {group_size} "
            f"query heads to each, as the teacher has {teacher.n_kv_heads} of {group}, "
            f"got {student.n_kv_heads}"
        )
    scores_KG = scores_Q.reshape(teacher.n_kv_heads, group)
    best_K = scores_KG.sort(dim=1, descending=True).values[:, : min(group, group_size)].sum(dim=1)
    keys_KM = largest_indices(best_K, student.n_kv_heads * merged).reshape(-1, merged)
    queries = []
    for keys_M in keys_KM:
        members = (keys_M[:, None] * group + torch.arange(group, device=keys_M.device)).flatten()
        queries.append(members[largest_indices(scores_Q[members], group_size)])
    return HeadSelection(torch.cat(queries), keys_KM)


def largest_indices(scores: Tensor, n: int) -> Tensor:
    """Indices of the ``n`` largest scores, ascending; ties go to the first."""
    return scores.argsort(descending=True, stable=True)[:n].sort().values


def _layers(model: Transformer) -> list[Layer]:
    return [layer for layer in model.layers if isinstance(layer, Layer)]


def _folded(projection: nn.Module, norm: nn.Module | None) -> Tensor:
    """Weight and bias with the norm's gain and shift folded in, ``(d_out, d_in + 1)``."""
    weights = Weights.of(projection)
    weight_OI = weights.product()
    bias_O = weight_OI.new_zeros(len(weight_OI)) if weights.bias is None else weights.bias
    if isinstance(norm, nn.LayerNorm):
        bias_O = bias_O + weight_OI @ norm.bias
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        weight_OI = weight_OI * norm.weight
    return torch.cat([weight_OI, bias_O[:, None]], dim=1)


def _gated(
    model: Transformer, layers: list[Layer], inputs: Tensor, widths: list[int]
) -> tuple[list[Tensor], Tensor]:
    """Gates of ones, for heads then channels of each layer, and the logits through them."""
    gates: list[Tensor] = []

    def gate(module: nn.Module, n: int) -> torch.utils.hooks.RemovableHandle:
        gate_B1N = torch.ones(len(inputs), 1, n, device=inputs.device, requires_grad=True)
        gates.append(gate_B1N)

        def multiply(_: nn.Module, arguments: tuple[Tensor]) -> Tensor:
            x_BTN = arguments[0]
            return x_BTN * gate_B1N.repeat_interleave(x_BTN.shape[-1] // n, dim=-1)

        return module.register_forward_pre_hook(multiply)

    with ExitStack() as stack:
        for layer, width in zip(layers, widths, strict=True):
            stack.callback(gate(layer.attention.o, layer.attention.n_heads).remove)
            stack.callback(gate(layer.ffn.down, width).remove)
        logits: Tensor = model(inputs)
    return gates, logits


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())
