"""Folders that are not valid give one line that names the file and the field."""

import json
import struct

import pytest
import torch
from pretrained_fakes import CONFIG, TOKENIZER, llama_tensors, write_llama, write_shards
from safetensors.torch import save_file

from search_spaces.pretrained import load_checkpoint

WITHOUT = object()


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


def test_the_folder_itself_is_valid(tmp_path):
    checkpoint = load_checkpoint(write_llama(tmp_path / "some model"))
    assert checkpoint.workload.name == "some-model"
    assert checkpoint.tokenizer == tmp_path / "some model" / "tokenizer.json"
    assert checkpoint.unread_keys == ()
    assert checkpoint.build()(torch.ones(1, 4, dtype=torch.long)).shape == (1, 4, 11)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "mamba"),
        ("model_type", None),
        ("architectures", ["LlamaForQuestionAnswering"]),
        ("architectures", ["Qwen2ForCausalLM"]),
        ("architectures", []),
        ("hidden_act", "quick_gelu"),
        ("hidden_size", WITHOUT),
        ("hidden_size", "8"),
        ("hidden_size", True),
        ("hidden_size", -8),
        ("hidden_size", 8.0),
        ("hidden_size", 10**30),
        ("num_hidden_layers", 10**9),
        ("num_attention_heads", 5),
        ("num_attention_heads", 3),
        ("intermediate_size", [12]),
        ("vocab_size", 0),
        ("max_position_embeddings", None),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", float("nan")),
        ("rms_norm_eps", 10**400),
        ("head_dim", 0),
        ("tie_word_embeddings", "yes"),
        ("attention_bias", 1),
        ("sliding_window", 16),
        ("partial_rotary_factor", 0.5),
        ("rope_theta", 1),
        ("quantization_config", {"quant_method": "gptq"}),
        ("pruned_heads", {"0": [1]}),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        ("rope_interleaved", True),
        ("auto_map", {"AutoModel": "modeling.Mine"}),
    ],
)
def test_a_value_of_the_configuration_is_named(key, value, tmp_path):
    config = {k: v for k, v in (CONFIG | {key: value}).items() if v is not WITHOUT}
    refused(write_llama(tmp_path, config), "config.json", key)


@pytest.mark.parametrize(
    ("rope", "parts"),
    [
        ({"type": "yarn", "factor": 4.0}, ("rope_scaling.type", "'yarn'", "llama3")),
        ({"rope_type": "dynamic", "factor": 4.0}, ("rope_scaling.rope_type", "'dynamic'")),
        ({"rope_type": "longrope"}, ("rope_scaling.rope_type", "'longrope'")),
        ({"rope_type": "linear"}, ("rope_scaling.factor",)),
        ({"rope_type": "linear", "factor": -1}, ("rope_scaling.factor", "-1")),
        ({"rope_type": "linear", "factor": 2.0, "mscale": 1}, ("rope_scaling.mscale",)),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, ("partial_rotary_factor",)),
        ({"full_attention": {"rope_type": "default"}}, ("rope_scaling.full_attention",)),
        ({"rope_type": "llama3", "factor": 2.0}, ("rope_scaling.low_freq_factor",)),
        ([], ("rope_scaling", "an object")),
    ],
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_a_kind_of_rotary_positions_is_named(rope, parts, key, tmp_path):
    config = {k: v for k, v in CONFIG.items() if k != "rope_scaling"} | {key: rope}
    parts = [part.replace("rope_scaling", key) for part in parts]
    refused(write_llama(tmp_path, config), "config.json", *parts)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"layer_types": ["chunked_attention"] * 2}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"use_sliding_window": True, "sliding_window": -1}, "sliding_window"),
        ({"use_sliding_window": "no"}, "use_sliding_window"),
        ({"attention_bias": False}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
    ],
)
def test_values_of_one_model_type_are_named(changes, key, tmp_path):
    config = CONFIG | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]} | changes
    refused(write_llama(tmp_path, config), "config.json", key)


def test_unknown_keys_are_returned(tmp_path):
    config = CONFIG | {"zebra": 1, "abc": None, "use_cache": False}
    assert load_checkpoint(write_llama(tmp_path, config)).unread_keys == ("abc", "zebra")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "JSON"),
        ("[]", "a JSON object, got a list"),
        ('{"a": 1, "a": 2}', "'a' stands there twice"),
        ('{"a": ' * 100_000, "JSON"),
        ("{" + " " * 2**20 + "}", "at most 1048576 bytes"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "JSON"),
    ],
    ids=["empty", "list", "double", "deep", "large", "digits"],
)
def test_a_configuration_that_is_no_json_is_named(text, part, tmp_path):
    write_llama(tmp_path)
    (tmp_path / "config.json").write_text(text)
    refused(tmp_path, "config.json", part)


def test_a_configuration_of_other_bytes_is_named(tmp_path):
    write_llama(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x80")
    refused(tmp_path, "config.json", "JSON")


def with_tensor(name, tensor):
    return llama_tensors() | {name: tensor}


@pytest.mark.parametrize(
    ("tensors", "parts"),
    [
        (
            {k: v for k, v in llama_tensors().items() if "1.mlp.up" not in k},
            ("model.layers.1.mlp.up_proj.weight", "(12, 8)", "does not"),
        ),
        (
            {k: v for k, v in llama_tensors().items() if k != "lm_head.weight"},
            ("lm_head.weight",),
        ),
        (
            with_tensor("model.layers.2.mlp.up_proj.weight", torch.ones(12, 8)),
            ("model.layers.2.mlp.up_proj.weight", "must be left out"),
        ),
        (with_tensor("model.norm.bias", torch.ones(8)), ("model.norm.bias", "left out")),
        (with_tensor("model.norm.weight", torch.ones(9)), ("model.norm.weight", "(8,)", "(9,)")),
        (with_tensor("model.norm.weight", torch.ones(2, 4)), ("model.norm.weight", "(2, 4)")),
        (
            with_tensor("model.norm.weight", torch.ones(8, dtype=torch.int8)),
            ("model.norm.weight", "I8", "BF16"),
        ),
        (
            with_tensor("model.norm.weight", torch.tensor([1.0] * 7 + [torch.nan])),
            ("model.norm.weight", "finite"),
        ),
        (
            with_tensor("lm_head.weight", torch.full((11, 8), torch.inf)),
            ("lm_head.weight", "finite"),
        ),
    ],
)
def test_a_tensor_is_named(tensors, parts, tmp_path):
    refused(write_llama(tmp_path, tensors=tensors), *parts)


def test_tied_weights_that_differ_are_named(tmp_path):
    config = CONFIG | {"tie_word_embeddings": True}
    refused(
        write_llama(tmp_path, config),
        *("model.safetensors", "lm_head.weight", "must equal", "model.embed_tokens.weight"),
    )
    tensors = llama_tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    load_checkpoint(write_llama(tmp_path, config, tensors)).build()
    tensors["lm_head.weight"] = torch.ones(12, 8)
    refused(write_llama(tmp_path, config, tensors), "lm_head.weight", "(11, 8)", "(12, 8)")
    tensors["lm_head.weight"] = torch.ones(11, 8, dtype=torch.int32)
    refused(write_llama(tmp_path, config, tensors), "lm_head.weight", "I32")


def header_of(folder):
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_header(folder, header, values, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + text + values)


def test_files_that_are_cut_or_too_long_are_named(tmp_path):
    write_llama(tmp_path)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    for size in (0, 1, 8, 9, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        refused(tmp_path, "model.safetensors")
    path.write_bytes(data + b"\0")
    refused(tmp_path, "model.safetensors", f"{len(data)} bytes, got {len(data) + 1}")


@pytest.mark.parametrize("length", [2**63, 2**40, 2**24 + 1, 10_000_000])
def test_headers_that_claim_to_be_long_are_refused(length, tmp_path):
    write_llama(tmp_path)
    write_header(tmp_path, *header_of(tmp_path), length=length)
    refused(tmp_path, "model.safetensors", "header", str(length))


NAME = "model.norm.weight"


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("shape", [2**40], "bytes of its shape"),
        ("shape", [0, 2**70], "bytes of its shape"),
        ("shape", [-8], ">= 0"),
        ("shape", 8, ">= 0"),
        ("shape", [8] + [1] * 30, "8 dimensions"),
        ("shape", [True], ">= 0"),
        ("data_offsets", [0, 2**43], "bytes of its shape"),
        ("data_offsets", [32, 0], "bytes of its shape"),
        ("data_offsets", [2**70, 2**70 + 32], "must begin at byte"),
        ("data_offsets", [0], "two offsets"),
        ("dtype", "F99", "dtype"),
        ("dtype", ["F32"], "dtype"),
        ("extra", 1, "exactly the keys"),
    ],
)
def test_a_field_of_a_header_is_named(key, value, part, tmp_path):
    write_llama(tmp_path)
    header, values = header_of(tmp_path)
    header[NAME][key] = value
    write_header(tmp_path, header, values)
    refused(tmp_path, "model.safetensors", part)


def test_tensors_that_share_bytes_or_names_are_refused(tmp_path):
    write_llama(tmp_path)
    header, values = header_of(tmp_path)
    one, other = (f"model.layers.{i}.input_layernorm.weight" for i in (0, 1))
    shared = header | {one: header[other]}
    write_header(tmp_path, shared, values)
    refused(tmp_path, "model.safetensors", "no gaps, no overlaps")
    text = json.dumps(header)
    double = f'{text[:-1]}, "{NAME}": {json.dumps(header[NAME])}}}'.encode()
    write_header(tmp_path, double, values)
    refused(tmp_path, "model.safetensors", NAME, "twice")


def test_values_at_odd_addresses_are_read(tmp_path):
    write_llama(tmp_path)
    before = load_checkpoint(tmp_path).build().state_dict()
    header, values = header_of(tmp_path)
    text = json.dumps(header).encode()
    write_header(tmp_path, text + b" " * (1 - len(text) % 2), values)
    after = load_checkpoint(tmp_path).build().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "shard",
    [
        *("../model-00001-of-00002.safetensors", "/etc/passwd", "a/b.safetensors", "", "a.bin"),
        *("\0.safetensors", "a\nb.safetensors", "x" * 300 + ".safetensors", None, 3, "C:\\a"),
    ],
)
def test_an_index_that_leads_out_of_the_folder_is_refused(shard, tmp_path):
    index = write_shards(tmp_path / "m")
    load_checkpoint(tmp_path / "m").build()
    index["weight_map"][NAME] = shard
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path / "m", "model.safetensors.index.json", NAME)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda places: places.clear(), ("weight_map",)),
        (lambda places: places.pop(NAME), (NAME, "index.json says")),
        (lambda places: places.update(more=places[NAME]), ("'more'", "index.json says")),
        (lambda places: places.update({NAME: "other.safetensors"}), ("other.safetensors",)),
    ],
)
def test_an_index_of_other_tensors_is_refused(change, parts, tmp_path):
    index = write_shards(tmp_path)
    change(index["weight_map"])
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, *parts)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    index = write_shards(tmp_path)
    first, second = sorted(set(index["weight_map"].values()))
    shared = [name for name, shard in index["weight_map"].items() if shard == first]
    save_file(llama_tensors(), tmp_path / second)
    refused(tmp_path, second, "must be where", min(shared))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_links_out_of_the_folder_are_refused(name, tmp_path):
    write_llama(tmp_path / "m")
    (tmp_path / "m" / name).rename(tmp_path / name)
    (tmp_path / "m" / name).symlink_to(tmp_path / name)
    refused(tmp_path / "m", name, "must be inside its folder")


def test_links_to_the_blobs_of_the_hubs_cache_are_followed(tmp_path):
    snapshot = write_llama(tmp_path / "models--a--b" / "snapshots" / "0123")
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    load_checkpoint(snapshot).build()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5"])
def test_pickles_are_refused_with_the_way_to_convert(name, tmp_path):
    write_llama(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    refused(tmp_path, name, "safetensors", "save_pretrained")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name, tmp_path):
    write_llama(tmp_path)
    (tmp_path / name).unlink()
    refused(tmp_path, name)


def test_a_missing_folder_is_named(tmp_path):
    refused(tmp_path / "none", "must exist")


def test_a_name_of_the_hub_without_network_is_one_line(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"^'nobody/nothing' is no folder, .*$") as caught:
        load_checkpoint("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_a_name_of_the_hub_requires_its_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        load_checkpoint("nobody/nothing")


@pytest.mark.parametrize(
    ("tokenizer", "part"),
    [
        (TOKENIZER | {"added_tokens": [{"id": 11}]}, "added_tokens"),
        (TOKENIZER | {"added_tokens": [{}]}, "added_tokens"),
        (TOKENIZER | {"added_tokens": [3]}, "added_tokens"),
        (TOKENIZER | {"model": {"vocab": {"a": 11}}}, "model.vocab"),
        (TOKENIZER | {"model": {"vocab": {"a": -1}}}, "model.vocab"),
        (TOKENIZER | {"model": {"vocab": {"a": "1"}}}, "model.vocab"),
        (TOKENIZER | {"model": {"vocab": [["a", 0.0]] * 12}}, "model.vocab"),
        (TOKENIZER | {"model": None}, "model.vocab"),
        ({"model": {"vocab": {}}}, "model.vocab"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_named(tokenizer, part, tmp_path):
    refused(write_llama(tmp_path, tokenizer=tokenizer), "tokenizer.json", part)


def test_a_vocabulary_that_does_not_fit_is_named(tmp_path):
    write_llama(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("\n".join("abcdefghijk"))
    assert load_checkpoint(tmp_path).tokenizer.name == "vocab.txt"
    (tmp_path / "vocab.txt").write_text("\n".join("abcdefghijkl"))
    refused(tmp_path, "vocab.txt", "11", "12")


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\ntext", "apache-2.0"),
        ('---\nlicense: "mit"\n---\n', "mit"),
        ("# A model\nlicense: mit\n", None),
        ("---\nlicense: [a, b]\n---\n", None),
    ],
)
def test_the_licence_is_the_cards(card, license, tmp_path):
    write_llama(tmp_path)
    (tmp_path / "README.md").write_text(card)
    assert load_checkpoint(tmp_path).license == license


def test_another_type_of_weights_is_named(tmp_path):
    checkpoint = load_checkpoint(write_llama(tmp_path))
    with pytest.raises(ValueError, match="dtype must be one of float32, .*int8"):
        checkpoint.build(dtype=torch.int8)
