"""The BERT type: BERT, RoBERTa, XLM-RoBERTa and DistilBERT, post-norm encoders of texts.

BERT: Devlin et al. 2019, of which MiniLM, E5 and BGE are; RoBERTa: Liu et al. 2019; DistilBERT:
Sanh et al. 2019. Texts are padded at their end.
"""

from __future__ import annotations

from typing import Any

from search_spaces.architecture import Architecture, AttentionSpec, BlockStyle, FfnSpec, LayerSpec
from search_spaces.architecture.style import Activation, NormStyle, Pooling
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

_OURS = "layers.{i}"
# Sizes of configurations by their names in BERT's.
_BERT_KEYS = {
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "layers": "num_hidden_layers",
    "d_ff": "intermediate_size",
    "activation": "hidden_act",
}
_DISTILBERT_KEYS = {
    "width": "dim",
    "heads": "n_heads",
    "layers": "n_layers",
    "d_ff": "hidden_dim",
    "activation": "activation",
}
_MOST_TYPES = 2**16 - 1


def _architecture(config: Config, keys: dict[str, str], style: BlockStyle) -> Architecture:
    width = config.integer(keys["width"])
    heads = config.integer(keys["heads"], most=MOST_HEADS)
    if width % heads:
        raise config.error(keys["heads"], f"a divisor of {keys['width']}, {width}", heads)
    layer = LayerSpec(
        AttentionSpec(heads, heads, width // heads), FfnSpec(config.integer(keys["d_ff"]))
    )
    layers = config.integer(keys["layers"], most=MOST_LAYERS)
    return Architecture(width, (layer,) * layers, style=style)


def _style(
    config: Config,
    head: Head,
    activation: Activation,
    pooling: Pooling,
    epsilon: float,
    types: int,
) -> BlockStyle:
    predicts_tokens = head.kind == "masked_language_modelling"
    is_tied = config.flag("tie_word_embeddings", True)
    return BlockStyle(
        NormStyle(epsilon=epsilon, place="post", after_embeddings=True),
        activation,
        n_token_types=types,
        pooling=pooling,
        is_head_tied=predicts_tokens and is_tied,
        has_head_transform=predicts_tokens,
    )


def _read_bert(config: Config, head: Head) -> Blueprint:
    config.require("position_embedding_type", ("absolute",))
    config.require("is_decoder", (False,))
    is_roberta = config.take("model_type") != "bert"
    activation = config.choice("hidden_act", ACTIVATIONS)
    if is_roberta and head.kind == "masked_language_modelling" and activation != "gelu":
        # The head's activation is GELU whatever that of the layers is.
        raise config.error("hidden_act", "gelu for this head", config.take("hidden_act"))
    vocabulary = config.integer("vocab_size", most=MOST_VOCABULARY)
    positions, names = config.integer("max_position_embeddings", least=3, most=MOST_TABLE), {}
    if is_roberta:
        # Positions count from the one after the padding token's.
        padding = config.integer("pad_token_id", 1, least=0, most=positions - 2)
        positions -= padding + 1
        table = "roberta.embeddings.position_embeddings.weight"
        names = {"position_TD": Stored(table, skip=padding + 1)}
    style = _style(
        config,
        head,
        activation,
        "pooler",
        epsilon=config.number("layer_norm_eps", 1e-12),
        types=config.integer("type_vocab_size", 2, most=_MOST_TYPES),
    )
    return Blueprint(
        _architecture(config, _BERT_KEYS, style),
        (positions,),
        "max_position_embeddings",
        vocabulary,
        names,
    )


def _write_bert(architecture: Architecture, workload: Workload) -> dict[str, Any]:
    style = architecture.style
    return {
        "model_type": "bert",
        "hidden_size": architecture.d_model,
        "hidden_act": NAMES[style.activation],
        "layer_norm_eps": style.norm.epsilon,
        "type_vocab_size": style.n_token_types,
        "max_position_embeddings": workload.input_shape[0],
        "vocab_size": workload.vocab_size,
        "tie_word_embeddings": workload.has_tied_head(style),
    }


def _read_distilbert(config: Config, head: Head) -> Blueprint:
    vocabulary = config.integer("vocab_size", most=MOST_VOCABULARY)
    activation = config.choice("activation", ACTIVATIONS)
    pooling: Pooling = "cls" if head.kind == "text_embedding" else "pooler-relu"
    return Blueprint(
        _architecture(
            config,
            _DISTILBERT_KEYS,
            _style(config, head, activation, pooling, epsilon=1e-12, types=0),
        ),
        (config.integer("max_position_embeddings", most=MOST_TABLE),),
        "max_position_embeddings",
        vocabulary,
    )


def _names(prefix: str) -> Names:
    """Names of BERT and RoBERTa, whose files differ in their first part."""
    layer = f"{prefix}encoder.layer.{{i}}"
    return {
        "embed": f"{prefix}embeddings.word_embeddings",
        "token_types": f"{prefix}embeddings.token_type_embeddings",
        "position_TD": f"{prefix}embeddings.position_embeddings.weight",
        "embed_norm": f"{prefix}embeddings.LayerNorm",
        f"{_OURS}.attention.q": f"{layer}.attention.self.query",
        f"{_OURS}.attention.k": f"{layer}.attention.self.key",
        f"{_OURS}.attention.v": f"{layer}.attention.self.value",
        f"{_OURS}.attention.o": f"{layer}.attention.output.dense",
        f"{_OURS}.attention_norm": f"{layer}.attention.output.LayerNorm",
        f"{_OURS}.ffn.up": f"{layer}.intermediate.dense",
        f"{_OURS}.ffn.down": f"{layer}.output.dense",
        f"{_OURS}.ffn_norm": f"{layer}.output.LayerNorm",
    }


_ANSWERS = Head("question_answering", {"head": "qa_outputs"})
_DROPOUTS = frozenset(
    {"attention_probs_dropout_prob", "classifier_dropout", "hidden_dropout_prob"}
)
_SPARE = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
_OLD_NORMS = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}

BERT = Family(
    name="bert",
    classes={"bert": "Bert"},
    padding_token=0,
    heads={
        "Model": Head("text_embedding", {"pooler": "bert.pooler.dense"}),
        "ForSequenceClassification": Head(
            "text_classification", {"pooler": "bert.pooler.dense", "head": "classifier"}
        ),
        "ForMaskedLM": Head(
            "masked_language_modelling",
            {
                "head_transform.dense": "cls.predictions.transform.dense",
                "head_transform.norm": "cls.predictions.transform.LayerNorm",
                "head.bias_C": "cls.predictions.bias",
                "head": "cls.predictions.decoder",
            },
        ),
        "ForQuestionAnswering": _ANSWERS,
    },
    read=_read_bert,
    write=_write_bert,
    sizes=SizeKeys(),
    names=_names("bert."),
    renamed=_OLD_NORMS,
    prefix="bert.",
    ties={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    # Of pretraining: which sentence is the next; a bias that an untied head has twice.
    spare=(
        *_SPARE,
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
        "cls.predictions.bias",
    ),
    harmless=_DROPOUTS
    | {
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    },
)

ROBERTA = Family(
    name="roberta",
    classes={"roberta": "Roberta", "xlm-roberta": "XLMRoberta"},
    padding_token=1,
    heads={
        "Model": Head("text_embedding", {"pooler": "roberta.pooler.dense"}),
        "ForSequenceClassification": Head(
            "text_classification", {"pooler": "classifier.dense", "head": "classifier.out_proj"}
        ),
        "ForMaskedLM": Head(
            "masked_language_modelling",
            {
                "head_transform.dense": "lm_head.dense",
                "head_transform.norm": "lm_head.layer_norm",
                "head.bias_C": "lm_head.bias",
                "head": "lm_head.decoder",
            },
        ),
        "ForQuestionAnswering": _ANSWERS,
    },
    read=_read_bert,
    sizes=SizeKeys(),
    names=_names("roberta."),
    renamed=_OLD_NORMS,
    prefix="roberta.",
    ties={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    spare=(*_SPARE, "lm_head.bias"),
    harmless=_DROPOUTS,
)

_LAYER = "distilbert.transformer.layer.{i}"

DISTILBERT = Family(
    name="distilbert",
    classes={"distilbert": "DistilBert"},
    padding_token=0,
    heads={
        "Model": Head("text_embedding"),
        "ForSequenceClassification": Head(
            "text_classification", {"pooler": "pre_classifier", "head": "classifier"}
        ),
        "ForMaskedLM": Head(
            "masked_language_modelling",
            {
                "head_transform.dense": "vocab_transform",
                "head_transform.norm": "vocab_layer_norm",
                "head.bias_C": "vocab_projector.bias",
                "head": "vocab_projector",
            },
        ),
        "ForQuestionAnswering": _ANSWERS,
    },
    read=_read_distilbert,
    sizes=SizeKeys(depth="n_layers", heads="n_heads", d_ff="hidden_dim"),
    names={
        "embed": "distilbert.embeddings.word_embeddings",
        "position_TD": "distilbert.embeddings.position_embeddings.weight",
        "embed_norm": "distilbert.embeddings.LayerNorm",
        f"{_OURS}.attention.q": f"{_LAYER}.attention.q_lin",
        f"{_OURS}.attention.k": f"{_LAYER}.attention.k_lin",
        f"{_OURS}.attention.v": f"{_LAYER}.attention.v_lin",
        f"{_OURS}.attention.o": f"{_LAYER}.attention.out_lin",
        f"{_OURS}.attention_norm": f"{_LAYER}.sa_layer_norm",
        f"{_OURS}.ffn.up": f"{_LAYER}.ffn.lin1",
        f"{_OURS}.ffn.down": f"{_LAYER}.ffn.lin2",
        f"{_OURS}.ffn_norm": f"{_LAYER}.output_layer_norm",
    },
    prefix="distilbert.",
    ties={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    spare=("embeddings.position_ids",),
    # Sinusoids are what a position table starts from: the table itself is stored.
    harmless=frozenset(
        {
            "dropout",
            "output_past",
            "qa_dropout",
            "seq_classif_dropout",
            "sinusoidal_pos_embds",
            "tie_weights_",
        }
    ),
)
