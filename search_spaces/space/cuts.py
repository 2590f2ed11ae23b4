"""The space of a parent's cuts: layers, heads, feed-forward width, rank, precision, tokens read.

Width and head size stay. Sizes are the parent's and shares of it, in steps that kernels like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from search_spaces.architecture import PRECISIONS, Architecture
from search_spaces.architecture.stacks import ENCODER
from search_spaces.space import DEFAULT_SHARED, SearchSpace
from search_spaces.space.domains import make_domain
from search_spaces.space.loadable import TRANSFORMERS
from search_spaces.workload import Workload

Refusals = Callable[[Architecture], Sequence[str]]

_WIDTH_SHARES = (1, 0.75, 0.5, 0.375, 0.25)
_HEAD_SHARES = (1, 0.75, 0.5, 0.25)
_READ_SHARES = (0.75, 0.5)
# Steps of feed-forward widths: tiles of products, finer for a parent of fewer than four.
_STEPS = (64, 32, 16, 8, 4, 2, 1)
_FEWEST_STEPS = 4
# Depths to choose from, and the least share of the parent's layers.
_MOST_DEPTHS, _LEAST_DEPTH = 8, 0.25
# Tokens below which a text is read whole.
_LEAST_READ = 16


def cuts_of(
    parent: Architecture, workload: Workload, *, refusals: Refusals | None = None
) -> SearchSpace:
    """Return the space of the cuts of ``parent`` for ``workload``.

    ``refusals`` returns why no stock class supports an architecture. With it the space has only
    members that one does, whose layers are alike.

    Raises:
        ValueError: the parent has layers of different shapes, or no stock class supports a cut.
    """
    attention, ffn = parent.layers[0].attention, parent.layers[0].ffn
    kv_heads = _shares(attention.n_kv_heads, _HEAD_SHARES, 1)
    group = attention.n_heads // attention.n_kv_heads
    step = next(s for s in _STEPS if ffn.d_ff >= _FEWEST_STEPS * s or s == 1)
    domains: dict[str, Any] = {
        "d_model": [parent.d_model],
        "depth": _depths(parent.depth),
        "patch_size": [parent.patch_size],
        "resolution": _resolutions(parent, workload),
        "n_heads": [group * heads for heads in kv_heads],
        "n_kv_heads": kv_heads,
        "ffn_ratio": [width / parent.d_model for width in _shares(ffn.d_ff, _WIDTH_SHARES, step)],
        "attention_rank": [None, 0.25],
        "ffn_rank": [None, 0.5],
        "attention_precision": list(PRECISIONS),
        "ffn_precision": list(PRECISIONS),
        "attention_sparsity": ["dense", "2:4"],
        "ffn_sparsity": ["dense", "2:4"],
    }
    shared = DEFAULT_SHARED | {"attention_rank", "ffn_rank"}
    if refusals is not None:
        domains |= _loadable(parent, refusals, domains)
    return SearchSpace(
        name=f"cuts-of-{workload.name}",
        domains={gene: make_domain(gene, values) for gene, values in domains.items()},
        shared=shared,
        loadable=None if refusals is None else TRANSFORMERS,
        parent=parent,
    )


def with_genes(space: SearchSpace, data: Mapping[str, Any]) -> SearchSpace:
    """Return ``space`` with the genes that ``data``, a space file's content, names.

    Raises:
        ValueError: a key is unknown, or a value is not allowed in a space of cuts.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"must be a mapping of genes to lists, got {data!r}")
    for key in ("parent", "family", "extra", "blocks"):
        if key in data:
            raise ValueError(f"{key} must be left out in a space of a checkpoint's cuts")
    merged = {**space.to_dict(), **data}
    return SearchSpace.from_dict(merged)


def with_plain_parent(space: SearchSpace) -> SearchSpace:
    """Return ``space`` with the parent itself among its members."""
    parent = space.parent
    assert parent is not None
    attention, ffn = parent.layers[0].attention, parent.layers[0].ffn
    own: dict[str, Any] = {
        "depth": parent.depth,
        "resolution": parent.resolution,
        ENCODER.heads[0].n_heads: attention.n_heads,
        ENCODER.heads[0].n_kv_heads: attention.n_kv_heads,
        "ffn_ratio": ffn.d_ff / parent.d_model,
        **{f"{block}_rank": None for block in ENCODER.blocks},
        **{f"{block}_precision": "fp32" for block in ENCODER.blocks},
        **{f"{block}_sparsity": "dense" for block in ENCODER.blocks},
    }
    domains = {
        gene: domain
        if own.get(gene, domain.values[0]) in domain
        else make_domain(gene, (own[gene], *domain.values))
        for gene, domain in space.domains.items()
    }
    return replace(space, domains=domains)


def is_uncut(architecture: Architecture, parent: Architecture) -> bool:
    """Whether ``architecture`` is dense and differs from ``parent`` in precision alone."""
    is_dense = all(block.compression.sparsity == "dense" for block in architecture.blocks)
    return is_dense and architecture.in_precision("fp32") == parent


def in_precisions(space: SearchSpace) -> tuple[Architecture, ...]:
    """Return the members of ``space`` that are the parent in one other precision.

    They are in the order of the precisions of feed-forward blocks.
    """
    parent = space.parent
    assert parent is not None
    own = [parent.in_precision(each) for each in space.values("ffn_precision")]
    return tuple(each for each in own if each != parent and space.contains(each))


def _shares(whole: int, shares: tuple[float, ...], step: int) -> list[int]:
    """Return ``whole`` and shares of it in multiples of ``step``, the largest first."""
    sizes = [whole] + [
        min(whole, max(step, round(share * whole / step) * step)) for share in shares
    ]
    return list(dict.fromkeys(sorted(sizes, reverse=True)))


def _depths(depth: int) -> list[int]:
    least = max(1, math.ceil(_LEAST_DEPTH * depth))
    n = min(_MOST_DEPTHS, depth - least + 1)
    if n == 1:
        return [depth]
    gap = (depth - least) / (n - 1)
    return sorted({round(least + index * gap) for index in range(n)})


def _resolutions(parent: Architecture, workload: Workload) -> list[int | None]:
    """Return the numbers of tokens read of a text, or heights in pixels; ``None`` is the whole."""
    if workload.is_image:
        _, height, width = workload.input_shape
        patch = parent.patch_size
        rows = [round(share * height / patch) * patch for share in _READ_SHARES]
        fitting = [r for r in rows if patch < r < height and r * width % (height * patch) == 0]
        return [None, *dict.fromkeys(fitting)]
    length = workload.input_shape[0]
    if not workload.is_pooled or length < 2 * _LEAST_READ:
        return [None]
    return [None, *dict.fromkeys(round(share * length) for share in _READ_SHARES)]


def _loadable(
    parent: Architecture, refusals: Refusals, domains: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values that the parent's stock class supports, of the genes that it limits."""
    reasons = refusals(parent)
    if reasons:
        raise ValueError(f"loadable must be left out for this checkpoint and task: {reasons[0]}")

    first = parent.layers[0]

    def refused(n_heads: int, n_kv_heads: int, d_ff: int) -> bool:
        heads = replace(first.attention, n_heads=n_heads, n_kv_heads=n_kv_heads)
        layer = replace(first, attention=heads, ffn=replace(first.ffn, d_ff=d_ff))
        return bool(refusals(replace(parent, layers=(layer,) * parent.depth)))

    attention, d_ff, width = first.attention, first.ffn.d_ff, parent.d_model
    group = attention.n_heads // attention.n_kv_heads
    kv_heads = [n for n in domains["n_kv_heads"] if not refused(group * n, n, d_ff)]
    ratios = [
        ratio
        for ratio in domains["ffn_ratio"]
        if not refused(attention.n_heads, attention.n_kv_heads, round(ratio * width))
    ]
    return {
        "n_kv_heads": kv_heads,
        "n_heads": [group * n for n in kv_heads],
        "ffn_ratio": ratios,
        "resolution": [None],
    }
