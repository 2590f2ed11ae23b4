"""Rows of gene positions, mended and read all at once: what ``encoding`` does one by one.

Shape legend: N rows, G genes of a space in the order of ``SearchSpace.genes``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from search_spaces.encoding import repair
from search_spaces.space import LAYER_GENES, SearchSpace

Ints = NDArray[np.int64]


def repaired(positions_NG: Ints, space: SearchSpace) -> Ints:
    """``encoding.repair`` of every row: only head counts are ever changed."""
    names = list(space.genes())
    mended = positions_NG.copy()
    widths = mended[:, names.index("d_model")]
    heads_at, kv_at = _heads(space)
    layers = [0] if "n_heads" in space.shared else range(space.max_depth)
    for layer in layers:
        heads = names.index(space.gene_name("n_heads", layer))
        kv = names.index(space.gene_name("n_kv_heads", layer))
        asked = widths, mended[:, heads].copy(), mended[:, kv].copy()
        mended[:, heads], mended[:, kv] = heads_at[asked], kv_at[asked]
    return mended


def is_active(positions_NG: Ints, space: SearchSpace) -> NDArray[np.bool_]:
    """Which genes matter: those of layers beyond the depth do not; shape ``(N, G)``."""
    names = list(space.genes())
    depths = np.array(space.values("depth"))[positions_NG[:, names.index("depth")]]
    active = np.ones(positions_NG.shape, dtype=bool)
    for gene in LAYER_GENES:
        if gene not in space.shared:
            for layer in range(space.max_depth):
                active[:, names.index(space.gene_name(gene, layer))] = layer < depths
    return active


@lru_cache(maxsize=16)
def _heads(space: SearchSpace) -> tuple[Ints, Ints]:
    """Mended positions of heads and of key-value heads, by width, heads and key-value heads."""
    widths, heads, kvs = (space.values(gene) for gene in ("d_model", "n_heads", "n_kv_heads"))
    found = np.empty((2, len(widths), len(heads), len(kvs)), dtype=np.int64)
    plain = {name: domain.values[0] for name, domain in space.genes().items()}
    names = [space.gene_name(gene, 0) for gene in ("n_heads", "n_kv_heads")]
    for w, width in enumerate(widths):
        for h, head in enumerate(heads):
            for k, kv in enumerate(kvs):
                genes = plain | {"d_model": width, names[0]: head, names[1]: kv}
                # Further layers must hold something valid; only the first is looked at.
                mended = repair(genes, space)
                found[:, w, h, k] = heads.index(mended[names[0]]), kvs.index(mended[names[1]])
    return found[0], found[1]
