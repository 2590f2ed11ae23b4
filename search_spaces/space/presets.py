"""Spaces by name. A preset is plain data of the same form as a user's YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.core.nearest import did_you_mean
from search_spaces.architecture import PRECISIONS
from search_spaces.space import SearchSpace

# Unstructured sparsity is in no preset: no device has a kernel that gains from it.
_COMPRESSION: dict[str, Any] = {
    "attention_precision": list(PRECISIONS),
    "ffn_precision": list(PRECISIONS),
    "attention_sparsity": ["dense", "2:4"],
    "ffn_sparsity": ["dense", "2:4"],
}
_LARGE: dict[str, Any] = {
    "d_model": [128, 192, 256, 384, 512, 768, 1024],
    "depth": {"low": 2, "high": 12},
    "n_heads": [2, 4, 8, 16],
    "n_kv_heads": [1, 2, 4, 8, 16],
    "ffn_ratio": [1, 2, 3, 4],
    "attention_rank": [None, 0.25],
    "ffn_rank": [None, 0.25],
    **_COMPRESSION,
}
_PRESETS: tuple[dict[str, Any], ...] = (
    {
        "name": "digits-tiny",
        "d_model": [16, 24, 32, 48, 64, 96],
        "depth": [1, 2, 3],
        "n_heads": [1, 2, 4],
        "n_kv_heads": [1, 2, 4],
        "ffn_ratio": [0.5, 1, 2, 4],
        "attention_rank": [None, 0.25],
        "ffn_rank": [None, 0.25],
        # Patches of 8 would leave one token, and attention nothing to do.
        "patch_size": [2, 4],
        # Widths this small have no fp8 or 2:4 kernel: those want multiples of 16 and of 64.
        "attention_precision": ["fp32", "bf16", "int8"],
        "ffn_precision": ["fp32", "bf16", "int8"],
    },
    {"name": "encoder-base", **_LARGE, "patch_size": [1]},
    {"name": "vision-base", **_LARGE, "patch_size": [8, 16, 32]},
    {"name": "decoder-base", **_LARGE, "patch_size": [1]},
    {
        # Encoder and decoder apart, as in HAT (Wang et al. 2020): translation.
        "name": "translation-base",
        "d_model": [64, 96, 128, 192, 256, 384, 512],
        "depth": {"low": 1, "high": 6},
        "n_heads": [2, 4, 8],
        "n_kv_heads": [1, 2, 4, 8],
        "ffn_ratio": [1, 2, 3, 4],
        "decoder_d_model": [64, 96, 128, 192, 256, 384, 512],
        "decoder_depth": {"low": 1, "high": 6},
        "decoder_n_heads": [2, 4, 8],
        "decoder_n_kv_heads": [1, 2, 4, 8],
        "cross_n_heads": [2, 4, 8],
        "cross_n_kv_heads": [1, 2, 4, 8],
        "decoder_ffn_ratio": [1, 2, 3, 4],
    },
)
PRESETS: dict[str, SearchSpace] = {data["name"]: SearchSpace.from_dict(data) for data in _PRESETS}


def get_space(name: str) -> SearchSpace:
    """The preset called ``name``, or the space in the YAML file at that path.

    Raises:
        ValueError: there is no such preset or file, or the file is not a space.
    """
    if name in PRESETS:
        return PRESETS[name]
    if Path(name).suffix in (".yaml", ".yml"):
        return SearchSpace.from_yaml(Path(name))
    hint = did_you_mean(name, PRESETS)
    raise ValueError(
        f"space must be one of {', '.join(PRESETS)} or a .yaml file, got {name!r}{hint}"
    )
