"""Architectures as named genes, and as vectors.

``decode`` accepts valid combinations only. ``repair`` maps the proposal of a sampler without
constraints to a valid combination near it. Genes of layers beyond the depth have no effect;
``encode`` gives them their domain's first value. A sparsity without a kernel in the block's
precision decodes to dense, if dense is in the space. Genes that a stock class ties decode to one
value in a loadable space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import (
    UNSTRUCTURED,
    Architecture,
    AttentionSpec,
    BlockStyle,
    Compression,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
    PlacedBlock,
    Precision,
    Sparsity,
)
from search_spaces.architecture.blocks import canonical_block
from search_spaces.architecture.stacks import DECODER, ENCODER, Heads, StackGenes
from search_spaces.space import SearchSpace
from search_spaces.space.loadable import tied
from search_spaces.space.of_parent import are_cut_heads, no_heads

Genes = dict[str, Any]


def decode(genes: Mapping[str, Any], space: SearchSpace) -> Architecture:
    """Return the architecture of ``genes``.

    Raises:
        ValueError: a gene is missing, unknown or out of its domain, or the heads do not divide.
    """
    domains = space.genes()
    if genes.keys() != domains.keys():
        odd = sorted(genes.keys() ^ domains.keys())
        raise ValueError(
            f"genes must be exactly those of space {space.name!r}; missing or unknown: {odd}"
        )
    for name, domain in domains.items():
        if genes[name] not in domain:
            raise ValueError(f"{name} must be one of {domain.values}, got {genes[name]!r}")
    genes, decoder = tied(genes, space), None
    if space.has_decoder:
        blocks = _blocks(genes, space, DECODER)
        decoder = DecoderSpec(
            genes[DECODER.d_model], tuple(DecoderLayerSpec(**layer) for layer in blocks)
        )
    return Architecture(
        genes["d_model"],
        tuple(LayerSpec(**layer) for layer in _blocks(genes, space, ENCODER)),
        genes["patch_size"],
        genes.get("resolution"),
        space.family,
        tuple((name, genes[name]) for name in space.extra),
        decoder,
        _style_of(genes, space),
    )


def _style_of(genes: Mapping[str, Any], space: SearchSpace) -> BlockStyle:
    names = space.values("blocks")
    return space.styles[names.index(genes.get("blocks", names[0]))]


def _blocks(
    genes: Mapping[str, Any], space: SearchSpace, stack: StackGenes
) -> list[dict[str, Any]]:
    """The blocks of each layer of one stack, by the fields of its specification."""
    width, layers = genes[stack.d_model], []
    for layer in range(genes[stack.depth]):
        own = {gene: genes[space.gene_name(gene, layer)] for gene in stack.layer_genes}
        blocks: dict[str, AttentionSpec | FfnSpec] = {}
        for block, field, heads in stack.attention:
            blocks[field] = _attention(own, width, block, heads, space)
        ratio, block = own[stack.ffn_ratio], stack.blocks[-1]
        blocks[stack.fields[-1]] = FfnSpec(
            d_ff=width_of(ratio, width),
            rank=rank_of(own[f"{block}_rank"], width),
            compression=_compression(own, block, space),
        )
        layers.append(blocks)
    return layers


def encode(architecture: Architecture, space: SearchSpace) -> Genes:
    """Return the first genes, in the order of each domain, that decode to ``architecture``.

    Raises:
        ValueError: the architecture is not a member of the space.
    """
    genes: Genes = {name: domain.values[0] for name, domain in space.genes().items()}
    decoder = architecture.decoder
    if (decoder is not None) != space.has_decoder:
        has = "a decoder" if space.has_decoder else "no decoder"
        raise ValueError(
            f"{architecture.describe()} must have {has} to be in space {space.name!r}"
        )
    genes["d_model"] = _member(space, "d_model", architecture.d_model)
    genes["depth"] = _member(space, "depth", architecture.depth)
    if decoder is not None:
        genes[DECODER.d_model] = _member(space, DECODER.d_model, decoder.d_model)
        genes[DECODER.depth] = _member(space, DECODER.depth, decoder.depth)
    genes["patch_size"] = _member(space, "patch_size", architecture.patch_size)
    resolution = _member(space, "resolution", architecture.resolution)
    if "resolution" in genes:
        genes["resolution"] = resolution
    style = architecture.style
    names = [
        name
        for name, each in zip(space.values("blocks"), space.styles, strict=True)
        if each == style
    ]
    if not names:
        allowed = ", ".join(each.describe() for each in space.styles)
        raise ValueError(f"blocks must be one of {allowed}, got {style.describe()}")
    if "blocks" in genes:
        genes["blocks"] = names[0]
    if (
        architecture.family != space.family
        or dict(architecture.extra).keys() != space.extra.keys()
    ):
        raise ValueError(
            f"{architecture.describe()} must be of family {space.family!r} with the extra genes "
            f"{', '.join(space.extra) or 'none'}"
        )
    for name, value in architecture.extra:
        if value not in space.extra[name]:
            raise ValueError(f"{name} must be one of {space.extra[name].values}, got {value!r}")
        genes[name] = value
    placed = {block.path: block for block in architecture.placed_blocks}
    for stack in space.stacks:
        width, depth = genes[stack.d_model], genes[stack.depth]
        where = "" if stack is ENCODER else f"{stack.name}."
        for gene in stack.layer_genes:
            field = _field_of(gene, stack)
            blocks = [placed[f"{where}layers.{layer}.{field}"] for layer in range(depth)]
            groups = [blocks] if gene in space.shared else [[block] for block in blocks]
            for layer, group in enumerate(groups):
                name = space.gene_name(gene, layer)
                for value in space.values(gene):
                    if all(_fits(gene, value, block, width, space) for block in group):
                        genes[name] = value
                        break
                else:
                    raise ValueError(
                        f"{name} of {architecture.describe()} must be one of {space.values(gene)}"
                    )
    # Each gene was fitted alone: check them together.
    if decode(genes, space) != architecture:
        raise ValueError(f"{architecture.describe()} must be a member of space {space.name!r}")
    return genes


def repair(genes: Mapping[str, Any], space: SearchSpace) -> Genes:
    """Return the valid combination nearest to ``genes``; only head counts and tied genes change.

    In each attention block the number of heads moves to the valid one that is nearest in
    logarithm, then the number of key-value heads likewise; ties go to the smaller.
    """
    repaired = dict(genes)
    for stack in space.stacks:
        for kind in stack.heads:
            pairs = space.head_pairs(repaired[stack.d_model], kind)
            valid_heads = sorted({heads for heads, _ in pairs})
            for layer in space.layers_of(kind.n_heads):
                heads_name = space.gene_name(kind.n_heads, layer)
                kv_name = space.gene_name(kind.n_kv_heads, layer)
                heads = _nearest(repaired[heads_name], valid_heads)
                repaired[heads_name] = heads
                valid_kv = sorted(kv for h, kv in pairs if h == heads)
                repaired[kv_name] = _nearest(repaired[kv_name], valid_kv)
    return tied(repaired, space)


def to_vector(architecture: Architecture, space: SearchSpace) -> NDArray[np.int64]:
    """Return the positions of the genes in their domains, shape ``(n_genes,)``."""
    genes = encode(architecture, space)
    domains = space.genes()
    return np.array([domains[name].index_of(value) for name, value in genes.items()])


def from_vector(vector: NDArray[np.int64], space: SearchSpace) -> Architecture:
    """Invert ``to_vector``.

    Raises:
        ValueError: the vector's length or a position is out of range.
    """
    domains = space.genes()
    if len(vector) != len(domains):
        raise ValueError(f"vector must have {len(domains)} positions, got {len(vector)}")
    genes: Genes = {}
    for position, (name, domain) in zip(vector, domains.items(), strict=True):
        if not 0 <= position < len(domain):
            raise ValueError(f"position of {name} must be in [0, {len(domain)}), got {position}")
        genes[name] = domain.values[int(position)]
    return decode(genes, space)


def _attention(
    own: Mapping[str, Any], d_model: int, block: str, heads: Heads, space: SearchSpace
) -> AttentionSpec:
    n_heads = own[heads.n_heads]
    if space.parent is not None:
        if not are_cut_heads(n_heads, own[heads.n_kv_heads], space.parent):
            raise ValueError(no_heads(space.parent, heads.n_heads, own))
    elif d_model % n_heads:
        raise ValueError(f"{heads.n_heads} must divide d_model={d_model}, got {n_heads}")
    return AttentionSpec(
        n_heads=n_heads,
        n_kv_heads=own[heads.n_kv_heads],
        d_head=space.d_head(d_model, n_heads),
        rank=rank_of(own[f"{block}_rank"], d_model),
        compression=_compression(own, block, space),
    )


def _compression(own: Mapping[str, Any], block: str, space: SearchSpace) -> Compression:
    precision = own[f"{block}_precision"]
    return Compression(precision, sparsity_of(own[f"{block}_sparsity"], block, precision, space))


def sparsity_of(
    sparsity: Sparsity, block: str, precision: Precision, space: SearchSpace
) -> Sparsity:
    """Return the sparsity of a block: dense where no kernel has both and the space has dense."""
    has_kernel = precision == "bf16" or (sparsity in UNSTRUCTURED and precision != "int4wo")
    return (
        "dense" if not has_kernel and "dense" in space.domains[f"{block}_sparsity"] else sparsity
    )


def rank_of(fraction: float | None, d_model: int) -> int | None:
    """Rank at a fraction of the width; ``None`` is full rank."""
    return None if fraction is None else max(1, round(fraction * d_model))


def width_of(ratio: float, d_model: int) -> int:
    """Feed-forward width at a ratio of the width."""
    return max(1, round(ratio * d_model))


def _field_of(gene: str, stack: StackGenes) -> str:
    """Field of the block of ``gene`` in a layer's specification."""
    for block, field, heads in stack.attention:
        if gene in (heads.n_heads, heads.n_kv_heads) or gene.startswith(f"{block}_"):
            return field
    return stack.fields[-1]


def _fits(gene: str, value: Any, placed: PlacedBlock, d_model: int, space: SearchSpace) -> bool:
    """Whether ``gene = value`` decodes to the block at ``placed``."""
    spec = placed.spec
    if gene.endswith("_rank"):
        ranked = replace(spec, rank=rank_of(value, d_model))
        return canonical_block(ranked, placed.shapes) == spec
    if gene.endswith("ffn_ratio"):
        return isinstance(spec, FfnSpec) and width_of(value, d_model) == spec.d_ff
    if gene.endswith("n_kv_heads"):
        return isinstance(spec, AttentionSpec) and bool(value == spec.n_kv_heads)
    if gene.endswith("n_heads"):
        return isinstance(spec, AttentionSpec) and bool(value == spec.n_heads)
    block, _, field = gene.rpartition("_")
    if field == "sparsity":
        value = sparsity_of(value, block, spec.compression.precision, space)
    return bool(value == getattr(spec.compression, field))


def _member(space: SearchSpace, gene: str, value: int | None) -> int | None:
    if value not in space.domains[gene]:
        raise ValueError(f"{gene} must be one of {space.values(gene)}, got {value!r}")
    return value


def _nearest(value: int, allowed: list[int]) -> int:
    return min(allowed, key=lambda other: (abs(math.log(other / value)), other))
