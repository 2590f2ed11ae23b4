"""Many architectures as arrays, so that what is computed for each is computed for all at once.

Shape legend: N architectures, L layers of the deepest one, G genes of a space. Values of layers
beyond an architecture's depth are 1 (a count) or 0 (a code), and ``active`` is False there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import (
    PRECISIONS,
    SPARSITIES,
    TRANSFORMER,
    Architecture,
    AttentionSpec,
    FfnSpec,
)
from search_spaces.encoding import rank_of, sparsity_of, width_of
from search_spaces.space import LAYER_GENES, SearchSpace
from search_spaces.workload import AS_IT_IS

Ints = NDArray[np.int64]
_FULL_RANK = 0


@dataclass(frozen=True)
class BlockBatch:
    """Attention or feed-forward blocks, every field of shape ``(N, L)``.

    ``rank`` is 0 for full rank; ``precision`` and ``sparsity`` are positions in ``PRECISIONS``
    and ``SPARSITIES``. A rank that saves nothing in a projection is ignored there, as in
    ``Architecture``.
    """

    rank: Ints
    precision: Ints
    sparsity: Ints


@dataclass(frozen=True)
class AttentionBatch(BlockBatch):
    """Attention blocks, every field of shape ``(N, L)``."""

    n_heads: Ints
    n_kv_heads: Ints
    d_head: Ints


@dataclass(frozen=True)
class FfnBatch(BlockBatch):
    """Feed-forward blocks, every field of shape ``(N, L)``."""

    d_ff: Ints


@dataclass(frozen=True)
class ArchitectureBatch:
    """``N`` architectures: global fields of shape ``(N,)``, blocks of shape ``(N, L)``.

    ``resolution`` is 0 where images are read as they are. All are of one ``family``; ``extra`` has
    the family's own genes, of shape ``(N,)``.
    """

    d_model: Ints
    depth: Ints
    patch_size: Ints
    resolution: Ints
    attention: AttentionBatch
    ffn: FfnBatch
    family: str = TRANSFORMER
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many architectures."""
        return len(self.d_model)

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which layers exist, shape ``(N, L)``."""
        layers = np.arange(self.attention.rank.shape[1])
        exists: NDArray[np.bool_] = layers < self.depth[:, None]
        return exists

    def rows(self, selection: slice | NDArray[Any]) -> ArchitectureBatch:
        """The architectures that ``selection`` (a slice, mask or positions) names."""
        return ArchitectureBatch(
            self.d_model[selection],
            self.depth[selection],
            self.patch_size[selection],
            self.resolution[selection],
            _block_rows(self.attention, selection),
            _block_rows(self.ffn, selection),
            self.family,
            {name: values[selection] for name, values in self.extra.items()},
        )

    @classmethod
    def of(cls, architectures: Sequence[Architecture]) -> ArchitectureBatch:
        """From architectures one by one.

        Raises:
            ValueError: they are of several families.
        """
        families = sorted({a.family for a in architectures} or {TRANSFORMER})
        if len(families) > 1:
            raise ValueError(f"architectures must be of one family, got {', '.join(families)}")
        extra = [dict(a.extra) for a in architectures]
        deepest = max((a.depth for a in architectures), default=1)
        attention = [[layer.attention for layer in a.layers] for a in architectures]
        ffn = [[layer.ffn for layer in a.layers] for a in architectures]
        return cls(
            d_model=np.array([a.d_model for a in architectures], dtype=np.int64),
            depth=np.array([a.depth for a in architectures], dtype=np.int64),
            patch_size=np.array([a.patch_size for a in architectures], dtype=np.int64),
            resolution=np.array([a.resolution or AS_IT_IS for a in architectures], dtype=np.int64),
            attention=AttentionBatch(
                **_shared(attention, deepest),
                n_heads=_padded([[s.n_heads for s in row] for row in attention], deepest, 1),
                n_kv_heads=_padded([[s.n_kv_heads for s in row] for row in attention], deepest, 1),
                d_head=_padded([[s.d_head for s in row] for row in attention], deepest, 1),
            ),
            ffn=FfnBatch(
                **_shared(ffn, deepest),
                d_ff=_padded([[s.d_ff for s in row] for row in ffn], deepest, 1),
            ),
            family=families[0],
            extra={name: np.array([e[name] for e in extra]) for name in (extra or [{}])[0]},
        )

    @classmethod
    def from_positions(cls, positions_NG: Ints, space: SearchSpace) -> ArchitectureBatch:
        """From positions of genes in their domains (rows of ``encoding.to_vector``).

        Raises:
            ValueError: the number of genes or a position is out of range, or in some layer heads
                do not divide.
        """
        names = list(space.genes())
        domains = space.genes()
        positions = np.asarray(positions_NG)
        if positions.ndim != 2 or positions.shape[1] != len(names):
            raise ValueError(
                f"positions must have shape (N, {len(names)}) for space {space.name!r}, "
                f"got {positions.shape}"
            )
        sizes = np.array([len(domains[name]) for name in names])
        if np.any(positions < 0) or np.any(positions >= sizes):
            row, column = np.argwhere((positions < 0) | (positions >= sizes))[0]
            raise ValueError(
                f"position of {names[column]} must be in [0, {sizes[column]}), "
                f"got {positions[row, column]} in row {row}"
            )
        column_of = {name: index for index, name in enumerate(names)}

        def looked_up(gene: str, table: Sequence[int]) -> Ints:
            """``(N,)`` for a global gene, ``(N, L)`` for one of a layer."""
            values = np.array(table, dtype=np.int64)
            if gene not in LAYER_GENES:
                return values[positions[:, column_of[gene]]]
            columns = [column_of[space.gene_name(gene, layer)] for layer in range(space.max_depth)]
            return values[positions[:, columns]]

        d_model = looked_up("d_model", space.values("d_model"))
        depth = looked_up("depth", space.values("depth"))
        active = np.arange(space.max_depth) < depth[:, None]

        def of_width(gene: str, form: Any) -> Ints:
            """A gene that is a share of the width: one table for each width."""
            widths = space.values("d_model")
            table = np.array(
                [[form(value, width) or _FULL_RANK for value in space.values(gene)]
                 for width in widths],
                dtype=np.int64,
            )  # fmt: skip
            chosen = looked_up(gene, range(len(space.values(gene))))
            return table[positions[:, column_of["d_model"]][:, None], chosen]

        def coded(gene: str) -> Ints:
            found = looked_up(gene, [PRECISIONS.index(value) for value in space.values(gene)])
            return np.where(active, found, 0)

        def sparsity(block: str) -> Ints:
            """What the gene names depends on the precision beside it."""
            names = [f"{block}_precision", f"{block}_sparsity"]
            table = np.array(
                [
                    [
                        SPARSITIES.index(sparsity_of(s, block, p, space))
                        for s in space.values(names[1])
                    ]
                    for p in space.values(names[0])
                ]
            )
            chosen = [looked_up(name, range(len(space.values(name)))) for name in names]
            return np.where(active, table[chosen[0], chosen[1]], 0)

        heads = np.where(active, looked_up("n_heads", space.values("n_heads")), 1)
        kv_heads = np.where(active, looked_up("n_kv_heads", space.values("n_kv_heads")), 1)
        if np.any(d_model[:, None] % heads) or np.any(heads % kv_heads):
            bad = np.argwhere((d_model[:, None] % heads != 0) | (heads % kv_heads != 0))[0]
            raise ValueError(
                f"n_heads must divide d_model and n_kv_heads must divide n_heads, got "
                f"{heads[tuple(bad)]} and {kv_heads[tuple(bad)]} at width {d_model[bad[0]]} "
                f"in row {bad[0]}"
            )
        return cls(
            d_model=d_model,
            depth=depth,
            patch_size=looked_up("patch_size", space.values("patch_size")),
            resolution=looked_up("resolution", [r or AS_IT_IS for r in space.values("resolution")])
            if "resolution" in column_of
            else np.full(len(positions), AS_IT_IS, dtype=np.int64),
            attention=AttentionBatch(
                rank=np.where(active, of_width("attention_rank", rank_of), _FULL_RANK),
                precision=coded("attention_precision"),
                sparsity=sparsity("attention"),
                n_heads=heads,
                n_kv_heads=kv_heads,
                d_head=np.where(active, d_model[:, None] // heads, 1),
            ),
            ffn=FfnBatch(
                rank=np.where(active, of_width("ffn_rank", rank_of), _FULL_RANK),
                precision=coded("ffn_precision"),
                sparsity=sparsity("ffn"),
                d_ff=np.where(active, of_width("ffn_ratio", width_of), 1),
            ),
            family=space.family,
            extra={
                name: np.array(domain.values)[positions[:, column_of[name]]]
                for name, domain in space.extra.items()
            },
        )


def _block_rows(block: Any, selection: slice | NDArray[Any]) -> Any:
    return type(block)(**{f.name: getattr(block, f.name)[selection] for f in fields(block)})


def _shared(rows: Sequence[Sequence[AttentionSpec | FfnSpec]], deepest: int) -> dict[str, Ints]:
    return {
        "rank": _padded([[s.rank or _FULL_RANK for s in row] for row in rows], deepest, 0),
        "precision": _padded(
            [[PRECISIONS.index(s.compression.precision) for s in row] for row in rows], deepest, 0
        ),
        "sparsity": _padded(
            [[SPARSITIES.index(s.compression.sparsity) for s in row] for row in rows], deepest, 0
        ),
    }


def _padded(rows: Sequence[Sequence[int]], deepest: int, filler: int) -> Ints:
    padded = np.full((len(rows), deepest), filler, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded
