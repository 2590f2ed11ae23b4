"""Blocks and layers of architectures as plain data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from operator import itemgetter
from typing import Any

from search_spaces.architecture.blocks import (
    AttentionSpec,
    Compression,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)

# Keys of each block, in the order of its fields; precision and sparsity are its compression.
_COMPRESSION = ("precision", "sparsity")
_KEYS: dict[type, tuple[str, ...]] = {
    AttentionSpec: ("n_heads", "n_kv_heads", "d_head", "rank", *_COMPRESSION),
    FfnSpec: ("d_ff", "rank", *_COMPRESSION),
}
_KEY_SETS = {kind: frozenset(keys) for kind, keys in _KEYS.items()}
_VALUES = {kind: itemgetter(*keys) for kind, keys in _KEYS.items()}
# Blocks of each kind of layer.
_LAYERS: dict[type, dict[str, type]] = {
    LayerSpec: {"attention": AttentionSpec, "ffn": FfnSpec},
    DecoderLayerSpec: {
        "attention": AttentionSpec,
        "cross_attention": AttentionSpec,
        "ffn": FfnSpec,
    },
}
_MOST_CACHED_BLOCKS = 2**14


def layers_to_list(layers: Sequence[LayerSpec | DecoderLayerSpec]) -> list[dict[str, Any]]:
    """Plain data of layers."""
    return [
        {name: _block_to_dict(getattr(layer, name)) for name in _LAYERS[type(layer)]}
        for layer in layers
    ]


def layers_from_list(data: object, where: str) -> tuple[LayerSpec, ...]:
    """Read ``layers_to_list``'s form.

    Raises:
        ValueError: a key is missing, unknown, or its value not allowed.
    """
    return tuple(LayerSpec(**blocks) for blocks in _read_layers(data, where, LayerSpec))


def decoder_to_dict(decoder: DecoderSpec) -> dict[str, Any]:
    """Plain data of a decoder."""
    return {"d_model": decoder.d_model, "layers": layers_to_list(decoder.layers)}


def decoder_from_dict(data: Any, where: str) -> DecoderSpec:
    """Read ``decoder_to_dict``'s form.

    Raises:
        ValueError: a key is missing, unknown, or its value not allowed.
    """
    check_keys(where, data, {"d_model", "layers"})
    layers = _read_layers(data["layers"], f"{where}.layers", DecoderLayerSpec)
    return DecoderSpec(data["d_model"], tuple(DecoderLayerSpec(**blocks) for blocks in layers))


def _block_to_dict(block: AttentionSpec | FfnSpec) -> dict[str, Any]:
    return {
        key: getattr(block.compression if key in _COMPRESSION else block, key)
        for key in _KEYS[type(block)]
    }


def _read_layers(data: object, where: str, layer: type) -> Iterator[dict[str, Any]]:
    """Yield the blocks of each layer by name."""
    if not isinstance(data, list):
        raise ValueError(f"{where} must be a list, got {data!r}")
    kinds = _LAYERS[layer]
    for index, item in enumerate(data):
        at = f"{where}[{index}]"
        check_keys(at, item, kinds.keys())
        yield {name: _read_block(kind, item[name], f"{at}.{name}") for name, kind in kinds.items()}


def _read_block(kind: type, data: Any, where: str) -> Any:
    check_keys(where, data, _KEY_SETS[kind])
    values = _VALUES[kind](data)
    try:
        return _cached_block(kind, *values)
    except TypeError:
        # An unhashable value: let the constructor report it.
        return _cached_block.__wrapped__(kind, *values)


# The models of a search share few blocks: each is validated, and stored, once.
@lru_cache(maxsize=_MOST_CACHED_BLOCKS, typed=True)
def _cached_block(kind: type, *values: Any) -> Any:
    *sizes, precision, sparsity = values
    return kind(*sizes, Compression(precision, sparsity))


def check_keys(
    where: str, data: object, needed: AbstractSet[str], *, may_lack: Collection[str] = ()
) -> None:
    """Raise ``ValueError`` unless ``data`` is a mapping with the keys it needs and no others."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object, got {data!r}")
    if data.keys() == needed:
        return
    allowed = needed | set(may_lack)
    missing, unknown = needed - data.keys(), data.keys() - allowed
    if missing:
        raise ValueError(f"{where} lacks {', '.join(sorted(missing))}")
    if unknown:
        raise ValueError(
            f"{where} has unknown key {', '.join(sorted(map(str, unknown)))}; "
            f"allowed: {', '.join(sorted(allowed))}"
        )
