"""Narrow spaces to members that stock classes support: layers alike, dense, in one type.

``search_spaces.pretrained.writing.stock`` checks a single network. Here the space itself is
narrowed, so that sampling, mutation and crossover return only such members. Tied genes take one
value: the precision of both blocks, and both numbers of heads for classes without key-value heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import TRANSFORMER
from search_spaces.space.domains import Choice

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace

TRANSFORMERS = "transformers"
LOADABLE = (TRANSFORMERS,)
# Blocks whose classes have as many key-value heads as heads.
UNGROUPED = frozenset({"bert", "vit", "gpt2"})
# Precisions whose weights are numbers of one type.
_STORED = ("fp32", "bf16")


def loadable_domains(space: SearchSpace) -> dict[str, Choice]:
    """Return the domains of ``space`` without values that no stock class supports.

    Raises:
        ValueError: a gene has no value left; the message names it.
    """
    if space.loadable not in LOADABLE:
        raise ValueError(
            f"loadable must be {' or '.join(LOADABLE)} or left out, got {space.loadable!r}"
        )
    if space.family != TRANSFORMER or space.has_decoder:
        what = "decoder_depth" if space.has_decoder else f"family {space.family}"
        raise ValueError(
            f"loadable must be left out of a space with {what}: no stock class supports it"
        )
    precisions = tuple(
        value for value in space.values("attention_precision")
        if value in _STORED and value in space.values("ffn_precision")
    )  # fmt: skip
    allowed: dict[str, tuple[Any, ...]] = {}
    for block in ("attention", "ffn"):
        allowed[f"{block}_precision"] = precisions
        for gene, value in ((f"{block}_rank", None), (f"{block}_sparsity", "dense")):
            allowed[gene] = tuple(v for v in space.values(gene) if v == value)
    for gene, values in allowed.items():
        if not values:
            needed = "fp32 or bf16, the same in both blocks"
            if not gene.endswith("precision"):
                needed = "null" if gene.endswith("rank") else "dense"
            raise ValueError(
                f"{gene} must offer {needed} in a space with loadable, got "
                f"{list(space.values(gene))}"
            )
    ungrouped = sorted(UNGROUPED.intersection(space.values("blocks")))
    lacking = [n for n in space.values("n_heads") if n not in space.values("n_kv_heads")]
    if ungrouped and lacking:
        raise ValueError(
            f"n_kv_heads must offer every value of n_heads with loadable and blocks "
            f"{ungrouped[0]}, whose classes have as many of both; it lacks {lacking}"
        )
    return {**space.domains, **{gene: Choice(values) for gene, values in allowed.items()}}


def tied(genes: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Return ``genes`` with equal values of genes that a stock class ties."""
    result = dict(genes)
    if space.loadable is not None:
        result["ffn_precision"] = result["attention_precision"]
        if result.get("blocks") in UNGROUPED:
            result["n_kv_heads"] = result["n_heads"]
    return result


def tied_positions(positions_NG: NDArray[np.int64], space: SearchSpace) -> NDArray[np.int64]:
    """Apply ``tied`` to rows of positions in the genes' domains (N candidates, G genes)."""
    if space.loadable is None:
        return positions_NG
    column = {name: index for index, name in enumerate(space.genes())}
    result = positions_NG.copy()
    # Both precisions have one domain.
    result[:, column["ffn_precision"]] = result[:, column["attention_precision"]]
    if "blocks" in column:
        is_ungrouped = np.array([name in UNGROUPED for name in space.values("blocks")])
        rows = is_ungrouped[result[:, column["blocks"]]]
        kv_heads = space.values("n_kv_heads")
        same = np.array(
            [kv_heads.index(n) if n in kv_heads else 0 for n in space.values("n_heads")]
        )
        result[rows, column["n_kv_heads"]] = same[result[rows, column["n_heads"]]]
    return result
