"""Configurations and folders that are not valid give one line that names file and field."""

import pytest
import torch
from pretrained_fakes import CONFIG, TOKENIZER, refused, write_llama

from search_spaces.pretrained import load_checkpoint

WITHOUT = object()


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
