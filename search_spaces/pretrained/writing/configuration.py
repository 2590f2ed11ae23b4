"""Make ``config.json`` of a pruned network: its parent's with other sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.architecture import Architecture, AttentionSpec
from search_spaces.pretrained.checkpoint import Checkpoint
from search_spaces.pretrained.families.family import SizeKeys
from search_spaces.pretrained.writing.loadable import family_named

# Key of the type of weights, since transformers 5 and before.
_DTYPE, _OLD_DTYPE = "dtype", "torch_dtype"


def changed_values(
    checkpoint: Checkpoint, architecture: Architecture, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of ``config`` for ``architecture``; keys of equal sizes are unchanged.

    ``config`` is the parent's, and ``architecture`` one that ``check_loadable`` allows.
    """
    sizes, parent = family_named(checkpoint.family).sizes, checkpoint.architecture
    values = dict(config)
    before, after = parent.layers[0], architecture.layers[0]
    if architecture.depth != parent.depth:
        values[sizes.depth] = architecture.depth
        _prune_depth(values, sizes, kept_layers(parent, architecture))
    _set_heads(values, sizes, before.attention, after.attention)
    d_ff = after.ffn.d_ff
    if d_ff != before.ffn.d_ff:
        make = sizes.ffn_value
        is_gated = parent.style.is_gated
        values[sizes.d_ff] = d_ff if make is None else make(d_ff, parent.d_model, is_gated)
    return values


def kept_layers(parent: Architecture, architecture: Architecture) -> tuple[int, ...]:
    """Return the parent's layer that each layer of ``architecture`` is taken from."""
    from search_spaces.compression.inherit import source_layers

    return source_layers(parent.depth, architecture.depth)


def with_dtype(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return ``values`` with the type of weights ``name``, such as ``float32``."""
    key = _OLD_DTYPE if _OLD_DTYPE in values and _DTYPE not in values else _DTYPE
    return {**values, key: name}


def _set_heads(
    values: dict[str, Any], sizes: SizeKeys, before: AttentionSpec, after: AttentionSpec
) -> None:
    has_other_heads = after.n_heads != before.n_heads
    # The last two may be absent; their defaults depend on the number of heads.
    for key, old, new in (
        (sizes.heads, before.n_heads, after.n_heads),
        (sizes.kv_heads, before.n_kv_heads, after.n_kv_heads),
        (sizes.d_head, before.d_head, after.d_head),
    ):
        if key is not None and (has_other_heads or old != new):
            values[key] = new


def _prune_depth(values: dict[str, Any], sizes: SizeKeys, layers: Sequence[int]) -> None:
    for key in sizes.by_layer:
        of_layers = values.get(key)
        if isinstance(of_layers, list):
            values[key] = [of_layers[index] for index in layers]
    for key in sizes.of_depth:
        values.pop(key, None)
