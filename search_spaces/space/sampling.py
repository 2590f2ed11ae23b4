"""Members of a space: random ones, neighbours, the smallest and the largest.

Each function builds valid members by ``repair`` rather than by rejection, so none can loop.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import Architecture, Compression, LayerSpec
from search_spaces.architecture.stacks import STACKS, split_gene_name
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import Genes, decode, encode, rank_of, repair
from search_spaces.space.loadable import tied_positions

_TRIES = 32
_MUTATION_RATE = 0.1
# Genes whose larger values make larger networks.
_SIZES = frozenset(
    gene
    for stack in STACKS
    for gene in (
        stack.d_model,
        stack.depth,
        stack.ffn_ratio,
        *(name for kind in stack.heads for name in (kind.n_heads, kind.n_kv_heads)),
    )
)


def sample(space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """Draw a member: each gene uniform over its domain, head counts uniform over valid pairs."""
    genes: Genes = {
        name: domain.values[int(rng.integers(len(domain)))]
        for name, domain in space.genes().items()
    }
    for stack in space.stacks:
        for kind in stack.heads:
            pairs = space.head_pairs(genes[stack.d_model], kind)
            for layer in space.layers_of(kind.n_heads):
                heads, kv_heads = pairs[int(rng.integers(len(pairs)))]
                genes[space.gene_name(kind.n_heads, layer)] = heads
                genes[space.gene_name(kind.n_kv_heads, layer)] = kv_heads
    return decode(genes, space)


def sample_positions(space: SearchSpace, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``n`` members at once, distributed as those of ``sample``.

    Returns:
        Positions of the genes in their domains, shape ``(n, n_genes)``, for
        ``ArchitectureBatch.from_positions``.
    """
    domains = space.genes()
    names = list(domains)
    positions = np.stack([rng.integers(len(domain), size=n) for domain in domains.values()], 1)
    kinds = [(stack, kind) for stack in space.stacks for kind in stack.heads]
    for stack, kind in kinds:
        heads, kv_heads = space.domains[kind.n_heads], space.domains[kind.n_kv_heads]
        for layer in space.layers_of(kind.n_heads):
            genes = [space.gene_name(gene, layer) for gene in (kind.n_heads, kind.n_kv_heads)]
            columns = np.array([names.index(gene) for gene in genes])
            for index, width in enumerate(space.values(stack.d_model)):
                rows = np.flatnonzero(positions[:, names.index(stack.d_model)] == index)
                pairs = np.array(
                    [
                        (heads.index_of(h), kv_heads.index_of(k))
                        for h, k in space.head_pairs(width, kind)
                    ]
                )
                positions[np.ix_(rows, columns)] = pairs[rng.integers(len(pairs), size=len(rows))]
    return tied_positions(positions, space)


def mutate(
    architecture: Architecture, space: SearchSpace, rng: np.random.Generator
) -> Architecture:
    """Return a neighbour of ``architecture``: one gene or more drawn anew, the others unchanged.

    Each gene is drawn anew with probability 0.1, at least one always. A layer that becomes active
    copies the last active one, so that deepening is a small step. The neighbour differs from
    ``architecture`` unless 32 tries fail, as in a space of one member.

    Raises:
        ValueError: the architecture is not a member.
    """
    parent = _with_copied_layers(encode(architecture, space), space)
    domains = {name: domain for name, domain in space.genes().items() if len(domain) > 1}
    names = list(domains)
    if not names:
        return architecture
    for _ in range(_TRIES):
        genes = dict(parent)
        chosen = rng.random(len(names)) < _MUTATION_RATE
        chosen[int(rng.integers(len(names)))] = True
        for name in (n for n, redraw in zip(names, chosen, strict=True) if redraw):
            others = [value for value in domains[name] if value != genes[name]]
            genes[name] = others[int(rng.integers(len(others)))]
        child = decode(repair(genes, space), space)
        if child != architecture:
            return child
    return architecture


def smallest(space: SearchSpace) -> Architecture:
    """Return the member of least width, depth, heads and feed-forward, and of the fewest patches.

    Other genes take their domain's first value.
    """
    genes: Genes = {name: domain.values[0] for name, domain in space.genes().items()}
    genes["patch_size"] = max(space.values("patch_size"))
    if "resolution" in genes:
        genes["resolution"] = min(space.values("resolution"), key=_pixels)
    for name in genes:
        gene = name.rpartition(".")[2]
        if gene in _SIZES:
            genes[name] = min(space.values(gene))
    return decode(repair(genes, space), space)


def largest(space: SearchSpace) -> Architecture:
    """Return the member of greatest width, depth, heads, feed-forward, and of the most patches.

    It has full rank and is fp32 and dense where the space allows; other genes take their domain's
    first value.
    """
    genes: Genes = {}
    for name, domain in space.genes().items():
        gene = name.rpartition(".")[2]
        values: tuple[Any, ...] = domain.values
        if gene in _SIZES:
            genes[name] = max(values)
        elif gene == "patch_size":
            genes[name] = min(values)
        elif gene == "resolution":
            genes[name] = max(values, key=_pixels)
        elif gene.endswith("_rank"):
            genes[name] = None if None in values else max(values)
        else:
            plain = "fp32" if gene.endswith("_precision") else "dense"
            genes[name] = plain if plain in values else values[0]
    return decode(repair(genes, space), space)


def _pixels(resolution: int | None) -> float:
    """Sort key of resolutions: samples that are read whole are the largest."""
    return math.inf if resolution is None else resolution


def _with_copied_layers(genes: Genes, space: SearchSpace) -> Genes:
    """Copy the genes of the last active layer to the inactive ones."""
    for name in genes:
        stack, layer, gene = split_gene_name(name)
        if stack is not None:
            last = genes[stack.depth] - 1
            genes[name] = genes[space.gene_name(gene, min(layer, last))]
    return genes


def compression_variants(architecture: Architecture, space: SearchSpace) -> list[Architecture]:
    """Return members with the same dimensions and one compression throughout.

    These are the uncompressed one (fp32, dense, full rank), one for each precision alone, and one
    for each feed-forward rank alone, as references for what a compression gains. Leaves out
    ``architecture`` itself. Empty for an encoder-decoder, whose blocks are never compressed.
    """
    if architecture.decoder is not None:
        return []
    plain = Compression()
    choices = [(plain, plain, None)]
    offered = [
        p for p in space.values("ffn_precision") if p in space.values("attention_precision")
    ]
    choices += [(Compression(p), Compression(p), None) for p in offered if p != plain.precision]
    choices += [(plain, plain, rank) for rank in space.values("ffn_rank") if rank is not None]
    variants: dict[str, Architecture] = {}
    for attention, ffn, fraction in choices:
        rank = rank_of(fraction, architecture.d_model)
        layers = tuple(
            LayerSpec(
                replace(layer.attention, rank=None, compression=attention),
                replace(layer.ffn, rank=rank, compression=ffn),
            )
            for layer in architecture.layers
        )
        variant = replace(architecture, layers=layers)
        if variant != architecture and space.contains(variant):
            variants.setdefault(variant.hash, variant)
    return list(variants.values())
