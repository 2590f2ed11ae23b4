"""Which architectures a stock class of a checkpoint's family can hold, and why not others.

A class of ``transformers`` builds all layers alike from one configuration, of dense projections
in one type. Where its configuration has no size of heads, it divides the width by their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from search_spaces.architecture import TRANSFORMER, Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.pretrained.families.family import Family
from search_spaces.pretrained.registry import FAMILIES

if TYPE_CHECKING:
    from search_spaces.pretrained.checkpoint import Checkpoint

# Precisions of blocks whose weights are plain numbers of one type.
STORED_PRECISIONS = ("fp32", "bf16")


def family_named(name: str) -> Family:
    """Return the family of a checkpoint's ``family``."""
    return next(family for family in FAMILIES if family.name == name)


def check_loadable(checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Raise ``ValueError`` with the first reason of ``refusals``, if there is one."""
    reasons = refusals(checkpoint, architecture)
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise ValueError(f"{reasons[0]}{more}")


def refusals(checkpoint: Checkpoint, architecture: Architecture) -> tuple[str, ...]:
    """Return the reasons why no stock class can hold ``architecture``; empty where one can.

    Each names the layer and the field.

    Args:
        checkpoint: The parent, whose configuration and style the network has.
        architecture: The network's.
    """
    family, parent = family_named(checkpoint.family), checkpoint.architecture
    if architecture.family != TRANSFORMER or architecture.decoder is not None:
        return (f"the network must be a single stack of the family {TRANSFORMER}",)
    reasons = [
        f"{field} is {getattr(architecture, field)}, and the parent's is {getattr(parent, field)}"
        for field in ("d_model", "patch_size", "resolution")
        if getattr(architecture, field) != getattr(parent, field)
    ]
    if architecture.style != parent.style:
        reasons.append("the style differs from the parent's")
    classes = family.classes[checkpoint.model_type]
    return (*reasons, *layer_refusals(architecture, family, classes, parent.layers[0].ffn.d_ff))


def layer_refusals(
    architecture: Architecture, family: Family, classes: str, parents_d_ff: int | None = None
) -> Iterator[str]:
    """Yield the reasons in layers why ``family`` cannot hold a single stack.

    Args:
        architecture: Of a width that the classes can have.
        family: The family.
        classes: First part of the names of its classes, such as ``Llama``.
        parents_d_ff: A feed-forward width that the configuration contains already.
    """
    yield from _compressed(architecture)
    yield from _uneven(architecture, family)
    yield from _sizes(architecture, family, classes, parents_d_ff)


def _compressed(architecture: Architecture) -> Iterator[str]:
    """Reasons in ranks, precisions and sparsity."""
    first = architecture.blocks[0].compression.precision
    for placed in architecture.placed_blocks:
        spec = placed.spec
        precision, sparsity = spec.compression.precision, spec.compression.sparsity
        if spec.rank is not None:
            yield (
                f"{placed.path}.rank is {spec.rank}, and stock classes have no factorised "
                f"projections"
            )
        if precision not in STORED_PRECISIONS:
            yield (
                f"{placed.path}.precision is {precision}: quantised weights "
                f"(quantization_config) are not written yet"
            )
        elif precision != first and first in STORED_PRECISIONS:
            yield (
                f"{placed.path}.precision is {precision}, that of "
                f"{architecture.placed_blocks[0].path} is {first}, and stock classes compute in "
                f"one type"
            )
        if sparsity != "dense":
            yield f"{placed.path}.sparsity is {sparsity}, and stock classes run dense products"


def _uneven(architecture: Architecture, family: Family) -> Iterator[str]:
    """Reasons in layers that differ from the first."""
    keys = {
        "attention.n_heads": family.sizes.heads,
        "attention.n_kv_heads": family.sizes.kv_heads or family.sizes.heads,
        "attention.d_head": family.sizes.d_head or family.sizes.heads,
        "ffn.d_ff": family.sizes.d_ff,
    }
    first = architecture.layers[0]
    for index, layer in enumerate(architecture.layers):
        for field, key in keys.items():
            ours, theirs = _field(layer, field), _field(first, field)
            if ours != theirs:
                yield (
                    f"layers[{index}].{field} is {ours}, that of layers[0] is {theirs}, and "
                    f"{key} of config.json is one number for all layers"
                )


def _field(layer: LayerSpec, name: str) -> int:
    block, _, field = name.partition(".")
    spec: AttentionSpec | FfnSpec = layer.attention if block == "attention" else layer.ffn
    value: int = getattr(spec, field)
    return value


def _sizes(
    architecture: Architecture, family: Family, classes: str, parents_d_ff: int | None
) -> Iterator[str]:
    """Reasons in sizes that the configuration cannot contain, by the first layer."""
    layer, width, sizes = architecture.layers[0], architecture.d_model, family.sizes
    attention = layer.attention
    if sizes.d_head is None and attention.n_heads * attention.d_head != width:
        yield (
            f"layers[0].attention has {attention.n_heads} heads of size {attention.d_head}, and "
            f"{classes} classes divide the width by {sizes.heads}, {width} / {attention.n_heads}"
        )
    if sizes.kv_heads is None and attention.n_kv_heads != attention.n_heads:
        yield (
            f"layers[0].attention.n_kv_heads is {attention.n_kv_heads}, and {classes} classes "
            f"have as many as n_heads, {attention.n_heads}"
        )
    d_ff, value = layer.ffn.d_ff, sizes.ffn_value
    if value is None or d_ff == parents_d_ff:
        return
    if value(d_ff, width, architecture.style.is_gated) is None:
        yield (
            f"layers[0].ffn.d_ff is {d_ff}, and {classes} classes have {sizes.ffn_rule} at width "
            f"{width}"
        )
