"""Convert names of tensors between GGUF and Hugging Face, and find tensors with reordered rows.

For the architecture ``llama``, llama.cpp rotates neighbouring features. Its files therefore
interleave the two halves of each head's rows of queries and keys: the first row of the first half,
the first of the second half, the second of the first half, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from search_spaces.pretrained.families.family import Stored
from search_spaces.pretrained.families.llama import LLAMA
from search_spaces.pretrained.gguf.package import tensor_name

# Factors of Llama 3's scaled rotary positions; the configuration is derived from them.
ROTARY_FACTORS = "rope_freqs.weight"
_INTERLEAVED = "llama"
_HEAD = "lm_head"
_OF_LAYER = re.compile(r"blk\.(0|[1-9]\d{0,3})\.", re.A)
_OF_MODULE = re.compile(r"model\.layers\.(\d+)\.")


@cache
def modules(architecture: str) -> Mapping[str, str]:
    """Return Hugging Face's names of modules by GGUF's; ``{i}`` is the number of a layer."""
    stored = [source.name if isinstance(source, Stored) else source for source in _sources()]
    names = {tensor_name(architecture, module): module for module in stored}
    return {name: module for name, module in names.items() if name is not None}


def _sources() -> Iterable[Stored | str]:
    for source in LLAMA.names.values():
        assert not isinstance(source, tuple)
        yield source
    yield _HEAD


def check_names(
    names: Iterable[str], architecture: str, depth: int, *, is_tied: bool, path: Path
) -> None:
    """Raise ``ValueError`` if a module's weight is missing, or a tensor belongs to no module."""
    known, present = modules(architecture), set(names)
    required = {
        f"{name.replace('{i}', str(layer))}.weight"
        for name, module in known.items()
        for layer in (range(depth) if "{i}" in name else (0,))
        if module != _HEAD or not is_tied
    }
    missing = min(required - present, default=None)
    if missing is not None:
        raise ValueError(f"{path} must contain the tensor {missing!r}, and does not")
    biases = {name.removesuffix("weight") + "bias" for name in required}
    unused = min(present - required - biases - {ROTARY_FACTORS}, default=None)
    if unused is not None:
        raise ValueError(
            f"{path}: {unused!r} must be left out: a network of {depth} layers has no tensor of "
            f"this name"
        )


def network_name(name: str, architecture: str) -> str:
    """Return Hugging Face's name of a tensor that ``check_names`` allows."""
    module, _, last = name.rpartition(".")
    layer = _OF_LAYER.match(module)
    pattern = _OF_LAYER.sub("blk.{i}.", module)
    return f"{modules(architecture)[pattern].replace('{i}', layer[1] if layer else '')}.{last}"


def stored_name(name: str, architecture: str) -> str:
    """Return GGUF's name of a tensor by its name of Hugging Face."""
    module, _, last = name.rpartition(".")
    if not module.startswith((LLAMA.prefix, _HEAD)):
        module = LLAMA.prefix + module
    layer = _OF_MODULE.match(module)
    pattern = _OF_MODULE.sub("model.layers.{i}.", module)
    by_module = {value: key for key, value in modules(architecture).items()}
    return f"{by_module[pattern].replace('{i}', layer[1] if layer else '')}.{last}"


def interleaved_heads(name: str, architecture: str, heads: int, kv_heads: int) -> int:
    """Return the number of heads whose rows are interleaved in a tensor, 0 for other tensors.

    ``name`` is Hugging Face's.
    """
    if architecture != _INTERLEAVED:
        return 0
    of_module: Mapping[str, int] = {"q_proj": heads, "k_proj": kv_heads}
    return of_module.get(name.split(".")[-2], 0)
