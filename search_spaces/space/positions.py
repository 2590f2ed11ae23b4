"""Vectorised ``repair`` and activity of genes, on rows of gene positions.

Shape legend: N rows, G genes of a space in the order of ``SearchSpace.genes``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture.stacks import Heads, StackGenes
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import repair
from search_spaces.space.loadable import tied_positions

Ints = NDArray[np.int64]


def repaired(positions_NG: Ints, space: SearchSpace) -> Ints:
    """``encoding.repair`` of every row, which changes head counts and tied genes only."""
    names = list(space.genes())
    result = positions_NG.copy()
    for stack in space.stacks:
        widths = result[:, names.index(stack.d_model)]
        for kind in stack.heads:
            heads_at, kv_at = _heads(space, stack, kind)
            for layer in space.layers_of(kind.n_heads):
                heads = names.index(space.gene_name(kind.n_heads, layer))
                kv = names.index(space.gene_name(kind.n_kv_heads, layer))
                current = widths, result[:, heads].copy(), result[:, kv].copy()
                result[:, heads], result[:, kv] = heads_at[current], kv_at[current]
    return tied_positions(result, space)


def is_active(positions_NG: Ints, space: SearchSpace) -> NDArray[np.bool_]:
    """Whether each gene is of a layer within the depth, shape ``(N, G)``."""
    names = list(space.genes())
    active = np.ones(positions_NG.shape, dtype=bool)
    for stack in space.stacks:
        depths = np.array(space.values(stack.depth))[positions_NG[:, names.index(stack.depth)]]
        for gene in stack.layer_genes:
            if gene not in space.shared:
                for layer in range(space.deepest(stack)):
                    active[:, names.index(space.gene_name(gene, layer))] = layer < depths
    return active


@lru_cache(maxsize=32)
def _heads(space: SearchSpace, stack: StackGenes, kind: Heads) -> tuple[Ints, Ints]:
    """Repaired positions of heads and key-value heads, by width, heads and key-value heads."""
    widths, heads, kvs = (
        space.values(gene) for gene in (stack.d_model, kind.n_heads, kind.n_kv_heads)
    )
    tables = np.empty((2, len(widths), len(heads), len(kvs)), dtype=np.int64)
    plain = {name: domain.values[0] for name, domain in space.genes().items()}
    names = [space.gene_name(gene, 0) for gene in (kind.n_heads, kind.n_kv_heads)]
    # Ties depend on the blocks of a row.
    untied = replace(space, loadable=None)
    for w, width in enumerate(widths):
        for h, head in enumerate(heads):
            for k, kv in enumerate(kvs):
                genes = plain | {stack.d_model: width, names[0]: head, names[1]: kv}
                # Other layers need valid values; only the first is read.
                repaired_genes = repair(genes, untied)
                tables[:, w, h, k] = (
                    heads.index(repaired_genes[names[0]]),
                    kvs.index(repaired_genes[names[1]]),
                )
    return tables[0], tables[1]
