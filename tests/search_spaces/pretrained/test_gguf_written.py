"""GGUF files that are written: read again by ours and by the package's reader; what is refused."""

import json
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from gguf_fakes import (
    CONFIG,
    byte_pairs,
    folder_of,
    metadata_of,
    small_gguf,
    stored_tensors,
    tensors_of,
)
from mutated_folders import CONFIGS, write
from mutated_folders import tensors_of as tensors_of_any
from safetensors.torch import load_file

from search_spaces.architecture import Compression
from search_spaces.compression.inherit import inherit
from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.writing.folder import write_checkpoint
from search_spaces.pretrained.writing.gguf import check_gguf, rounded, write_gguf

QWEN2 = CONFIG | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
MISTRAL = CONFIG | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}


def written(checkpoint, path, kind="F32", architecture=None, **metadata):
    architecture = architecture or checkpoint.architecture
    network = inherit(
        checkpoint.build(), checkpoint.architecture, architecture, checkpoint.workload
    )
    write_gguf(checkpoint, network, architecture, path, kind=kind, metadata=metadata)
    return network


def parameters(network):
    return dict(network.named_parameters())


@pytest.mark.parametrize(
    "config",
    [CONFIG, CONFIG | {"tie_word_embeddings": True}, QWEN2, MISTRAL | {"sliding_window": 16}],
    ids=["llama", "tied", "qwen2", "mistral"],
)
def test_a_file_in_f32_has_all_values_to_the_bit(config, tmp_path):
    checkpoint = load_checkpoint(folder_of(config, tmp_path / "folder"))
    network = written(checkpoint, tmp_path / "m.gguf")
    again = load_checkpoint(tmp_path / "m.gguf")
    assert again.architecture == checkpoint.architecture
    # Longer texts would need the window, which the file does not have.
    assert again.longest == checkpoint.longest == (16 if "sliding_window" in config else 32)
    values = parameters(again.build())
    assert all(torch.equal(values[name], value) for name, value in parameters(network).items())
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    expected = stored_tensors(
        config | {"model_type": "llama"} if config is not QWEN2 else config, tensors_of(config)
    )
    assert {tensor.name for tensor in reader.tensors} == expected.keys()
    for tensor in reader.tensors:
        assert np.array_equal(tensor.data, expected[tensor.name]), tensor.name


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_other_types_are_rounded_as_the_package_does(kind, tmp_path):
    checkpoint = load_checkpoint(folder_of(CONFIG, tmp_path / "folder"))
    network = written(checkpoint, tmp_path / "m.gguf", kind)
    values = parameters(load_checkpoint(tmp_path / "m.gguf").build())
    for name, value in parameters(network).items():
        assert torch.equal(values[name], rounded(value, kind))
        assert torch.equal(values[name], value) == (value.dim() == 1)
    number, expected = gguf.GGMLQuantizationType[kind], stored_tensors(CONFIG, tensors_of(CONFIG))
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        if expected[tensor.name].ndim == 1:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        else:
            assert tensor.tensor_type == number
            assert np.array_equal(tensor.data, gguf.quantize(expected[tensor.name], number))


def test_the_metadata_describes_the_network(tmp_path):
    checkpoint = load_checkpoint(folder_of(CONFIG, tmp_path / "folder"))
    written(checkpoint, tmp_path / "m.gguf", "Q8_0", **{"general.license": "mit"})
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    found = {key: field.contents() for key, field in fields.items()}
    for key, value in metadata_of(CONFIG).items():
        assert np.float32(found[key]) == np.float32(value), key
    assert found["general.license"] == "mit" and found["general.type"] == "model"
    assert found["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert load_checkpoint(tmp_path / "m.gguf").license == "mit"


def test_a_tokenizer_comes_along_both_ways(tmp_path):
    tokens = byte_pairs(pre="smollm", **{"tokenizer.chat_template": "{{ messages }}"})
    config = CONFIG | {"vocab_size": len(tokens["tokenizer.ggml.tokens"])}
    first = load_checkpoint(small_gguf(tmp_path / "first.gguf", config, "Q4_0", **tokens))
    (tmp_path / "folder").mkdir()
    names = write_checkpoint(first, first.build(), first.architecture, tmp_path / "folder")
    assert set(names) == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip
    # No type of the file's holds its values.
    stored = load_file(tmp_path / "folder" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32}
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["dtype"] == "float32"
    second = load_checkpoint(tmp_path / "folder")
    assert second.architecture == first.architecture
    assert second.tokenizer == tmp_path / "folder" / "tokenizer.json"
    written(second, tmp_path / "third.gguf")
    third = load_checkpoint(tmp_path / "third.gguf")
    assert third.files == first.files and third.tokenizer == tmp_path / "third.gguf"
    values = parameters(third.build())
    assert all(torch.equal(values[n], v) for n, v in parameters(first.build()).items())


def test_types_of_sixteen_bits_are_kept_in_a_folder(tmp_path):
    file = load_checkpoint(small_gguf(tmp_path / "m.gguf", of="F16"))
    (tmp_path / "folder").mkdir()
    write_checkpoint(file, file.build(), file.architecture, tmp_path / "folder")
    stored = load_file(tmp_path / "folder" / "model.safetensors")
    for name, value in stored.items():
        assert value.dtype == (torch.float32 if value.dim() == 1 else torch.float16), name


def changed(architecture, layer, block, **fields):
    layers = list(architecture.layers)
    layers[layer] = replace(
        layers[layer], **{block: replace(getattr(layers[layer], block), **fields)}
    )
    return replace(architecture, layers=tuple(layers))


def in_all(architecture, block, **fields):
    for layer in range(architecture.depth):
        architecture = changed(architecture, layer, block, **fields)
    return architecture


def refused(checkpoint, architecture, kind="F32"):
    with pytest.raises(ValueError) as error:
        check_gguf(checkpoint, architecture, kind)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "kind", "part"),
    [
        (
            lambda a: changed(a, 1, "ffn", d_ff=64),
            "F32",
            "layers[1].ffn.d_ff is 64, that of layers[0] is 96, and llama.feed_forward_length of "
            "GGUF is one number for all layers",
        ),
        (
            lambda a: changed(a, 0, "attention", n_heads=2),
            "F32",
            "layers[1].attention.n_heads is 4, that of layers[0] is 2, and "
            "llama.attention.head_count of GGUF",
        ),
        (lambda a: changed(a, 1, "ffn", rank=8), "F32", "layers.1.ffn.rank is 8"),
        (
            lambda a: changed(a, 0, "attention", compression=Compression("fp32", "2:4")),
            "F32",
            "layers.0.attention.sparsity is 2:4",
        ),
        (
            lambda a: in_all(a, "ffn", compression=Compression("int8")),
            "F32",
            "layers.0.ffn.precision is int8",
        ),
        (
            lambda a: in_all(
                in_all(a, "ffn", compression=Compression("bf16")),
                "attention",
                compression=Compression("bf16"),
            ),
            "F16",
            "layers.0.attention.precision is bf16, and must be fp32: --gguf-type sets",
        ),
        (
            lambda a: in_all(a, "ffn", d_ff=80),
            "Q8_0",
            "layers[0].ffn.d_ff is 80, and must be a multiple of 32 with Q8_0",
        ),
        (
            lambda a: in_all(a, "attention", n_heads=1, n_kv_heads=1),
            "Q8_0",
            "layers[0].attention.n_heads * d_head is 16, and must be a multiple of 32",
        ),
    ],
)
def test_what_gguf_does_not_support_is_named(change, kind, part, tmp_path):
    checkpoint = load_checkpoint(folder_of(CONFIG, tmp_path / "folder"))
    assert part in refused(checkpoint, change(checkpoint.architecture), kind)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (
            CONFIG | {"attention_bias": True},
            "style.biases are on, which transformers does not read",
        ),
        (
            CONFIG | {"hidden_act": "relu"},
            "style.activation is relu, and GGUF files of llama have",
        ),
        (
            CONFIG | {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "style.positions.scaling is linear, which transformers does not read",
        ),
        (
            CONFIG | {"rope_theta": 500.0000001},
            "positions.theta is 500.0000001, and GGUF stores numb",
        ),
        (
            QWEN2 | {"num_attention_heads": 2},
            "transformers reads heads of 32 from GGUF files of q",
        ),
    ],
)
def test_a_style_that_gguf_does_not_support_is_named(config, part, tmp_path):
    checkpoint = load_checkpoint(folder_of(config, tmp_path / "folder"))
    assert part in refused(checkpoint, checkpoint.architecture)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gpt2", "the checkpoint is of the family gpt2, and GGUF is supported for the Llama type"),
        ("bert", "of the family bert"),
        ("qwen2", "the checkpoint's head is for text classification, and GGUF files of the Llama"),
    ],
)
def test_other_networks_are_named(name, part, tmp_path):
    write(tmp_path / "m", CONFIGS[name], tensors_of_any(CONFIGS[name]), is_sharded=False)
    checkpoint = load_checkpoint(tmp_path / "m")
    assert part in refused(checkpoint, checkpoint.architecture)


def test_a_value_beyond_the_type_is_named(tmp_path):
    tensors = tensors_of(CONFIG)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = 1e5
    checkpoint = load_checkpoint(folder_of(CONFIG, tmp_path / "folder", tensors))
    with pytest.raises(ValueError, match=r"blk.1.ffn_up.weight must hold values that are finite"):
        written(checkpoint, tmp_path / "m.gguf", "F16")
    written(checkpoint, tmp_path / "m.gguf", "Q8_0")
