"""Rows of gene positions, mended and read all at once: what ``encoding`` does one by one.

Shape legend: N rows, G genes of a space in the order of ``SearchSpace.genes``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture.sides import Heads, Side
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import repair

Ints = NDArray[np.int64]


def repaired(positions_NG: Ints, space: SearchSpace) -> Ints:
    """``encoding.repair`` of every row: only head counts are ever changed."""
    names = list(space.genes())
    mended = positions_NG.copy()
    for side in space.sides:
        widths = mended[:, names.index(side.d_model)]
        for kind in side.heads:
            heads_at, kv_at = _heads(space, side, kind)
            for layer in space.layers_of(kind.n_heads):
                heads = names.index(space.gene_name(kind.n_heads, layer))
                kv = names.index(space.gene_name(kind.n_kv_heads, layer))
                asked = widths, mended[:, heads].copy(), mended[:, kv].copy()
                mended[:, heads], mended[:, kv] = heads_at[asked], kv_at[asked]
    return mended


def is_active(positions_NG: Ints, space: SearchSpace) -> NDArray[np.bool_]:
    """Which genes matter: those of layers beyond the depth do not; shape ``(N, G)``."""
    names = list(space.genes())
    active = np.ones(positions_NG.shape, dtype=bool)
    for side in space.sides:
        depths = np.array(space.values(side.depth))[positions_NG[:, names.index(side.depth)]]
        for gene in side.layer_genes:
            if gene not in space.shared:
                for layer in range(space.deepest(side)):
                    active[:, names.index(space.gene_name(gene, layer))] = layer < depths
    return active


@lru_cache(maxsize=32)
def _heads(space: SearchSpace, side: Side, kind: Heads) -> tuple[Ints, Ints]:
    """Mended positions of heads and of key-value heads, by width, heads and key-value heads."""
    widths, heads, kvs = (
        space.values(gene) for gene in (side.d_model, kind.n_heads, kind.n_kv_heads)
    )
    found = np.empty((2, len(widths), len(heads), len(kvs)), dtype=np.int64)
    plain = {name: domain.values[0] for name, domain in space.genes().items()}
    names = [space.gene_name(gene, 0) for gene in (kind.n_heads, kind.n_kv_heads)]
    for w, width in enumerate(widths):
        for h, head in enumerate(heads):
            for k, kv in enumerate(kvs):
                genes = plain | {side.d_model: width, names[0]: head, names[1]: kv}
                # Further layers must hold something valid; only the first is looked at.
                mended = repair(genes, space)
                found[:, w, h, k] = heads.index(mended[names[0]]), kvs.index(mended[names[1]])
    return found[0], found[1]
