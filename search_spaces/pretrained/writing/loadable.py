"""Decide whether stock classes of a checkpoint's family support an architecture.

A class of ``transformers`` builds all layers alike from one configuration. Projections are dense
and of one type; some may be quantised by ``torchao``. If the configuration has no size of heads,
the class divides the width by their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from search_spaces.architecture import (
    TRANSFORMER,
    Architecture,
    AttentionSpec,
    FfnSpec,
    LayerSpec,
    Precision,
)
from search_spaces.pretrained.families.family import Family, SizeKeys, Stored
from search_spaces.pretrained.files.folder import CONFIG
from search_spaces.pretrained.registry import FAMILIES

if TYPE_CHECKING:
    from search_spaces.pretrained.checkpoint import Checkpoint

# Precisions of blocks whose weights are plain numbers of one type.
STORED_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
# Precisions that ``transformers`` stores by torchao, each with that of all other weights.
QUANTISED_PRECISIONS: dict[Precision, Precision] = {"int8": "fp32", "int8wo": "bf16"}
WRITTEN_PRECISIONS = (*STORED_PRECISIONS, *QUANTISED_PRECISIONS)
_NOT_WRITTEN = {
    "int4wo": "torchao's 4-bit weights for CPUs cannot be stored in safetensors",
    "fp8": "it needs a GPU to be verified",
}


def family_named(name: str) -> Family:
    """Return the family of a checkpoint's ``family``."""
    return next(family for family in FAMILIES if family.name == name)


def check_loadable(checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Raise ``ValueError`` with the first reason of ``refusals``, if there is one."""
    reasons = refusals(checkpoint, architecture)
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise ValueError(f"{reasons[0]}{more}")


def refusals(
    checkpoint: Checkpoint,
    architecture: Architecture,
    *,
    keys: SizeKeys | None = None,
    place: str = CONFIG,
) -> tuple[str, ...]:
    """Return the reasons why no stock class supports ``architecture``, empty if one does.

    Each names the layer and the field.

    Args:
        checkpoint: The parent, with the network's configuration and style.
        architecture: The network's.
        keys: Keys of sizes in the format to be written; the family's by default.
        place: Name of the file or format with these keys, for messages.
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
    classes, d_ff = family.classes[checkpoint.model_type], parent.layers[0].ffn.d_ff
    layers = layer_refusals(architecture, family, classes, d_ff, keys=keys, place=place)
    return (*reasons, *layers)


def layer_refusals(
    architecture: Architecture,
    family: Family,
    classes: str,
    parents_d_ff: int | None = None,
    *,
    keys: SizeKeys | None = None,
    place: str = CONFIG,
) -> Iterator[str]:
    """Yield the reasons in layers why classes of ``family`` do not support a single stack.

    Args:
        architecture: One of a width that the classes support.
        family: The family.
        classes: First part of the names of its classes, such as ``Llama``.
        parents_d_ff: The parent's feed-forward width, which is always supported.
        keys: As in ``refusals``.
        place: As in ``refusals``.
    """
    yield from _compressed(architecture)
    yield from _precisions(architecture, family, classes)
    yield from _uneven(architecture, keys or family.sizes, place)
    yield from _sizes(architecture, family, classes, parents_d_ff)


def stored_precision(architecture: Architecture) -> Precision:
    """Return the precision of all weights that are not quantised."""
    quantised = quantised_precision(architecture)
    if quantised in QUANTISED_PRECISIONS:
        return QUANTISED_PRECISIONS[quantised]
    precisions = (block.compression.precision for block in architecture.blocks)
    return next((each for each in precisions if each in STORED_PRECISIONS), "fp32")


def quantised_precision(architecture: Architecture) -> Precision | None:
    """Return the precision of the first quantised block, ``None`` if no block is quantised."""
    precisions = (block.compression.precision for block in architecture.blocks)
    return next((each for each in precisions if each not in STORED_PRECISIONS), None)


def _compressed(architecture: Architecture) -> Iterator[str]:
    """Yield the reasons in ranks and sparsity."""
    for placed in architecture.placed_blocks:
        rank, sparsity = placed.spec.rank, placed.spec.compression.sparsity
        if rank is not None:
            yield (
                f"{placed.path}.rank is {rank}, and stock classes have no factorised projections"
            )
        if sparsity != "dense":
            yield f"{placed.path}.sparsity is {sparsity}, and stock classes run dense products"


def _precisions(architecture: Architecture, family: Family, classes: str) -> Iterator[str]:
    """Yield the reasons in precisions: one type is allowed, and one quantised one beside it."""
    quantised = quantised_precision(architecture)
    stored = stored_precision(architecture)
    for placed in architecture.placed_blocks:
        precision = placed.spec.compression.precision
        if precision in _NOT_WRITTEN:
            yield f"{placed.path}.precision is {precision}, and {_NOT_WRITTEN[precision]}"
        elif precision == quantised and not _has_linear_projections(family):
            yield (
                f"{placed.path}.precision is {precision}, and {classes} classes have projections "
                f"that torchao does not quantise"
            )
        elif precision not in (stored, quantised):
            others = stored if quantised is None else f"{stored} beside {quantised}"
            yield (
                f"{placed.path}.precision is {precision}, and stock classes compute in one type, "
                f"here {others}"
            )


def _has_linear_projections(family: Family) -> bool:
    """Whether projections are ``Linear``, whose weights are ``(d_out, d_in)``."""
    sources = family.names.values()
    return not any(isinstance(each, Stored) and each.is_transposed for each in sources)


def _uneven(architecture: Architecture, sizes: SizeKeys, place: str) -> Iterator[str]:
    """Yield the reasons in layers that differ from the first."""
    keys = {
        "attention.n_heads": sizes.heads,
        "attention.n_kv_heads": sizes.kv_heads or sizes.heads,
        "attention.d_head": sizes.d_head or sizes.heads,
        "ffn.d_ff": sizes.d_ff,
    }
    first = architecture.layers[0]
    for index, layer in enumerate(architecture.layers):
        for field, key in keys.items():
            ours, theirs = _field(layer, field), _field(first, field)
            if ours != theirs:
                yield (
                    f"layers[{index}].{field} is {ours}, that of layers[0] is {theirs}, and "
                    f"{key} of {place} is one number for all layers"
                )


def _field(layer: LayerSpec, name: str) -> int:
    block, _, field = name.partition(".")
    spec: AttentionSpec | FfnSpec = layer.attention if block == "attention" else layer.ffn
    value: int = getattr(spec, field)
    return value


def _sizes(
    architecture: Architecture, family: Family, classes: str, parents_d_ff: int | None
) -> Iterator[str]:
    """Yield the reasons in sizes that the configuration cannot express, by the first layer."""
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
