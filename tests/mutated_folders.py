"""Small folders of every family, written from its own name map, and mutations of them."""

import json
import struct
from pathlib import Path

import torch
from fuzzing import bytes_of, mutated, text_of
from pretrained_fakes import CONFIG, TOKENIZER
from safetensors.torch import save_file

from search_spaces.pretrained.files.config import Config
from search_spaces.pretrained.load import _head_of, _labels, _workload, family_of
from search_spaces.pretrained.matching import sources_of
from search_spaces.pretrained.shapes import empty_network

_BERT = {
    "model_type": "bert",
    "vocab_size": 11,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 12,
    "hidden_act": "gelu",
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_VIT = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 12,
    "hidden_act": "gelu",
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 3,
    "qkv_bias": True,
    "id2label": {"0": "cat", "1": "dog"},
}
CONFIGS = {
    "llama": CONFIG,
    "llama 3": CONFIG
    | {
        "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen2": CONFIG
    | {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForSequenceClassification"],
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"],
        "id2label": {"0": "no", "1": "yes"},
    },
    "gpt2": {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": 11,
        "n_embd": 8,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 16,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    },
    "bert": _BERT | {"architectures": ["BertModel"]},
    "bert, masked": _BERT | {"architectures": ["BertForMaskedLM"]},
    "roberta": _BERT
    | {"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"]},
    "vit": _VIT,
    "dinov2": {
        **_VIT,
        "model_type": "dinov2_with_registers",
        "architectures": ["Dinov2WithRegistersForImageClassification"],
        "num_register_tokens": 2,
        "mlp_ratio": 2,
    },
}


def tensors_of(config):
    """Random tensors of a configuration's network, by the names of its family."""
    values = Config(config, Path("config.json"))
    family = family_of(values)
    head = _head_of(values, family)
    blueprint = family.read(values, head)
    network = empty_network(
        blueprint.architecture, _workload("x", head, blueprint, _labels(values))
    )
    names = {**family.names, **head.names, **blueprint.names}
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for parameter, value in network.named_parameters():
        for piece in sources_of(parameter, names):
            source, shape = piece.source, piece.shape_in(tuple(value.shape))
            for name, size in ((source.name, source.shape_of(shape)), (source.scale, shape[:1])):
                if name is not None and name not in tensors:
                    tensors[name] = torch.randn(size, generator=generator)
    return tensors


def write(folder, config, tensors, *, is_sharded):
    """Write a folder with all files that are read, in one file or two."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    if not is_sharded:
        save_file(tensors, folder / "model.safetensors")
        return
    places = {}
    for number in (0, 1):
        part = {n: t for i, (n, t) in enumerate(tensors.items()) if i % 2 == number}
        name = f"model-0000{number + 1}-of-00002.safetensors"
        save_file(part, folder / name)
        places |= dict.fromkeys(part, name)
    index = json.dumps({"weight_map": places})
    (folder / "model.safetensors.index.json").write_text(index)


def mutate(folder, rng):
    """Change one to three files of a folder."""
    for path in rng.sample(sorted(folder.iterdir()), rng.choice([1, 1, 1, 2, 3])):
        _mutate_file(path, rng)


def _mutate_file(path, rng):
    """Change values, names, a header, bytes, or the file's very presence."""
    what = rng.randrange(10)
    if what == 0:
        path.unlink()
    elif what == 1:
        path.write_bytes(bytes_of(path.read_bytes(), rng))
    elif path.suffix == ".json":
        text = text_of(mutated(json.loads(path.read_bytes()), rng), rng)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    elif path.suffix == ".safetensors":
        _mutate_header(path, rng)
    else:
        path.write_bytes(bytes_of(path.read_bytes(), rng))


def _mutate_header(path, rng):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, values = data[8 : 8 + length], data[8 + length :]
    what = rng.randrange(4)
    if what == 0:
        length = rng.choice([0, 1, length - 1, length + 1, 2**24, 2**40, 2**64 - 1])
    elif what == 1:
        header = bytes_of(header, rng)
        length = len(header)
    elif what == 2:
        at = rng.randrange(max(1, len(values) - 4))
        noise = rng.choice([b"\xff\xff\xff\xff", b"\x00\x00\xc0\x7f"])
        values = values[:at] + noise + values[at + 4 :]
    else:
        changed = text_of(mutated(json.loads(header), rng), rng)
        header = changed.encode("utf-8", "surrogatepass")
        length = len(header)
    path.write_bytes(struct.pack("<Q", length) + header + values)
