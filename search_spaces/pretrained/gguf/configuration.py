"""Convert configurations of the Llama type between GGUF metadata and Hugging Face's keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from search_spaces.architecture import Architecture
from search_spaces.pretrained.files.config import (
    MOST_HEAD_SIZE,
    MOST_HEADS,
    MOST_LAYERS,
    MOST_POSITIONS,
    MOST_VOCABULARY,
    Config,
)

ARCHITECTURE = "general.architecture"
# Architectures of GGUF, and the classes of transformers that compute them.
CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
TOKENS = "tokenizer.ggml.tokens"
# Keys of special tokens in config.json and in GGUF.
TOKEN_NUMBERS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}
# Allowed values of keys that may be absent; keys without the architecture's name.
_REQUIRED: Mapping[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "use_parallel_residual": (False,),
}
# Keys about contexts longer than pretraining's. They have no effect on outputs.
_HARMLESS = frozenset({"rope.scaling.finetuned", "rope.scaling.original_context_length"})
_SCALING, _PARTS = "rope.scaling.type", "split.count"


def architecture_of(metadata: Mapping[str, Any], path: Path) -> str:
    """Return the architecture that a file names.

    Raises:
        ValueError: the architecture is not of the Llama type, or the file is one of several parts.
    """
    config = Config(metadata, path)
    # Else the first tensor of another part would be called missing.
    config.require(_PARTS, (0, 1))
    return config.choice(ARCHITECTURE, {name: name for name in CLASSES})


class _Hyperparameters:
    """Values whose keys begin with the architecture's name."""

    def __init__(self, metadata: Mapping[str, Any], path: Path, architecture: str) -> None:
        self._prefix, self._config = f"{architecture}.", Config(metadata, path)
        self.metadata = metadata

    def key(self, name: str) -> str:
        """Return the key with the architecture's name."""
        return self._prefix + name

    def integer(self, name: str, default: int | None = None, *, most: int = 2**20) -> int:
        """Return an integer of 1 or more."""
        return self._config.integer(self.key(name), default, most=most)

    def number(self, name: str, default: float | None = None, *, above: float = 0.0) -> float:
        """Return a finite number."""
        return self._config.number(self.key(name), default, above=above)

    def choice(self, name: str, allowed: Collection[str], default: str) -> str:
        """Return one of the texts ``allowed``."""
        if self.key(name) not in self.metadata:
            return default
        return self._config.choice(self.key(name), {text: text for text in allowed})

    def require(self, name: str, values: tuple[object, ...]) -> None:
        """Raise ``ValueError`` unless the value is absent or one of ``values``."""
        self._config.require(self.key(name), values)

    def check_read(self) -> None:
        """Raise ``ValueError`` for a key that was not read, since it may change outputs."""
        unread = self._config.unread({self.key(name) for name in _HARMLESS})
        for key in unread:
            if key.startswith(self._prefix):
                allowed = "left out (no known key of the Llama type)"
                raise self._config.error(key, allowed, self.metadata[key])


def configuration(
    metadata: Mapping[str, Any], path: Path, tensors: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Return the values of ``config.json`` that a file's metadata describes.

    Args:
        metadata: The file's values by key.
        path: The file.
        tensors: Shapes by name, whose names decide which biases exist and whether the head is
            tied.

    Raises:
        ValueError: a value is missing, not allowed or not supported; the message names the key.
    """
    architecture = architecture_of(metadata, path)
    read = _Hyperparameters(metadata, path, architecture)
    for name, allowed in _REQUIRED.items():
        read.require(name, allowed)
    heads, width = (
        read.integer("attention.head_count", most=MOST_HEADS),
        read.integer("embedding_length"),
    )
    values: dict[str, Any] = {
        "architectures": [CLASSES[architecture]],
        "model_type": architecture,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": read.integer("feed_forward_length"),
        "num_hidden_layers": read.integer("block_count", most=MOST_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": read.integer("attention.head_count_kv", heads, most=MOST_HEADS),
        "head_dim": _head_size(read, width, heads, path),
        "max_position_embeddings": read.integer("context_length", most=MOST_POSITIONS),
        "rms_norm_eps": read.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": read.number("rope.freq_base", 10_000.0, above=1),
        "rope_scaling": _scaling(read),
        "tie_word_embeddings": "output.weight" not in tensors,
        "vocab_size": _vocabulary(read, metadata, tensors),
        **_token_numbers(metadata, path),
    }
    if architecture == "llama":
        values["attention_bias"] = "blk.0.attn_q.bias" in tensors
        values["mlp_bias"] = "blk.0.ffn_gate.bias" in tensors
    read.check_read()
    return values


def _head_size(read: _Hyperparameters, width: int, heads: int, path: Path) -> int:
    """Return the size of heads, by default the width divided by their number.

    All features of a head must be rotated.
    """
    key, rotated = "attention.key_length", "rope.dimension_count"
    if read.key(key) in read.metadata:
        size = read.integer(key, most=MOST_HEAD_SIZE)
    elif width % heads:
        raise ValueError(
            f"{path}: {read.key('attention.head_count')} must be a divisor of "
            f"{read.key('embedding_length')}, {width}, got {heads}"
        )
    else:
        size = width // heads
    if size % 2:
        raise ValueError(f"{path}: the size of heads must be even (rotary positions), got {size}")
    read.require(rotated, (size,))
    read.require("attention.value_length", (size,))
    return size


def _scaling(read: _Hyperparameters) -> dict[str, Any] | None:
    """Return the scaling of rotary positions as ``rope_scaling``; linear unless named.

    ``None`` without a scaling. The default is llama.cpp's.
    """
    read.require("rope.scale_linear", (1, 1.0))
    read.require("rope.scaling.attn_factor", (1, 1.0))
    factor = read.number("rope.scaling.factor", 1.0)
    if read.choice(_SCALING, ("none", "linear"), "linear") == "none" or factor == 1:
        return None
    return {"rope_type": "linear", "factor": factor}


def _vocabulary(
    read: _Hyperparameters, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]
) -> int:
    """Return the vocabulary's size: the file's, else that of its tokens, else of embeddings."""
    tokens = metadata.get(TOKENS)
    rows = tensors.get("token_embd.weight", (1,))[0]
    default = len(tokens) if isinstance(tokens, list) and tokens else rows
    return read.integer("vocab_size", default, most=MOST_VOCABULARY)


def _token_numbers(metadata: Mapping[str, Any], path: Path) -> dict[str, int | None]:
    read, most = Config(metadata, path), MOST_VOCABULARY
    return {
        name: read.integer(key, least=0, most=most) if key in metadata else None
        for name, key in TOKEN_NUMBERS.items()
    }


def hyperparameters(
    architecture: Architecture, kind: str, vocab_size: int, longest: int
) -> dict[str, Any]:
    """Return the metadata of a network, with keys of GGUF's architecture ``kind``.

    Args:
        architecture: One of the Llama type, with equal layers.
        kind: One of ``CLASSES``.
        vocab_size: Number of tokens in the vocabulary.
        longest: Maximum number of tokens in a text.
    """
    layer, style = architecture.layers[0], architecture.style
    attention = layer.attention
    values = {
        "vocab_size": vocab_size,
        "context_length": longest,
        "embedding_length": architecture.d_model,
        "block_count": architecture.depth,
        "feed_forward_length": layer.ffn.d_ff,
        "attention.head_count": attention.n_heads,
        "attention.head_count_kv": attention.n_kv_heads,
        "attention.key_length": attention.d_head,
        "attention.value_length": attention.d_head,
        "attention.layer_norm_rms_epsilon": style.norm.epsilon,
        "rope.dimension_count": attention.d_head,
        "rope.freq_base": style.positions.theta,
    }
    return {f"{kind}.{name}": value for name, value in values.items()}
