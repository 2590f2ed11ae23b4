"""Folders of small checkpoints by transformers' own classes, and comparisons with ours."""

import json

import pytest
import torch

from search_spaces.pretrained import load_checkpoint

# Causal language models by what is peculiar to them: class, and values of the configuration.
_SMALL = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
_GPT2 = {
    "vocab_size": 97,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CAUSAL = {
    "llama": ("Llama", _SMALL),
    "llama, one group, size of heads": (
        "Llama",
        _SMALL | {"num_key_value_heads": 4, "head_dim": 10},
    ),
    "llama, tied, biases": (
        "Llama",
        _SMALL | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama, linear, gelu": (
        "Llama",
        _SMALL
        | {
            "rope_parameters": {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0},
            "hidden_act": "gelu_pytorch_tanh",
            "rms_norm_eps": 1e-3,
        },
    ),
    "llama 3": ("Llama", _SMALL | {"rope_parameters": _LLAMA3, "max_position_embeddings": 128}),
    "mistral": ("Mistral", _SMALL | {"sliding_window": None, "head_dim": 12}),
    "mistral, window": ("Mistral", _SMALL | {"sliding_window": 48}),
    "qwen2, tied": ("Qwen2", _SMALL | {"tie_word_embeddings": True}),
    "qwen2, windows in later layers": (
        "Qwen2",
        _SMALL | {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", _SMALL | {"head_dim": 14}),
    "gpt2": ("GPT2", _GPT2),
    "gpt2, relu, untied": (
        "GPT2",
        _GPT2 | {"n_inner": 40, "activation_function": "relu", "tie_word_embeddings": False},
    ),
}


def causal(name, head="ForCausalLM", **changes):
    """A network of transformers by its name in ``CAUSAL``."""
    import transformers

    first, values = CAUSAL[name]
    config = getattr(transformers, f"{first}Config")(**values | changes)
    if head == "ForCausalLM" and first == "GPT2":
        head = "LMHeadModel"
    return random_network(getattr(transformers, f"{first}{head}"), config)


def random_network(kind, config, seed=0):
    """A network whose norms and biases are not the identity, in evaluation mode."""
    torch.manual_seed(seed)
    network = kind(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return network


def saved(network, folder, **how):
    """Write a network as its own library does; return the folder."""
    network.save_pretrained(folder, **how)
    return folder


def streams(layers, call):
    """The output of each layer during ``call()``, and what it returns."""
    outputs = []

    def keep(module, inputs, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with torch.no_grad():
            returned = call()
    finally:
        for handle in handles:
            handle.remove()
    return [*outputs, returned]


def layers_of(network):
    """Layers of a network of transformers."""
    base = network.base_model
    return base.h if hasattr(base, "h") else base.layers


def largest_difference(ours, theirs, keep=None):
    """The largest difference of any pair, by the maximum of theirs; only of tokens ``keep``."""
    assert len(ours) == len(theirs)
    worst = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        if keep is not None:
            mine, other = mine[keep], other[keep]
        worst = max(worst, float((mine - other).abs().max() / other.abs().max()))
    return worst


def in_float64(network, monkeypatch):
    """The network in float64 throughout: its norms, which compute in fp32, are widened."""
    for module in network.modules():
        if type(module).__name__.endswith("RMSNorm"):
            monkeypatch.setattr(type(module), "forward", _rms_norm)
    # The eager form computes softmax in fp32.
    network.set_attn_implementation("sdpa")
    return network.double()


def _rms_norm(self, x):
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


# A Llama without transformers, whose import takes seconds: its configuration and its shapes.
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "pad_token_id": None,
}
_LAYER = {
    "input_layernorm": (8,),
    "self_attn.q_proj": (8, 8),
    "self_attn.k_proj": (4, 8),
    "self_attn.v_proj": (4, 8),
    "self_attn.o_proj": (8, 8),
    "post_attention_layernorm": (8,),
    "mlp.gate_proj": (12, 8),
    "mlp.up_proj": (12, 8),
    "mlp.down_proj": (8, 12),
}
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {f"t{i}": i for i in range(10)}, "merges": []},
    "added_tokens": [{"id": 10, "content": "<s>"}],
}


def llama_tensors():
    """Tensors of ``CONFIG``'s network by name."""
    shapes = {"model.embed_tokens": (11, 8), "model.norm": (8,), "lm_head": (11, 8)}
    for layer in range(2):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in _LAYER.items()}
    generator = torch.Generator().manual_seed(0)
    return {f"{n}.weight": torch.randn(s, generator=generator) for n, s in shapes.items()}


def write_llama(folder, config=CONFIG, tensors=None, tokenizer=TOKENIZER):
    """Write ``CONFIG``'s network, or changed forms of it; return the folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(llama_tensors() if tensors is None else tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def write_shards(folder):
    """Write ``CONFIG``'s network in two files with an index; return the index."""
    from safetensors.torch import save_file

    write_llama(folder)
    (folder / "model.safetensors").unlink()
    tensors, places = llama_tensors(), {}
    for number in (0, 1):
        part = {n: t for i, (n, t) in enumerate(tensors.items()) if i % 2 == number}
        name = f"model-0000{number + 1}-of-00002.safetensors"
        save_file(part, folder / name)
        places |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def refused(folder, *parts):
    """The line that a folder is refused with, which has these parts."""
    with pytest.raises(ValueError) as caught:
        load_checkpoint(folder).build()
    line = str(caught.value)
    assert "\n" not in line and len(line) < 700
    assert str(folder) in line
    for part in parts:
        assert part in line, line
    return line
