"""GPT-2 (Radford et al. 2019); its linear maps are stored transposed, queries to values as one."""

from __future__ import annotations

from typing import Any

from search_spaces.architecture import Architecture, AttentionSpec, BlockStyle, FfnSpec, LayerSpec
from search_spaces.architecture.style import BiasStyle, NormStyle
from search_spaces.pretrained.families.activations import ACTIVATIONS, NAMES
from search_spaces.pretrained.families.family import (
    Blueprint,
    Family,
    Head,
    Names,
    SizeKeys,
    Stored,
)
from search_spaces.pretrained.files.config import (
    MOST_HEADS,
    MOST_LAYERS,
    MOST_TABLE,
    MOST_VOCABULARY,
    Config,
)
from search_spaces.workload import Workload

_OURS, _LAYER = "layers.{i}", "transformer.h.{i}"


def _read(config: Config, head: Head) -> Blueprint:
    config.require("scale_attn_weights", (True,))
    config.require("scale_attn_by_inverse_layer_idx", (False,))
    config.require("reorder_and_upcast_attn", (False,))
    width, heads = config.integer("n_embd"), config.integer("n_head", most=MOST_HEADS)
    if width % heads:
        raise config.error("n_head", f"a divisor of n_embd, {width}", heads)
    layer = LayerSpec(
        AttentionSpec(heads, heads, width // heads),
        FfnSpec(config.integer("n_inner", 4 * width)),
    )
    is_tied = config.flag("tie_word_embeddings", True) and head.kind == "language_modelling"
    style = BlockStyle(
        NormStyle(epsilon=config.number("layer_norm_epsilon", 1e-5)),
        config.choice("activation_function", ACTIVATIONS),
        biases=BiasStyle(head=False),
        pooling="last",
        is_head_tied=is_tied,
        is_causal=head.kind != "language_modelling",
    )
    return Blueprint(
        Architecture(width, (layer,) * config.integer("n_layer", most=MOST_LAYERS), style=style),
        (config.integer("n_positions", most=MOST_TABLE),),
        "n_positions",
        config.integer("vocab_size", most=MOST_VOCABULARY),
    )


def _write(architecture: Architecture, workload: Workload) -> dict[str, Any]:
    style = architecture.style
    return {
        "model_type": "gpt2",
        "n_embd": architecture.d_model,
        "activation_function": NAMES[style.activation],
        "layer_norm_epsilon": style.norm.epsilon,
        "n_positions": workload.input_shape[0],
        "vocab_size": workload.vocab_size,
        "tie_word_embeddings": workload.has_tied_head(style),
        # The class's defaults are tokens of its own vocabulary.
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _linear(ours: str, theirs: str, part: int = 0, parts: int = 1) -> Names:
    """Names of a linear map that is stored ``(d_in, d_out)``, perhaps with others."""
    return {
        f"{_OURS}.{ours}.weight": Stored(
            f"{_LAYER}.{theirs}.weight", part, parts, is_transposed=True
        ),
        f"{_OURS}.{ours}.bias": Stored(f"{_LAYER}.{theirs}.bias", part, parts),
    }


GPT2 = Family(
    name="gpt2",
    classes={"gpt2": "GPT2"},
    heads={
        "LMHeadModel": Head("language_modelling", {"head": "lm_head"}),
        "ForSequenceClassification": Head("text_classification", {"head": "score"}),
        "Model": Head("text_embedding"),
    },
    read=_read,
    write=_write,
    sizes=SizeKeys(depth="n_layer", heads="n_head", d_ff="n_inner"),
    names={
        "embed": "transformer.wte",
        "position_TD": "transformer.wpe.weight",
        f"{_OURS}.attention_norm": f"{_LAYER}.ln_1",
        **_linear("attention.q", "attn.c_attn", 0, 3),
        **_linear("attention.k", "attn.c_attn", 1, 3),
        **_linear("attention.v", "attn.c_attn", 2, 3),
        **_linear("attention.o", "attn.c_proj"),
        f"{_OURS}.ffn_norm": f"{_LAYER}.ln_2",
        **_linear("ffn.up", "mlp.c_fc"),
        **_linear("ffn.down", "mlp.c_proj"),
        "norm": "transformer.ln_f",
    },
    prefix="transformer.",
    ties={"lm_head.weight": "transformer.wte.weight"},
    # Causal masks, which older files hold as tensors.
    spare=(".attn.bias", ".attn.masked_bias"),
    harmless=frozenset(
        {
            "attn_pdrop",
            "embd_pdrop",
            "n_ctx",
            "resid_pdrop",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        }
    ),
)
