"""Genes of the two stacks of layers that a space may have: encoder (or only stack), decoder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heads:
    """Genes of an attention block's heads and of its key-value heads."""

    n_heads: str
    n_kv_heads: str


@dataclass(frozen=True, slots=True)
class StackGenes:
    """Names of the genes of one stack.

    ``blocks`` are the prefixes of the genes for rank, precision and sparsity of each kind of
    block, in running order: attention, with one of ``heads`` each, then the feed-forward block.
    ``fields`` are the blocks' fields in a layer's specification; ``layer`` is the prefix of genes
    that differ between layers.
    """

    name: str
    layer: str
    d_model: str
    depth: str
    ffn_ratio: str
    heads: tuple[Heads, ...]
    blocks: tuple[str, ...]
    fields: tuple[str, ...]

    @property
    def attention(self) -> tuple[tuple[str, str, Heads], ...]:
        """Prefix, field and heads of each attention block."""
        return tuple(zip(self.blocks, self.fields, self.heads, strict=False))

    @property
    def layer_genes(self) -> tuple[str, ...]:
        """Genes that may differ between layers, in their canonical order."""
        return (
            *(gene for pair in self.heads for gene in (pair.n_heads, pair.n_kv_heads)),
            self.ffn_ratio,
            *(f"{block}_rank" for block in self.blocks),
            *(f"{block}_precision" for block in self.blocks),
            *(f"{block}_sparsity" for block in self.blocks),
        )


ENCODER = StackGenes(
    name="encoder",
    layer="layer",
    d_model="d_model",
    depth="depth",
    ffn_ratio="ffn_ratio",
    heads=(Heads("n_heads", "n_kv_heads"),),
    blocks=("attention", "ffn"),
    fields=("attention", "ffn"),
)
DECODER = StackGenes(
    name="decoder",
    layer="decoder_layer",
    d_model="decoder_d_model",
    depth="decoder_depth",
    ffn_ratio="decoder_ffn_ratio",
    heads=(
        Heads("decoder_n_heads", "decoder_n_kv_heads"),
        Heads("cross_n_heads", "cross_n_kv_heads"),
    ),
    blocks=("decoder_attention", "cross_attention", "decoder_ffn"),
    fields=("attention", "cross_attention", "ffn"),
)
STACKS = (ENCODER, DECODER)


def stack_of(gene: str) -> StackGenes:
    """The stack of a layer's gene, given without the name of a layer."""
    return DECODER if gene in DECODER.layer_genes else ENCODER


def split_gene_name(name: str) -> tuple[StackGenes | None, int, str]:
    """Split ``decoder_layer3.cross_n_heads`` into stack (``None`` if of no layer), layer, gene."""
    where, dot, gene = name.rpartition(".")
    if not dot:
        return None, 0, gene
    stack = DECODER if where.startswith(DECODER.layer) else ENCODER
    return stack, int(where.removeprefix(stack.layer)), gene
