"""Encoders of texts and images by transformers' own classes, small and with random weights."""

import torch
from pretrained_fakes import random_network

_BERT = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_ROBERTA = _BERT | {"layer_norm_eps": 1e-5, "type_vocab_size": 1, "max_position_embeddings": 66}
_DISTILBERT = {
    "vocab_size": 97,
    "dim": 24,
    "hidden_dim": 40,
    "n_layers": 3,
    "n_heads": 4,
    "max_position_embeddings": 64,
}
_VIT = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 12,
    "patch_size": 4,
}
_DINOV2 = {k: v for k, v in _VIT.items() if k != "intermediate_size"} | {"mlp_ratio": 2}

# By what is peculiar to them: class, and values of the configuration.
TEXTS = {
    "bert": ("Bert", _BERT),
    "bert, tanh, untied": (
        "Bert",
        _BERT
        | {
            "hidden_act": "gelu_new",
            "layer_norm_eps": 1e-3,
            "type_vocab_size": 3,
            "tie_word_embeddings": False,
            "pad_token_id": 5,
        },
    ),
    "roberta": ("Roberta", _ROBERTA),
    "roberta, padding 4": ("Roberta", _ROBERTA | {"pad_token_id": 4, "type_vocab_size": 2}),
    "xlm-roberta": ("XLMRoberta", _ROBERTA),
    "distilbert": ("DistilBert", _DISTILBERT),
    "distilbert, relu, untied": (
        "DistilBert",
        _DISTILBERT | {"activation": "relu", "tie_word_embeddings": False},
    ),
}
IMAGES = {
    "vit": ("ViT", _VIT),
    "vit, no biases, oblong, relu": (
        "ViT",
        _VIT
        | {
            "qkv_bias": False,
            "image_size": [8, 16],
            "num_channels": 1,
            "hidden_act": "relu",
            "pooler_act": "relu",
        },
    ),
    "deit": ("DeiT", _VIT | {"layer_norm_eps": 1e-3}),
    "dinov2": ("Dinov2", _DINOV2),
    "dinov2, swiglu": ("Dinov2", _DINOV2 | {"use_swiglu_ffn": True, "mlp_ratio": 4}),
    "dinov2 with registers": ("Dinov2WithRegisters", _DINOV2),
    "dinov2 with registers, swiglu": (
        "Dinov2WithRegisters",
        _DINOV2 | {"use_swiglu_ffn": True, "num_register_tokens": 2},
    ),
}


def encoder(name, head, **changes):
    """A network of transformers by its name in ``TEXTS`` or ``IMAGES``."""
    import transformers

    first, values = (TEXTS | IMAGES)[name]
    config = getattr(transformers, f"{first}Config")(**values | changes)
    return random_network(getattr(transformers, f"{first}{head}"), config)


def encoder_layers(network):
    """Layers of a network of transformers."""
    layers = [
        module
        for name, module in network.named_modules()
        if name.endswith(("layer", "layers")) and isinstance(module, torch.nn.ModuleList)
    ]
    assert len(layers) == 1
    return layers[0]
