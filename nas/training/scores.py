"""Scores of a trained network by which it is cut, computed once a run and shared by its workers.

They are computed on training data: Taylor scores of heads and channels, the order of layers, and
moments of activations (``search_spaces.compression``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from nas.core.files import Place, as_local, write_atomic
from nas.core.names import first_line
from nas.tasks.base import Split
from nas.training.buckets import lengths
from nas.training.objective import Objective, ScoringLoss
from search_spaces.compression.layer_order import layer_order
from search_spaces.compression.moments import READ, LayerMoments, Moments, moments_of
from search_spaces.compression.prune import Importance, Loss, taylor_importance
from search_spaces.models.projection import Weights
from search_spaces.models.transformer import Transformer

# Training samples that are scored, fewer where their passes would take minutes.
_MOST_SAMPLES, _FEWEST_SAMPLES = 512, 32
_MOST_MACS = 2e12
# Moments of a block's inputs grow with the square of its width.
_MOST_MOMENTS_BYTES = 1 << 29
# Samples of a pass, and their outputs: gradients of every gate of all of them are held at once.
_BATCH, _MOST_OUTPUTS = 32, 1 << 24
_METHOD = "layers_by"
# Weight of the loss beside the share of mistakes.
_OF_TIES = 1e-3


@dataclass(frozen=True, slots=True)
class Scores:
    """Importance of layers, heads and channels; moments; how layers were compared."""

    importance: Importance
    moments: Moments
    layers_by: str


def score(
    model: Transformer,
    split: Split,
    objective: Objective,
    *,
    device: str = "cpu",
    has_rank: bool = True,
) -> Scores:
    """Score ``model`` on the first samples of the training split.

    ``has_rank`` adds the moments that only factorisations need.
    """
    model = model.to(device).eval()
    batches = batches_of(model, split, device)
    loss: Loss = partial(objective.loss, label_smoothing=0.0)
    taylor_loss = objective.scoring_loss if isinstance(objective, ScoringLoss) else loss
    importance = taylor_importance(model, batches, loss=taylor_loss)
    order = layer_order(model, batches, partial(_mistakes, loss))
    names = [name for name in READ if has_rank or name in ("heads", "channels")]
    moments = moments_of(model, [batch for batch, _ in batches], _fitting(model, names))
    return Scores(
        Importance(importance.heads, importance.channels, order.keeps), moments, order.method
    )


def _mistakes(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of wrong classes, ties decided by the loss; the loss of other outputs.

    A network without some of its layers is too sure of its outputs, which the cross-entropy
    judges more than what it gets wrong.
    """
    mean_loss = loss(outputs, targets)
    if outputs.ndim != targets.ndim + 1 or targets.ndim != 1:
        return mean_loss
    return (outputs.argmax(dim=-1) != targets).float().mean() + _OF_TIES * mean_loss


def batches_of(
    model: Transformer, split: Split, device: str = "cpu"
) -> list[tuple[Tensor, Tensor]]:
    """Return the samples that ``score`` reads, texts by length and without common padding."""
    n_weights = sum(parameter.numel() for parameter in model.layers.parameters())
    most = _MOST_MACS / (3 * n_weights * model.n_positions)
    n = int(min(_MOST_SAMPLES, max(_FEWEST_SAMPLES, most)))
    inputs, targets = (torch.from_numpy(a[:n]).to(device) for a in (split.inputs, split.targets))
    size = _BATCH
    if model.predicts_tokens:
        size = max(1, min(size, _MOST_OUTPUTS // (model.n_positions * model.n_classes)))
    if not (model.has_padding and model.is_pooled):
        return list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))
    lengths_N = lengths(inputs, model.padding_token)
    order_N = lengths_N.argsort(stable=True)
    return [
        (inputs[rows, : int(lengths_N[rows].max())], targets[rows])
        for rows in torch.split(order_N, size)
    ]


def _fitting(model: Transformer, names: Sequence[str]) -> Collection[str]:
    """Return those of ``names`` whose moments fit into a file; the smallest come first."""
    sizes = {name: 0 for name in names}
    for layer in model.stack:
        read = {
            "attention": model.d_model,
            "heads": layer.attention.n_heads * layer.attention.d_head,
            "ffn": model.d_model,
            "channels": Weights.of(layer.ffn.down).factors[-1].shape[1],
        }
        for name in names:
            sizes[name] += 4 * (read[name] + 1) ** 2
    left, fitting = _MOST_MOMENTS_BYTES, []
    for name in sorted(names, key=lambda name: sizes[name]):
        left -= sizes[name]
        if left >= 0:
            fitting.append(name)
    return fitting


def save_scores(scores: Scores, path: Place) -> None:
    """Write ``scores`` atomically."""
    importance = scores.importance
    tensors: dict[str, Tensor] = {}
    for index, (heads, channels) in enumerate(
        zip(importance.heads, importance.channels, strict=True)
    ):
        tensors |= {f"{index}.heads": heads, f"{index}.channels": channels}
    if importance.layers is not None:
        tensors["layers"] = importance.layers
    for index, moments in enumerate(scores.moments.layers):
        for each in fields(moments):
            value = getattr(moments, each.name)
            if value is not None:
                tensors[f"{index}.moments.{each.name}"] = value
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(
        path, lambda temporary: save_file(tensors, str(temporary), {_METHOD: scores.layers_by})
    )


def load_scores(path: Place) -> Scores:
    """Read scores that ``save_scores`` wrote.

    Raises:
        ValueError: the file is missing or corrupt.
    """
    try:
        with as_local(path) as local, safe_open(str(local), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            layers_by = (file.metadata() or {})[_METHOD]
        depth = sum(name.endswith(".channels") and ".moments." not in name for name in tensors)
        importance = Importance(
            tuple(tensors[f"{index}.heads"] for index in range(depth)),
            tuple(tensors[f"{index}.channels"] for index in range(depth)),
            tensors.get("layers"),
        )
        moments = Moments(
            tuple(
                LayerMoments(**{name: tensors.get(f"{index}.moments.{name}") for name in READ})
                for index in range(depth)
            )
        )
    except Exception as error:
        # safetensors raises an error type of its own.
        where = path if isinstance(path, Path) else str(path)
        raise ValueError(f"{where} must hold scores of a network: {first_line(error)}") from None
    return Scores(importance, moments, layers_by)
