"""Initialise a smaller network with weights of a larger trained one.

Shape legend: O d_out, I d_in, Q query heads, K key-value heads, M merged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec
from search_spaces.compression.moments import LayerMoments, Moments, cut, write
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

_POSITIONS = "position_TD"


def inherit(
    teacher: Transformer,
    teacher_architecture: Architecture,
    architecture: Architecture,
    workload: Workload,
    *,
    importance: Importance | None = None,
    moments: Moments | None = None,
) -> Transformer:
    """Build a dense fp32 network of ``architecture`` with weights of ``teacher``.

    * *Depth*: the layers that ``importance`` keeps at this depth. Where it says nothing of layers,
      they are evenly spaced over the teacher's, the first and the last among them; a
      network of one layer takes the first.
    * *Heads and channels*: those of largest ``importance`` in their layer, in the teacher's
      order; groups of queries keep their key-value heads (``prune.choose_heads``). With
      ``moments`` the projection that reads them is adapted to what is left (``moments.cut``).
    * *Rank*: a projection that only the student factorises is the truncated SVD of the selected
      weights (``projection.truncated_svd``), with ``moments`` that of least error in outputs;
      factors of equal rank are copied.
    * *Resolution*: a text's first positions; positions of patches are interpolated.
    * Everything else is copied. ``apply.compress`` applies precision and sparsity.

    With the teacher's architecture outputs are the same to the bit; removing heads or channels
    that add nothing changes them by rounding only. ``teacher`` is unchanged, and the network is on
    its device.

    Args:
        teacher: the trained network.
        teacher_architecture: that of ``teacher``.
        architecture: of the same ``d_model``, ``d_head``, ``patch_size`` and ``style``, and not
            larger otherwise.
        workload: that of both.
        importance: of the teacher's heads, channels and perhaps layers;
            ``prune.magnitude_importance`` by default, ``prune.taylor_importance`` with training
            data.
        moments: of the teacher's activations on training data.

    Raises:
        ValueError: the architecture does not fit into the teacher, the message names the field;
            or ``teacher`` is not of ``teacher_architecture``.
    """
    if importance is not None:
        _check_importance(importance, teacher_architecture)
    layers = None if importance is None else importance.layers
    check_fits_in(teacher_architecture, architecture, layers)
    _check_teacher(teacher, teacher_architecture, workload)
    sources = source_layers(teacher_architecture.depth, architecture.depth, layers)
    if importance is None:
        importance = magnitude_importance(teacher)
    device = next(teacher.parameters()).device
    # The seed leaves torch's global generator unchanged; every weight is replaced.
    student = build(architecture, workload, generator_seed=0).to(device)
    with torch.no_grad():
        outside = {
            name: weight
            for name, weight in teacher.state_dict().items()
            if not name.startswith("layers.")
        }
        if student.position_TD is not None:
            outside[_POSITIONS] = _positions(
                outside[_POSITIONS], teacher_architecture, architecture, workload
            )
        student.load_state_dict(outside, strict=False)
        for index, source in enumerate(sources):
            old, new = teacher.layers[source], student.layers[index]
            assert isinstance(old, Layer) and isinstance(new, Layer)
            _copy_norms(old, new)
            before = teacher_architecture.layers[source]
            after = architecture.layers[index]
            of_layer = LayerMoments() if moments is None else moments.layers[source].to(device)
            _inherit_attention(
                old.attention,
                new.attention,
                before.attention,
                after.attention,
                importance.heads[source].to(device),
                of_layer,
                f"layers[{index}].attention",
            )
            scores_F = importance.channels[source].to(device)
            _inherit_ffn(old.ffn, new.ffn, after.ffn, scores_F, of_layer)
    return student


def _positions(
    table_TD: Tensor, before: Architecture, after: Architecture, workload: Workload
) -> Tensor:
    """Return the position table of a network that reads fewer tokens or smaller images."""
    if before.resolution == after.resolution:
        return table_TD
    if not workload.is_image:
        return table_TD[: workload.n_tokens(after)]
    patch, n_prefix = before.patch_size, before.style.n_prefix_tokens
    old, new = (
        (height // patch, width // patch)
        for height, width in (workload.image_size(before), workload.image_size(after))
    )
    # Bicubic, as checkpoints are resized (Dosovitskiy et al. 2021, section 3.2).
    patches_1DHW = table_TD[n_prefix:].T.reshape(1, -1, *old)
    smaller_1DHW = F.interpolate(
        patches_1DHW, new, mode="bicubic", align_corners=False, antialias=True
    )
    return torch.cat([table_TD[:n_prefix], smaller_1DHW[0].flatten(1).T])


def source_layers(
    teacher_depth: int, depth: int, keeps_LL: Tensor | None = None
) -> tuple[int, ...]:
    """Return the teacher's layer that each layer of the student is initialised from.

    These are the layers of the row ``keeps_LL[depth - 1]``, without it evenly spaced ones.

    Raises:
        ValueError: the depth is larger than the teacher's.
    """
    if not 1 <= depth <= teacher_depth:
        raise ValueError(f"depth must be in 1..{teacher_depth} (the teacher's), got {depth}")
    if keeps_LL is not None:
        return tuple(keeps_LL[depth - 1].nonzero().flatten().tolist())
    if depth == 1:
        return (0,)
    # Integers, halves up: Python rounds halves of floats to even.
    return tuple(
        (2 * index * (teacher_depth - 1) + depth - 1) // (2 * (depth - 1))
        for index in range(depth)
    )


def check_fits_in(
    teacher: Architecture, architecture: Architecture, keeps_LL: Tensor | None = None
) -> None:
    """Raise ``ValueError`` naming the field unless ``inherit`` can make ``architecture``.

    ``keeps_LL`` has the layers that stay at each depth, as ``Importance.layers``.
    """
    for field in ("family", "d_model", "patch_size"):
        ours, theirs = getattr(architecture, field), getattr(teacher, field)
        if ours != theirs:
            raise ValueError(f"{field} must be {theirs} (the teacher's), got {ours}")
    if architecture.style != teacher.style:
        raise ValueError(
            f"style must be {teacher.style.describe()} (the teacher's), got "
            f"{architecture.style.describe()}"
        )
    if teacher.resolution is not None and not (
        architecture.resolution is not None and architecture.resolution <= teacher.resolution
    ):
        raise ValueError(
            f"resolution must be at most {teacher.resolution} (the teacher's), got "
            f"{architecture.resolution}"
        )
    sources = source_layers(teacher.depth, architecture.depth, keeps_LL)
    for index, source in enumerate(sources):
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
    keeps_LL = importance.layers
    if keeps_LL is not None:
        shape, n_kept = (teacher.depth, teacher.depth), torch.arange(1, teacher.depth + 1)
        if tuple(keeps_LL.shape) != shape or not torch.equal(keeps_LL.bool().sum(1).cpu(), n_kept):
            raise ValueError(
                f"importance.layers must have shape {shape}, each row with as many layers as its "
                f"depth, got {tuple(keeps_LL.shape)}"
            )
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
    moments: LayerMoments,
    where: str,
) -> None:
    selection = choose_heads(scores_Q, before, after, where)
    queries_I = _members(selection.queries, before.d_head)
    keys_MO = torch.stack([_members(keys_K, before.d_head) for keys_K in selection.keys.T])
    q, k, v = (Weights.of(part) for part in (old.q, old.k, old.v))
    write(q.outputs(queries_I[None]), new.q, moments.attention)
    write(k.outputs(keys_MO), new.k, moments.attention)
    write(v.outputs(keys_MO), new.v, moments.attention)
    o, of_kept = cut(Weights.of(old.o), queries_I, moments.heads)
    write(o, new.o, of_kept)


def _inherit_ffn(
    old: FeedForward, new: FeedForward, after: FfnSpec, scores_F: Tensor, moments: LayerMoments
) -> None:
    selected_F = largest_indices(scores_F, after.d_ff)
    # A channel is a row of the gate and of ``up``, and a column of ``down``.
    if old.gate is not None and new.gate is not None:
        write(Weights.of(old.gate).outputs(selected_F[None]), new.gate, moments.ffn)
    write(Weights.of(old.up).outputs(selected_F[None]), new.up, moments.ffn)
    down, of_kept = cut(Weights.of(old.down), selected_F, moments.channels)
    write(down, new.down, of_kept)


def _members(heads: Tensor, d_head: int) -> Tensor:
    """Indices of the features of ``heads``."""
    return (heads[:, None] * d_head + torch.arange(d_head, device=heads.device)).flatten()
