"""Architectures as arrays, for vectorised computations.

Shape legend: N architectures, L layers of the deepest one, G genes of a space. Values of layers
beyond an architecture's depth are 1 (a count) or 0 (a code), and ``active`` is False there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import (
    DEFAULT_STYLE,
    PRECISIONS,
    SPARSITIES,
    TRANSFORMER,
    Architecture,
    AttentionSpec,
    BlockStyle,
    DecoderSpec,
    FfnSpec,
)
from search_spaces.architecture.stacks import DECODER, ENCODER, StackGenes, stack_of
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import rank_of, sparsity_of, width_of
from search_spaces.space.loadable import tied_positions
from search_spaces.workload import AS_IT_IS, Workload

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


Block = TypeVar("Block", bound=BlockBatch)


@dataclass(frozen=True)
class DecoderBatch:
    """Decoders of ``N`` encoder-decoders: ``(N,)``, blocks ``(N, L)`` of their own ``L``."""

    d_model: Ints
    depth: Ints
    attention: AttentionBatch
    cross_attention: AttentionBatch
    ffn: FfnBatch

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which layers exist, shape ``(N, L)``."""
        return _exists(self.depth, self.attention.rank.shape[1])

    def rows(self, selection: slice | NDArray[Any]) -> DecoderBatch:
        """Return the decoders of the architectures in ``selection``."""
        return DecoderBatch(
            self.d_model[selection],
            self.depth[selection],
            _block_rows(self.attention, selection),
            _block_rows(self.cross_attention, selection),
            _block_rows(self.ffn, selection),
        )


@dataclass(frozen=True)
class ArchitectureBatch:
    """``N`` architectures: global fields of shape ``(N,)``, blocks of shape ``(N, L)``.

    ``resolution`` is 0 where samples are read whole. All are of one ``family``; ``extra`` has
    the family's own genes, of shape ``(N,)``. All or none have a ``decoder``. ``style`` has the
    positions in ``styles``, ``(N,)``; ``None`` where all have the first.
    """

    d_model: Ints
    depth: Ints
    patch_size: Ints
    resolution: Ints
    attention: AttentionBatch
    ffn: FfnBatch
    family: str = TRANSFORMER
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    decoder: DecoderBatch | None = None
    styles: tuple[BlockStyle, ...] = (DEFAULT_STYLE,)
    style: Ints | None = None

    def __len__(self) -> int:
        """Number of architectures."""
        return len(self.d_model)

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which layers exist, shape ``(N, L)``; a decoder's left out."""
        return _exists(self.depth, self.attention.rank.shape[1])

    def of_style(self, value: Callable[[BlockStyle], float]) -> NDArray[np.float64]:
        """A value of each architecture's style, ``(N,)``."""
        values = np.array([value(style) for style in self.styles], dtype=float)
        return np.full(len(self), values[0]) if self.style is None else values[self.style]

    def n_tokens(self, workload: Workload) -> NDArray[np.float64]:
        """Tokens of a sample of ``workload`` that each reads, prefix tokens included, ``(N,)``.

        Raises:
            ValueError: a patch size, a resolution or a style does not fit the workload.
        """
        for style in self.styles:
            workload.check_style(style)
            if workload.is_embedding:
                for width in np.unique(self.d_model):
                    workload.check_width(style, int(width))
        tokens = workload.n_tokens_batch(self.patch_size, self.resolution)
        return tokens + self.of_style(lambda style: style.n_prefix_tokens)

    def n_new_tokens(self, workload: Workload) -> NDArray[np.float64]:
        """As ``n_tokens``, without tokens whose keys and values are in the cache."""
        tokens = self.n_tokens(workload)
        return np.ones_like(tokens) if workload.phase == "generate" else tokens

    def rows(self, selection: slice | NDArray[Any]) -> ArchitectureBatch:
        """Return the architectures in ``selection`` (a slice, mask or positions)."""
        return ArchitectureBatch(
            self.d_model[selection],
            self.depth[selection],
            self.patch_size[selection],
            self.resolution[selection],
            _block_rows(self.attention, selection),
            _block_rows(self.ffn, selection),
            self.family,
            {name: values[selection] for name, values in self.extra.items()},
            None if self.decoder is None else self.decoder.rows(selection),
            self.styles,
            None if self.style is None else self.style[selection],
        )

    @classmethod
    def of(cls, architectures: Sequence[Architecture]) -> ArchitectureBatch:
        """Convert a sequence of architectures.

        Raises:
            ValueError: they are of several families, or some have a decoder and some have none.
        """
        families = sorted({a.family for a in architectures} or {TRANSFORMER})
        if len(families) > 1:
            raise ValueError(f"architectures must be of one family, got {', '.join(families)}")
        extra = [dict(a.extra) for a in architectures]
        decoders = [a.decoder for a in architectures if a.decoder is not None]
        if decoders and len(decoders) < len(architectures):
            raise ValueError("architectures must all have a decoder or none, got some with one")
        stacks = [a.layers for a in architectures]
        styles = tuple(dict.fromkeys(a.style for a in architectures)) or (DEFAULT_STYLE,)
        codes = {style: code for code, style in enumerate(styles)}
        return cls(
            d_model=np.array([a.d_model for a in architectures], dtype=np.int64),
            depth=np.array([a.depth for a in architectures], dtype=np.int64),
            patch_size=np.array([a.patch_size for a in architectures], dtype=np.int64),
            resolution=np.array([a.resolution or AS_IT_IS for a in architectures], dtype=np.int64),
            attention=_block_batch(AttentionBatch, [[x.attention for x in s] for s in stacks]),
            ffn=_block_batch(FfnBatch, [[x.ffn for x in s] for s in stacks]),
            family=families[0],
            extra={name: np.array([e[name] for e in extra]) for name in (extra or [{}])[0]},
            decoder=_decoder_batch(decoders) if decoders else None,
            styles=styles,
            style=None
            if len(styles) == 1
            else np.array([codes[a.style] for a in architectures], dtype=np.int64),
        )

    @classmethod
    def from_positions(cls, positions_NG: Ints, space: SearchSpace) -> ArchitectureBatch:
        """Convert positions of genes in their domains (rows of ``encoding.to_vector``).

        Raises:
            ValueError: the number of genes or a position is out of range, or in some layer heads
                do not divide.
        """
        genes = _Genes.of(positions_NG, space)
        attention, ffn = genes.blocks(ENCODER)
        decoder = None
        if space.has_decoder:
            own, crossed, own_ffn = genes.blocks(DECODER)
            width, depth = genes.of_model(DECODER.d_model), genes.of_model(DECODER.depth)
            decoder = DecoderBatch(width, depth, own, crossed, own_ffn)
        n = len(genes.positions)
        return cls(
            d_model=genes.of_model("d_model"),
            depth=genes.of_model("depth"),
            patch_size=genes.of_model("patch_size"),
            resolution=genes.of_model("resolution")
            if "resolution" in genes.column_of
            else np.full(n, AS_IT_IS, dtype=np.int64),
            attention=attention,
            ffn=ffn,
            family=space.family,
            extra={
                name: np.array(domain.values)[genes.positions[:, genes.column_of[name]]]
                for name, domain in space.extra.items()
            },
            decoder=decoder,
            styles=space.styles,
            style=genes.positions[:, genes.column_of["blocks"]]
            if "blocks" in genes.column_of
            else None,
        )


@dataclass(frozen=True)
class _Genes:
    """Rows of positions, with the column of each gene of ``space``."""

    positions: Ints
    space: SearchSpace
    column_of: Mapping[str, int]

    @classmethod
    def of(cls, positions_NG: Ints, space: SearchSpace) -> _Genes:
        domains = space.genes()
        names = list(domains)
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
        columns = {name: index for index, name in enumerate(names)}
        return cls(tied_positions(positions, space), space, columns)

    def of_model(self, gene: str) -> Ints:
        """Values of a gene of the whole model, ``(N,)``; ``None`` is 0."""
        values = np.array([v or AS_IT_IS for v in self.space.values(gene)], dtype=np.int64)
        return values[self.positions[:, self.column_of[gene]]]

    def chosen(self, gene: str) -> Ints:
        """Positions of a layer's gene in its domain, ``(N, L)``."""
        layers = range(self.space.deepest(stack_of(gene)))
        columns = [self.column_of[self.space.gene_name(gene, layer)] for layer in layers]
        return self.positions[:, columns]

    def of_layers(self, gene: str, table: Sequence[int]) -> Ints:
        """Map the positions of a layer's gene by ``table``, ``(N, L)``."""
        return np.array(table, dtype=np.int64)[self.chosen(gene)]

    def blocks(self, stack: StackGenes) -> list[Any]:
        """Blocks of one stack, in the order of ``stack.blocks``."""
        d_model, depth = self.of_model(stack.d_model), self.of_model(stack.depth)
        active = _exists(depth, self.space.deepest(stack))
        blocks: list[Any] = []
        for block, _, kind in stack.attention:
            heads = np.where(active, self._plain(kind.n_heads), 1)
            kv_heads = np.where(active, self._plain(kind.n_kv_heads), 1)
            wide = np.where(active, heads * (2 if self.space.is_rotary else 1), 1)
            if self.space.parent is not None:
                # The size of heads is the parent's, whatever their number.
                wide = np.ones_like(wide)
            if np.any(d_model[:, None] % wide) or np.any(heads % kv_heads):
                bad = np.argwhere((d_model[:, None] % wide != 0) | (heads % kv_heads != 0))[0]
                raise ValueError(
                    f"{kind.n_heads} must divide {stack.d_model} and {kind.n_kv_heads} must "
                    f"divide {kind.n_heads}, got {heads[tuple(bad)]} and {kv_heads[tuple(bad)]} "
                    f"at width {d_model[bad[0]]} in row {bad[0]}"
                )
            parent = self.space.parent
            sizes = (
                d_model[:, None] // heads
                if parent is None
                else np.full_like(heads, parent.layers[0].attention.d_head)
            )
            blocks.append(
                AttentionBatch(
                    **self._shared(stack, block, active),
                    n_heads=heads,
                    n_kv_heads=kv_heads,
                    d_head=np.where(active, sizes, 1),
                )
            )
        d_ff = np.where(active, self._of_width(stack, stack.ffn_ratio, width_of), 1)
        blocks.append(FfnBatch(**self._shared(stack, stack.blocks[-1], active), d_ff=d_ff))
        return blocks

    def _plain(self, gene: str) -> Ints:
        return self.of_layers(gene, self.space.values(gene))

    def _of_width(self, stack: StackGenes, gene: str, form: Any) -> Ints:
        """Values of a gene that is a share of the width, ``(N, L)``."""
        table = np.array(
            [
                [form(value, width) or _FULL_RANK for value in self.space.values(gene)]
                for width in self.space.values(stack.d_model)
            ],
            dtype=np.int64,
        )
        widths = self.positions[:, self.column_of[stack.d_model]][:, None]
        values: Ints = table[widths, self.chosen(gene)]
        return values

    def _shared(self, stack: StackGenes, block: str, active: NDArray[np.bool_]) -> dict[str, Ints]:
        """Rank, precision and sparsity, which depends on the precision."""
        space, names = self.space, [f"{block}_precision", f"{block}_sparsity"]
        precisions, sparsities = (space.values(name) for name in names)
        table = np.array(
            [
                [SPARSITIES.index(sparsity_of(s, block, p, space)) for s in sparsities]
                for p in precisions
            ]
        )
        codes = self.of_layers(names[0], [PRECISIONS.index(value) for value in precisions])
        sparsity = table[self.chosen(names[0]), self.chosen(names[1])]
        rank = self._of_width(stack, f"{block}_rank", rank_of)
        return {
            "rank": np.where(active, rank, _FULL_RANK),
            "precision": np.where(active, codes, 0),
            "sparsity": np.where(active, sparsity, 0),
        }


def _exists(depth: Ints, deepest: int) -> NDArray[np.bool_]:
    exists: NDArray[np.bool_] = np.arange(deepest) < depth[:, None]
    return exists


def _block_batch(kind: type[Block], rows: Sequence[Sequence[AttentionSpec | FfnSpec]]) -> Block:
    """Convert the blocks of one kind, a row for each architecture."""

    def value(spec: AttentionSpec | FfnSpec, field: str) -> int:
        if field == "rank":
            return spec.rank or _FULL_RANK
        if field == "precision":
            return PRECISIONS.index(spec.compression.precision)
        if field == "sparsity":
            return SPARSITIES.index(spec.compression.sparsity)
        return int(getattr(spec, field))

    shared = {f.name for f in fields(BlockBatch)}
    return kind(
        **{
            f.name: _padded(
                [[value(spec, f.name) for spec in row] for row in rows],
                filler=0 if f.name in shared else 1,
            )
            for f in fields(kind)
        }
    )


def _decoder_batch(decoders: Sequence[DecoderSpec]) -> DecoderBatch:
    stacks = [decoder.layers for decoder in decoders]
    return DecoderBatch(
        d_model=np.array([decoder.d_model for decoder in decoders], dtype=np.int64),
        depth=np.array([decoder.depth for decoder in decoders], dtype=np.int64),
        attention=_block_batch(AttentionBatch, [[x.attention for x in s] for s in stacks]),
        cross_attention=_block_batch(
            AttentionBatch, [[x.cross_attention for x in s] for s in stacks]
        ),
        ffn=_block_batch(FfnBatch, [[x.ffn for x in s] for s in stacks]),
    )


def _block_rows(block: Block, selection: slice | NDArray[Any]) -> Block:
    return type(block)(**{f.name: getattr(block, f.name)[selection] for f in fields(block)})


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Ints:
    deepest = max((len(row) for row in rows), default=1)
    padded = np.full((len(rows), deepest), filler, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded
