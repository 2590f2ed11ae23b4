"""The Llama type: Llama (Touvron et al. 2023), SmolLM2, Mistral, Qwen2 and Qwen3.

Mistral: Jiang et al. 2023; Qwen2: Yang et al. 2024, with biases on queries, keys and values;
Qwen3: Yang et al. 2025, with norms on the queries and keys of each head.
"""

from __future__ import annotations

from typing import Any

from search_spaces.architecture import Architecture, AttentionSpec, BlockStyle, FfnSpec, LayerSpec
from search_spaces.architecture.style import BiasStyle, NormStyle
from search_spaces.pretrained.families.activations import ACTIVATIONS, NAMES
from search_spaces.pretrained.families.family import Blueprint, Family, Head, SizeKeys
from search_spaces.pretrained.families.rotary import rotary_positions, rotary_values
from search_spaces.pretrained.files.config import (
    MOST_HEAD_SIZE,
    MOST_HEADS,
    MOST_LAYERS,
    MOST_POSITIONS,
    MOST_VOCABULARY,
    Config,
)
from search_spaces.workload import Workload

_OURS, _LAYER = "layers.{i}", "model.layers.{i}"


def _read(config: Config, head: Head) -> Blueprint:
    model_type = config.take("model_type")
    heads = config.integer("num_attention_heads", most=MOST_HEADS)
    has_own = model_type == "llama"
    attention = AttentionSpec(
        heads,
        config.integer("num_key_value_heads", heads if has_own else None),
        _head_size(config, heads, is_required=model_type == "qwen3"),
    )
    layers = config.integer("num_hidden_layers", most=MOST_LAYERS)
    length, limit = _longest(config, layers)
    layer = LayerSpec(attention, FfnSpec(config.integer("intermediate_size")))
    style = BlockStyle(
        NormStyle("rms", config.number("rms_norm_eps"), on_queries_and_keys=model_type == "qwen3"),
        config.choice("hidden_act", ACTIVATIONS),
        is_gated=True,
        positions=rotary_positions(config),
        biases=_biases(config, model_type),
        pooling="last",
        is_head_tied=_is_tied(config, head),
        is_causal=head.kind != "language_modelling",
    )
    return Blueprint(
        Architecture(config.integer("hidden_size"), (layer,) * layers, style=style),
        (length,),
        limit,
        config.integer("vocab_size", most=MOST_VOCABULARY),
    )


def _write(architecture: Architecture, workload: Workload) -> dict[str, Any]:
    style = architecture.style
    biases, model_type = style.biases, "llama"
    if style.norm.on_queries_and_keys:
        model_type = "qwen3"
    elif biases.qkv and not biases.o:
        model_type = "qwen2"
    values = {
        "model_type": model_type,
        "hidden_size": architecture.d_model,
        "rms_norm_eps": style.norm.epsilon,
        "hidden_act": NAMES[style.activation],
        **rotary_values(style.positions),
        "max_position_embeddings": workload.input_shape[0],
        "vocab_size": workload.vocab_size,
        "tie_word_embeddings": workload.has_tied_head(style),
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if model_type != "qwen2":
        values["attention_bias"] = biases.o
    if model_type == "llama":
        values["mlp_bias"] = biases.ffn
    return values


def _head_size(config: Config, heads: int, *, is_required: bool) -> int:
    """The size of heads, by default the width by their number."""
    width = config.integer("hidden_size")
    if is_required or "head_dim" in config:
        return config.integer("head_dim", most=MOST_HEAD_SIZE)
    config.take("head_dim")
    if width % heads:
        raise config.error("num_attention_heads", f"a divisor of hidden_size, {width}", heads)
    return width // heads


def _biases(config: Config, model_type: str) -> BiasStyle:
    if model_type == "llama":
        of_attention, of_ffn = config.flag("attention_bias", False), config.flag("mlp_bias", False)
        return BiasStyle(qkv=of_attention, o=of_attention, ffn=of_ffn, head=False)
    config.require("mlp_bias", (False,))
    if model_type == "qwen3":
        of_attention = config.flag("attention_bias", False)
        return BiasStyle(qkv=of_attention, o=of_attention, ffn=False, head=False)
    config.require("attention_bias", (model_type == "qwen2",))
    return BiasStyle(qkv=model_type == "qwen2", o=False, ffn=False, head=False)


def _is_tied(config: Config, head: Head) -> bool:
    return config.flag("tie_word_embeddings", False) and head.kind == "language_modelling"


def _longest(config: Config, layers: int) -> tuple[int, str]:
    """The most tokens, and the key that they follow from.

    In a layer with a sliding window a token reads the ``sliding_window`` tokens up to itself. In
    texts of at most so many these are all, so the length is limited instead.
    """
    length = config.integer("max_position_embeddings", most=MOST_POSITIONS)
    window = _window(config, layers)
    if window is not None and window < length:
        return window, "sliding_window"
    return length, "max_position_embeddings"


def _window(config: Config, layers: int) -> int | None:
    """The smallest window of any layer, ``None`` where all layers read all tokens."""
    model_type = config.take("model_type")
    if model_type == "llama":
        # Its class has no windows.
        config.require("sliding_window", ())
        config.require("use_sliding_window", (False,))
        return None
    types = _layer_types(config, layers)
    first = config.integer("max_window_layers", 0 if model_type == "mistral" else 28, least=0)
    window = config.take("sliding_window")
    if model_type == "mistral":
        config.require("use_sliding_window", (True,))
        if "sliding_window" not in config.values:
            # The class's default, of files before the key was written.
            return 4096
    elif not config.flag("use_sliding_window", False):
        return None
    if window is None:
        return None
    size = config.integer("sliding_window", most=MOST_POSITIONS)
    has_windows = "sliding_attention" in types if types else first < layers
    return size if has_windows or model_type == "mistral" else None


def _layer_types(config: Config, layers: int) -> list[str]:
    types = config.take("layer_types")
    if types is None:
        return []
    known = ("full_attention", "sliding_attention")
    if not isinstance(types, list) or len(types) != layers or any(x not in known for x in types):
        allowed = f"a list of {layers} of {' and '.join(known)}"
        raise config.error("layer_types", allowed, types)
    return types


LLAMA = Family(
    name="llama",
    classes={"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"},
    heads={
        "ForCausalLM": Head("language_modelling", {"head": "lm_head"}),
        "ForSequenceClassification": Head("text_classification", {"head": "score"}),
        "Model": Head("text_embedding"),
    },
    read=_read,
    write=_write,
    sizes=SizeKeys(kv_heads="num_key_value_heads", d_head="head_dim", by_layer=("layer_types",)),
    names={
        "embed": "model.embed_tokens",
        f"{_OURS}.attention_norm": f"{_LAYER}.input_layernorm",
        f"{_OURS}.attention.q": f"{_LAYER}.self_attn.q_proj",
        f"{_OURS}.attention.k": f"{_LAYER}.self_attn.k_proj",
        f"{_OURS}.attention.v": f"{_LAYER}.self_attn.v_proj",
        f"{_OURS}.attention.o": f"{_LAYER}.self_attn.o_proj",
        f"{_OURS}.attention.q_norm": f"{_LAYER}.self_attn.q_norm",
        f"{_OURS}.attention.k_norm": f"{_LAYER}.self_attn.k_norm",
        f"{_OURS}.ffn_norm": f"{_LAYER}.post_attention_layernorm",
        f"{_OURS}.ffn.gate": f"{_LAYER}.mlp.gate_proj",
        f"{_OURS}.ffn.up": f"{_LAYER}.mlp.up_proj",
        f"{_OURS}.ffn.down": f"{_LAYER}.mlp.down_proj",
        "norm": "model.norm",
    },
    prefix="model.",
    ties={"lm_head.weight": "model.embed_tokens.weight"},
    spare=(".rotary_emb.inv_freq",),
    # Splitting products into ranks of tensor parallelism changes rounding only.
    harmless=frozenset({"is_llama_config", "max_sequence_length", "pretraining_tp"}),
)
