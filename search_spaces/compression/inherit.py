"""Initialise a smaller network with weights of a larger trained one.

Shape legend: O d_out, I d_in, Q query heads, K key-value heads, M merged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec
from search_spaces.compression.prune import (
    Importance,
    choose_heads,
    largest_indices,
    magnitude_importance,
)
from search_spaces.models.blocks import Attention, FeedForward, Layer
from search_spaces.models.build import build
from search_spaces.models.projection import Weights
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload


def inherit(
    teacher: Transformer,
    teacher_architecture: Architecture,
    architecture: Architecture,
    workload: Workload,
    *,
    importance: Importance | None = None,
) -> Transformer:
    """Build a dense fp32 network of ``architecture`` with weights of ``teacher``.

    * *Depth*: layers evenly spaced over the teacher's, the first and the last among them; a
      network of one layer takes the first.
    * *Heads and channels*: those of largest ``importance`` in their layer, in the teacher's
      order; groups of queries keep their key-value heads (``prune.choose_heads``).
    * *Rank*: a projection that only the student factorises is the truncated SVD of the selected
      weights (``projection.truncated_svd``); factors of equal rank are copied.
    * Everything else is copied. ``apply.compress`` applies precision and sparsity.

    With the teacher's architecture outputs are the same to the bit; removing heads or channels
    that add nothing changes them by rounding only. ``teacher`` is unchanged, and the network is on
    its device.

    Args:
        teacher: the trained network.
        teacher_architecture: that of ``teacher``.
        architecture: of the same ``d_model``, ``d_head``, ``patch_size``, ``resolution`` and
            ``style``, and not larger otherwise.
        workload: that of both.
        importance: of the teacher's heads and channels; ``prune.magnitude_importance`` by
            default, ``prune.taylor_importance`` with training data.

    Raises:
        ValueError: the architecture does not fit into the teacher, the message names the field;
            or ``teacher`` is not of ``teacher_architecture``.
    """
    check_fits_in(teacher_architecture, architecture)
    _check_teacher(teacher, teacher_architecture, workload)
    if importance is None:
        importance = magnitude_importance(teacher)
    _check_importance(importance, teacher_architecture)
    device = next(teacher.parameters()).device
    # The seed leaves torch's global generator unchanged; every weight is replaced.
    student = build(architecture, workload, generator_seed=0).to(device)
    sources = source_layers(teacher_architecture.depth, architecture.depth)
    with torch.no_grad():
        outside = {
            name: weight
            for name, weight in teacher.state_dict().items()
            if not name.startswith("layers.")
        }
        student.load_state_dict(outside, strict=False)
        for index, source in enumerate(sources):
            old, new = teacher.layers[source], student.layers[index]
            assert isinstance(old, Layer) and isinstance(new, Layer)
            _copy_norms(old, new)
            before = teacher_architecture.layers[source]
            after = architecture.layers[index]
            _inherit_attention(
                old.attention,
                new.attention,
                before.attention,
                after.attention,
                importance.heads[source].to(device),
                f"layers[{index}].attention",
            )
            _inherit_ffn(old.ffn, new.ffn, after.ffn, importance.channels[source].to(device))
    return student


def source_layers(teacher_depth: int, depth: int) -> tuple[int, ...]:
    """Return the teacher's layer that each layer of the student is initialised from.

    Raises:
        ValueError: the depth is larger than the teacher's.
    """
    if not 1 <= depth <= teacher_depth:
        raise ValueError(f"depth must be in 1..{teacher_depth} (the teacher's), got {depth}")
    if depth == 1:
        return (0,)
    # Integers, halves up: Python rounds halves of floats to even.
    return tuple(
        (2 * index * (teacher_depth - 1) + depth - 1) // (2 * (depth - 1))
        for index in range(depth)
    )


def check_fits_in(teacher: Architecture, architecture: Architecture) -> None:
    """Raise ``ValueError`` naming the field unless ``inherit`` can make ``architecture``."""
    for field in ("family", "d_model", "patch_size", "resolution"):
        ours, theirs = getattr(architecture, field), getattr(teacher, field)
        if ours != theirs:
            raise ValueError(f"{field} must be {theirs} (the teacher's), got {ours}")
    if architecture.style != teacher.style:
        raise ValueError(
            f"style must be {teacher.style.describe()} (the teacher's), got "
            f"{architecture.style.describe()}"
        )
    for index, source in enumerate(source_layers(teacher.depth, architecture.depth)):
        before, after = teacher.layers[source], architecture.layers[index]
        where = f"layers[{index}].attention"
        if after.attention.d_head != before.attention.d_head:
            raise ValueError(
                f"{where}.d_head must be {before.attention.d_head} (the teacher's), "
                f"got {after.attention.d_head}"
            )
        for field in ("n_heads", "n_kv_heads"):
            _check_at_most(
                f"{where}.{field}",
                getattr(after.attention, field),
                getattr(before.attention, field),
            )
        choose_heads(
            torch.zeros(before.attention.n_heads), before.attention, after.attention, where
        )
        _check_at_most(f"layers[{index}].ffn.d_ff", after.ffn.d_ff, before.ffn.d_ff)
        _check_rank(where, before.attention, after.attention)
        _check_rank(f"layers[{index}].ffn", before.ffn, after.ffn)


def _check_rank(
    where: str, before: AttentionSpec | FfnSpec, after: AttentionSpec | FfnSpec
) -> None:
    # Full rank from factors is their product, which is exact.
    if before.rank is not None and after.rank is not None:
        _check_at_most(f"{where}.rank", after.rank, before.rank)


def _check_at_most(name: str, value: int, most: int) -> None:
    if value > most:
        raise ValueError(f"{name} must be at most {most} (the teacher's), got {value}")


def _check_teacher(
    teacher: Transformer, teacher_architecture: Architecture, workload: Workload
) -> None:
    with torch.device("meta"):
        expected = Transformer(teacher_architecture, workload).state_dict()
    actual = teacher.state_dict()
    for name in sorted(expected.keys() | actual.keys()):
        required, got = (
            tuple(state[name].shape) if name in state else None for state in (expected, actual)
        )
        if required != got:
            raise ValueError(
                f"teacher must be the network of {teacher_architecture.describe()} on "
                f"{workload.name}: its {name} must have shape {required}, got {got}"
            )


def _check_importance(importance: Importance, teacher: Architecture) -> None:
    lengths = ([len(h) for h in importance.heads], [len(c) for c in importance.channels])
    required = (
        [layer.attention.n_heads for layer in teacher.layers],
        [layer.ffn.d_ff for layer in teacher.layers],
    )
    for name, ours, theirs in zip(("heads", "channels"), lengths, required, strict=True):
        if ours != theirs:
            raise ValueError(f"importance.{name} must have lengths {theirs}, got {ours}")
    for scores in (*importance.heads, *importance.channels):
        if not bool(torch.isfinite(scores).all()):
            raise ValueError("importance must be finite, got NaN or infinity")


def _copy_norms(old: Layer, new: Layer) -> None:
    """Copy the norms of the stream, of queries and of keys."""
    for name, module in old.named_modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            new.get_submodule(name).load_state_dict(module.state_dict())


def _inherit_attention(
    old: Attention,
    new: Attention,
    before: AttentionSpec,
    after: AttentionSpec,
    scores_Q: Tensor,
    where: str,
) -> None:
    selection = choose_heads(scores_Q, before, after, where)
    queries_I = _members(selection.queries, before.d_head)
    keys_MO = torch.stack([_members(keys_K, before.d_head) for keys_K in selection.keys.T])
    Weights.of(old.q).outputs(queries_I[None]).write_to(new.q)
    Weights.of(old.k).outputs(keys_MO).write_to(new.k)
    Weights.of(old.v).outputs(keys_MO).write_to(new.v)
    Weights.of(old.o).inputs(queries_I).write_to(new.o)


def _inherit_ffn(old: FeedForward, new: FeedForward, after: FfnSpec, scores_F: Tensor) -> None:
    selected_F = largest_indices(scores_F, after.d_ff)
    # A channel is a row of the gate and of ``up``, and a column of ``down``.
    if old.gate is not None and new.gate is not None:
        Weights.of(old.gate).outputs(selected_F[None]).write_to(new.gate)
    Weights.of(old.up).outputs(selected_F[None]).write_to(new.up)
    Weights.of(old.down).inputs(selected_F).write_to(new.down)


def _members(heads: Tensor, d_head: int) -> Tensor:
    """Indices of the features of ``heads``."""
    return (heads[:, None] * d_head + torch.arange(d_head, device=heads.device)).flatten()
