"""GGUF files of small networks by the ``gguf`` package's own writer, without ours."""

import gguf
import numpy as np
import torch
from pretrained_fakes import write_llama

# A Llama whose rows are whole blocks of 32 values.
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 40,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 500.0,
    "tie_word_embeddings": False,
    "head_dim": 16,
}
_MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# The characters that stand for bytes.
BYTES = [chr(c) for c in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144))]


def tensors_of(config):
    """Random tensors of a configuration by Hugging Face's names."""
    width, d_ff, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    shapes = {"model.embed_tokens": (config["vocab_size"], width), "model.norm": (width,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head"] = (config["vocab_size"], width)
    for layer in range(config["num_hidden_layers"]):
        of_layer = {
            "input_layernorm": (width,),
            "self_attn.q_proj": (q, width),
            "self_attn.k_proj": (kv, width),
            "self_attn.v_proj": (kv, width),
            "self_attn.o_proj": (width, q),
            "post_attention_layernorm": (width,),
            "mlp.gate_proj": (d_ff, width),
            "mlp.up_proj": (d_ff, width),
            "mlp.down_proj": (width, d_ff),
        }
        if config["model_type"] == "qwen3":
            of_layer |= dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), (size,))
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
    generator = torch.Generator().manual_seed(0)
    names = [f"{name}.weight" for name in shapes]
    biases = _biases(config)
    names += [f"{name}.bias" for name in shapes if name.endswith(biases) and biases]
    return {
        name: torch.randn(
            shapes[name.rpartition(".")[0]][: 1 if name.endswith("bias") else None],
            generator=generator,
        )
        for name in names
    }


def _biases(config):
    if config["model_type"] == "qwen2":
        return ("q_proj", "k_proj", "v_proj")
    ends = ("q_proj", "k_proj", "v_proj", "o_proj") if config.get("attention_bias") else ()
    return ends + (("gate_proj", "up_proj", "down_proj") if config.get("mlp_bias") else ())


def folder_of(config, folder, tensors=None):
    """Write the network in Hugging Face's format, without a tokenizer; return the folder."""
    write_llama(folder, config, tensors or tensors_of(config))
    (folder / "tokenizer.json").unlink()
    return folder


def metadata_of(config, **changes):
    """GGUF's metadata of a configuration; a change to ``None`` leaves a key out."""
    kind = config["model_type"]
    values = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.dimension_count": config["head_dim"],
        "rope.freq_base": float(config["rope_theta"]),
        "vocab_size": config["vocab_size"],
    }
    values = {f"{kind}.{name}": value for name, value in values.items()}
    return {key: value for key, value in (values | changes).items() if value is not None}


def stored_name(name):
    """GGUF's name of a tensor of Hugging Face's."""
    module, _, last = name.rpartition(".")
    if module in _MODULES:
        return f"{_MODULES[module]}.{last}"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{_MODULES[rest]}.{last}"


def interleaved(tensor, heads):
    """Rows in llama.cpp's order: both halves of a head in turns."""
    values = tensor.numpy()
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def stored_tensors(config, tensors):
    """Arrays by GGUF's names, rows of queries and keys in llama.cpp's order."""
    found = {}
    for name, tensor in tensors.items():
        values = tensor.numpy()
        if config["model_type"] == "llama" and ".q_proj" in name:
            values = interleaved(tensor, config["num_attention_heads"])
        if config["model_type"] == "llama" and ".k_proj" in name:
            values = interleaved(tensor, config["num_key_value_heads"])
        found[stored_name(name)] = np.ascontiguousarray(values)
    return found


def write_gguf(path, kind, metadata, tensors, of="F32", alignment=None):
    """Write arrays by name in the type ``of``, vectors in F32; return the path."""
    writer = gguf.GGUFWriter(path, kind)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for key, value in metadata.items():
        add(writer, key, value)
    for name, values in tensors.items():
        number = gguf.GGMLQuantizationType["F32" if values.ndim == 1 else of]
        rows = gguf.quantize(values, number)
        writer.add_tensor(name, rows, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer, key, value):
    """Add a value by its type in Python."""
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    kinds |= {str: writer.add_string, list: writer.add_array}
    kinds[type(value)](key, value)


def small_gguf(path, config=CONFIG, of="F32", tensors=None, **changes):
    """Write the file of a configuration; return its path."""
    stored = stored_tensors(config, tensors_of(config) if tensors is None else tensors)
    return write_gguf(path, config["model_type"], metadata_of(config, **changes), stored, of)


def byte_pairs(merges=("h e", "l l", "he ll", "\u0120 t", "\u0120t he"), pre="gpt-2", **changes):
    """Metadata of a tokenizer of byte pairs: special tokens, bytes, then merged ones."""
    special = ["<|end|>", "<|begin|>"]
    tokens = [*special, *BYTES, *(merge.replace(" ", "") for merge in merges), "<think>"]
    kinds = [3] * len(special) + [1] * (len(tokens) - len(special) - 1) + [4]
    values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def sentence_piece(pieces, **changes):
    """Metadata of SentencePiece's tokenizer of ``pieces``, the best first."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
    scores = [0.0] * len(tokens) + [-float(rank) for rank in range(len(pieces))]
    values = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*tokens, *pieces],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return {key: value for key, value in (values | changes).items() if value is not None}
