"""Rules of spaces whose members are cut from a parent architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search_spaces.architecture import TRANSFORMER, Architecture

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace


def are_cut_heads(n_heads: int, n_kv_heads: int, parent: Architecture) -> bool:
    """Whether the parent's attention can be cut to so many heads.

    Key-value heads stay whole, and none serves more queries than in the parent.
    """
    attention = parent.layers[0].attention
    return (
        n_heads <= attention.n_heads
        and n_kv_heads <= attention.n_kv_heads
        and n_heads % n_kv_heads == 0
        and n_heads // n_kv_heads <= attention.n_heads // attention.n_kv_heads
    )


def no_heads(parent: Architecture, gene: str, values: Mapping[str, Any]) -> str:
    """Return the message for heads of which no combination is a cut of ``parent``."""
    attention = parent.layers[0].attention
    group = attention.n_heads // attention.n_kv_heads
    heads = values[gene]
    shown = list(heads) if hasattr(heads, "__iter__") else heads
    return (
        f"{gene} must be at most {attention.n_heads} and a multiple of n_kv_heads, at most "
        f"{attention.n_kv_heads}, with at most {group} heads to each (the parent's), got {shown}"
    )


def check_parent(parent: Architecture, space: SearchSpace) -> None:
    """Raise ``ValueError`` naming the gene unless members of ``space`` can be cuts of ``parent``.

    A parent has layers of one shape, dense and fp32.
    """
    if parent.family != TRANSFORMER or parent.decoder is not None or space.has_decoder:
        raise ValueError("parent must be a single stack of the family transformer")
    if len(set(parent.layers)) > 1:
        raise ValueError(f"parent must have layers of one shape, got {parent.describe()}")
    if space.family != TRANSFORMER:
        raise ValueError(f"family must be {TRANSFORMER} with a parent, got {space.family!r}")
    attention, ffn = parent.layers[0].attention, parent.layers[0].ffn
    for gene, fixed in (
        ("d_model", parent.d_model),
        ("patch_size", parent.patch_size),
        ("blocks", "default"),
    ):
        if space.values(gene) != (fixed,):
            shown = "left out" if gene == "blocks" else f"[{fixed}]"
            raise ValueError(
                f"{gene} must be {shown} in a space with a parent, which keeps it, got "
                f"{list(space.values(gene))}"
            )
    for gene, most in (
        ("depth", parent.depth),
        ("n_heads", attention.n_heads),
        ("n_kv_heads", attention.n_kv_heads),
        ("ffn_ratio", ffn.d_ff / parent.d_model),
    ):
        if max(space.values(gene)) > most:
            raise ValueError(
                f"{gene} must be at most {most:g} (the parent's), got {list(space.values(gene))}"
            )
