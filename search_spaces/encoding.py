"""Architectures as named genes, and as vectors.

``decode`` accepts valid combinations only. ``repair`` maps what a sampler that knows no
constraints may propose to a valid combination near it. Genes of layers beyond the depth do not
matter; ``encode`` gives them their domain's first value. A sparsity
that no device has a kernel for in the block's precision is read as dense, where the space offers
dense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import (
    UNSTRUCTURED,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
    Precision,
    Sparsity,
)
from search_spaces.space import LAYER_GENES, SearchSpace

Genes = dict[str, Any]


def decode(genes: Mapping[str, Any], space: SearchSpace) -> Architecture:
    """The architecture that ``genes`` name.

    Raises:
        ValueError: a gene is missing, unknown or out of its domain, or the heads do not divide.
    """
    domains = space.genes()
    if genes.keys() != domains.keys():
        odd = sorted(genes.keys() ^ domains.keys())
        raise ValueError(f"genes must be exactly those of space {space.name!r}; not so: {odd}")
    for name, domain in domains.items():
        if genes[name] not in domain:
            raise ValueError(f"{name} must be one of {domain.values}, got {genes[name]!r}")
    d_model = genes["d_model"]
    layers = []
    for layer in range(genes["depth"]):
        own = {gene: genes[space.gene_name(gene, layer)] for gene in LAYER_GENES}
        for block in ("attention", "ffn"):
            own[f"{block}_compression"] = _compression(own, block, space)
        layers.append(LayerSpec(_attention(own, d_model), _ffn(own, d_model)))
    return Architecture(
        d_model,
        tuple(layers),
        genes["patch_size"],
        genes.get("resolution"),
        space.family,
        tuple((name, genes[name]) for name in space.extra),
    )


def encode(architecture: Architecture, space: SearchSpace) -> Genes:
    """The first genes, in the order of each domain, that ``decode`` to ``architecture``.

    Raises:
        ValueError: the architecture is not a member of the space.
    """
    genes: Genes = {name: domain.values[0] for name, domain in space.genes().items()}
    genes["d_model"] = _member(space, "d_model", architecture.d_model)
    genes["depth"] = _member(space, "depth", architecture.depth)
    genes["patch_size"] = _member(space, "patch_size", architecture.patch_size)
    resolution = _member(space, "resolution", architecture.resolution)
    if "resolution" in genes:
        genes["resolution"] = resolution
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
    for gene in LAYER_GENES:
        groups = (
            [list(range(architecture.depth))]
            if gene in space.shared
            else [[layer] for layer in range(architecture.depth)]
        )
        for layers in groups:
            name = space.gene_name(gene, layers[0])
            for value in space.values(gene):
                if all(_fits(gene, value, architecture, layer, space) for layer in layers):
                    genes[name] = value
                    break
            else:
                raise ValueError(
                    f"{name} of {architecture.describe()} must be one of {space.values(gene)}"
                )
    # Each gene was fitted alone; together they must name the very model.
    if decode(genes, space) != architecture:
        raise ValueError(f"{architecture.describe()} must be a member of space {space.name!r}")
    return genes


def repair(genes: Mapping[str, Any], space: SearchSpace) -> Genes:
    """The valid combination nearest to ``genes``: only head counts are ever changed.

    In each layer the number of heads moves to the valid one that is nearest in logarithm, then
    the number of key-value heads likewise; ties go to the smaller.
    """
    mended = dict(genes)
    pairs = space.head_pairs(mended["d_model"])
    valid_heads = sorted({heads for heads, _ in pairs})
    layers = [0] if "n_heads" in space.shared else range(space.max_depth)
    for layer in layers:
        heads_name = space.gene_name("n_heads", layer)
        kv_name = space.gene_name("n_kv_heads", layer)
        heads = _nearest(mended[heads_name], valid_heads)
        mended[heads_name] = heads
        mended[kv_name] = _nearest(mended[kv_name], sorted(kv for h, kv in pairs if h == heads))
    return mended


def to_vector(architecture: Architecture, space: SearchSpace) -> NDArray[np.int64]:
    """Positions of the genes in their domains, shape ``(n_genes,)``."""
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


def _attention(own: Mapping[str, Any], d_model: int) -> AttentionSpec:
    if d_model % own["n_heads"]:
        raise ValueError(f"n_heads must divide d_model={d_model}, got {own['n_heads']}")
    return AttentionSpec(
        n_heads=own["n_heads"],
        n_kv_heads=own["n_kv_heads"],
        d_head=d_model // own["n_heads"],
        rank=rank_of(own["attention_rank"], d_model),
        compression=own["attention_compression"],
    )


def _ffn(own: Mapping[str, Any], d_model: int) -> FfnSpec:
    return FfnSpec(
        d_ff=width_of(own["ffn_ratio"], d_model),
        rank=rank_of(own["ffn_rank"], d_model),
        compression=own["ffn_compression"],
    )


def _compression(own: Mapping[str, Any], block: str, space: SearchSpace) -> Compression:
    precision = own[f"{block}_precision"]
    return Compression(precision, sparsity_of(own[f"{block}_sparsity"], block, precision, space))


def sparsity_of(
    sparsity: Sparsity, block: str, precision: Precision, space: SearchSpace
) -> Sparsity:
    """The sparsity that a gene names beside a precision.

    Dense where no kernel joins the two and the space offers it.
    """
    has_kernel = precision == "bf16" or (sparsity in UNSTRUCTURED and precision != "int4wo")
    return (
        "dense" if not has_kernel and "dense" in space.domains[f"{block}_sparsity"] else sparsity
    )


def rank_of(fraction: float | None, d_model: int) -> int | None:
    """The rank that a fraction of the width names; ``None`` stays full rank."""
    return None if fraction is None else max(1, round(fraction * d_model))


def width_of(ratio: float, d_model: int) -> int:
    """The feed-forward width that a ratio names."""
    return max(1, round(ratio * d_model))


def _fits(
    gene: str, value: Any, architecture: Architecture, layer: int, space: SearchSpace
) -> bool:
    """Whether ``gene = value`` gives what ``architecture`` has in ``layer``."""
    d_model, spec = architecture.d_model, architecture.layers[layer]
    attention, ffn = spec.attention, spec.ffn
    match gene:
        case "n_heads":
            return bool(value == attention.n_heads)
        case "n_kv_heads":
            return bool(value == attention.n_kv_heads)
        case "ffn_ratio":
            return width_of(value, d_model) == ffn.d_ff
        case "attention_rank":
            return _same_rank(attention, rank_of(value, d_model), d_model)
        case "ffn_rank":
            return _same_rank(ffn, rank_of(value, d_model), d_model)
        case _:
            block, field = gene.split("_")
            compression = attention.compression if block == "attention" else ffn.compression
            if field == "sparsity":
                value = sparsity_of(value, block, compression.precision, space)
            return bool(value == getattr(compression, field))


def _same_rank(spec: AttentionSpec | FfnSpec, rank: int | None, d_model: int) -> bool:
    # The architecture's own constructor knows which ranks save nothing.
    attention = spec if isinstance(spec, AttentionSpec) else AttentionSpec(1, 1, 1)
    ffn = spec if isinstance(spec, FfnSpec) else FfnSpec(1)
    if isinstance(spec, AttentionSpec):
        attention = AttentionSpec(
            spec.n_heads, spec.n_kv_heads, spec.d_head, rank, spec.compression
        )
    else:
        ffn = FfnSpec(spec.d_ff, rank, spec.compression)
    rebuilt = Architecture(d_model, (LayerSpec(attention, ffn),)).layers[0]
    return spec in (rebuilt.attention, rebuilt.ffn)


def _member(space: SearchSpace, gene: str, value: int | None) -> int | None:
    if value not in space.domains[gene]:
        raise ValueError(f"{gene} must be one of {space.values(gene)}, got {value!r}")
    return value


def _nearest(value: int, allowed: list[int]) -> int:
    return min(allowed, key=lambda other: (abs(math.log(other / value)), other))
