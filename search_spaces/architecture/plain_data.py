"""Blocks and layers of architectures as plain data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from search_spaces.architecture.blocks import (
    AttentionSpec,
    Compression,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
    Precision,
    Sparsity,
)

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

Block = TypeVar("Block", AttentionSpec, FfnSpec)

_SHARED = ("rank", "precision", "sparsity")
_ATTENTION = ("n_heads", "n_kv_heads", "d_head", *_SHARED)
_FFN = ("d_ff", *_SHARED)
_ATTENTION_KEYS, _FFN_KEYS = frozenset(_ATTENTION), frozenset(_FFN)
_LAYER_KEYS = frozenset({"attention", "ffn"})
_DECODER_LAYER_KEYS = _LAYER_KEYS | {"cross_attention"}
_attention_values, _ffn_values = itemgetter(*_ATTENTION), itemgetter(*_FFN)
# The models of a search share few blocks: each is validated, and stored, once.
_BLOCKS_KEPT = 2**14


def layers_to_list(layers: Sequence[LayerSpec]) -> list[dict[str, Any]]:
    """Plain data of layers."""
    return [
        {"attention": _attention_to_dict(layer.attention), "ffn": _ffn_to_dict(layer.ffn)}
        for layer in layers
    ]


def layers_from_list(data: object, where: str) -> tuple[LayerSpec, ...]:
    """Read ``layers_to_list``'s form.

    Raises:
        ValueError: a key is missing, unknown, or its value not allowed.
    """
    return tuple(
        LayerSpec(
            _attention_from_dict(item["attention"], f"{at}.attention"),
            _ffn_from_dict(item["ffn"], f"{at}.ffn"),
        )
        for at, item in _layers(data, where, _LAYER_KEYS)
    )


def _attention_to_dict(block: AttentionSpec) -> dict[str, Any]:
    return {
        "n_heads": block.n_heads,
        "n_kv_heads": block.n_kv_heads,
        "d_head": block.d_head,
        **_shared_to_dict(block),
    }


def _ffn_to_dict(block: FfnSpec) -> dict[str, Any]:
    return {"d_ff": block.d_ff, **_shared_to_dict(block)}


def decoder_to_dict(decoder: DecoderSpec) -> dict[str, Any]:
    """Plain data of a decoder."""
    return {
        "d_model": decoder.d_model,
        "layers": [
            {
                "attention": _attention_to_dict(layer.attention),
                "cross_attention": _attention_to_dict(layer.cross_attention),
                "ffn": _ffn_to_dict(layer.ffn),
            }
            for layer in decoder.layers
        ],
    }


def _shared_to_dict(block: AttentionSpec | FfnSpec) -> dict[str, Any]:
    return {
        "rank": block.rank,
        "precision": block.compression.precision,
        "sparsity": block.compression.sparsity,
    }


def _layers(data: object, where: str, keys: AbstractSet[str]) -> Iterator[tuple[str, Any]]:
    """The items of a list of layers, each with its place."""
    if not isinstance(data, list):
        raise ValueError(f"{where} must be a list, got {data!r}")
    for index, item in enumerate(data):
        check_keys(f"{where}[{index}]", item, keys)
        yield f"{where}[{index}]", item


def _attention_from_dict(data: Any, where: str) -> AttentionSpec:
    check_keys(where, data, _ATTENTION_KEYS)
    return _checked_once(_attention, _attention_values(data))


def _ffn_from_dict(data: Any, where: str) -> FfnSpec:
    check_keys(where, data, _FFN_KEYS)
    return _checked_once(_ffn, _ffn_values(data))


def _checked_once(make: _lru_cache_wrapper[Block], values: tuple[Any, ...]) -> Block:
    try:
        return make(*values)
    except TypeError:
        # An unhashable value: let the constructor report it.
        return make.__wrapped__(*values)


@lru_cache(maxsize=_BLOCKS_KEPT, typed=True)
def _attention(
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
    rank: int | None,
    precision: Precision,
    sparsity: Sparsity,
) -> AttentionSpec:
    return AttentionSpec(n_heads, n_kv_heads, d_head, rank, Compression(precision, sparsity))


@lru_cache(maxsize=_BLOCKS_KEPT, typed=True)
def _ffn(d_ff: int, rank: int | None, precision: Precision, sparsity: Sparsity) -> FfnSpec:
    return FfnSpec(d_ff, rank, Compression(precision, sparsity))


def decoder_from_dict(data: Any, where: str) -> DecoderSpec:
    """Read ``decoder_to_dict``'s form.

    Raises:
        ValueError: a key is missing, unknown, or its value not allowed.
    """
    check_keys(where, data, {"d_model", "layers"})
    layers = tuple(
        DecoderLayerSpec(
            _attention_from_dict(item["attention"], f"{at}.attention"),
            _attention_from_dict(item["cross_attention"], f"{at}.cross_attention"),
            _ffn_from_dict(item["ffn"], f"{at}.ffn"),
        )
        for at, item in _layers(data["layers"], f"{where}.layers", _DECODER_LAYER_KEYS)
    )
    return DecoderSpec(data["d_model"], layers)


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
