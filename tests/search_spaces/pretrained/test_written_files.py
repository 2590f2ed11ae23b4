"""Files that a written checkpoint has, their types and what is refused; without transformers."""

import json
from dataclasses import replace

import pytest
import torch
from pretrained_fakes import CONFIG, llama_tensors, write_llama, write_shards
from safetensors import safe_open
from safetensors.torch import load_file

from search_spaces.architecture import Compression
from search_spaces.compression.inherit import inherit
from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.files.folder import COMPANIONS
from search_spaces.pretrained.writing.folder import write_checkpoint
from search_spaces.pretrained.writing.loadable import check_loadable, refusals


def written(checkpoint, network, folder, architecture=None, **how):
    folder.mkdir()
    names = write_checkpoint(
        checkpoint, network, architecture or checkpoint.architecture, folder, **how
    )
    return folder, names


def changed(architecture, layer, block, **fields):
    """``architecture`` with other fields in one block."""
    layers = list(architecture.layers)
    spec = replace(getattr(layers[layer], block), **fields)
    layers[layer] = replace(layers[layer], **{block: spec})
    return replace(architecture, layers=tuple(layers))


def test_all_that_describes_inputs_comes_along(tmp_path):
    before = write_llama(tmp_path / "before")
    (before / "tokenizer_config.json").write_text('{"model_max_length": 32}')
    (before / "LICENSE").write_text("yours")
    (before / "run_me.py").write_text("raise SystemExit")
    (before / "1_Pooling").mkdir()
    (before / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    checkpoint = load_checkpoint(before)
    after, names = written(
        checkpoint, checkpoint.build(), tmp_path / "after", metadata={"parent": "x"}
    )
    files = {str(x.relative_to(after)) for x in after.rglob("*") if x.is_file()}
    assert (
        files
        == set(names)
        == {
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "LICENSE",
            "1_Pooling/config.json",
        }
    )
    for name in files - {"config.json", "model.safetensors"}:
        assert (after / name).read_bytes() == (before / name).read_bytes()
    with safe_open(after / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "parent": "x"}


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    before = write_llama(tmp_path / "before")
    (tmp_path / "secret").write_text("mine")
    (before / "NOTICE").symlink_to(tmp_path / "secret")
    checkpoint = load_checkpoint(before)
    with pytest.raises(ValueError, match="must be inside its folder"):
        written(checkpoint, checkpoint.build(), tmp_path / "after")


def test_shards_become_one_file(tmp_path):
    write_shards(tmp_path / "before")
    checkpoint = load_checkpoint(tmp_path / "before")
    after, _ = written(checkpoint, checkpoint.build(), tmp_path / "after")
    tensors = load_file(after / "model.safetensors")
    assert tensors.keys() == llama_tensors().keys()
    assert all(torch.equal(tensors[key], value) for key, value in llama_tensors().items())


def half(folder, key="torch_dtype"):
    """A checkpoint in bf16 but for its norms."""
    tensors = {
        name: tensor if "norm" in name else tensor.bfloat16()
        for name, tensor in llama_tensors().items()
    }
    config = {k: v for k, v in CONFIG.items() if k != "torch_dtype"} | {key: "bfloat16"}
    return tensors, load_checkpoint(write_llama(folder, config, tensors))


def test_each_tensor_keeps_the_parents_type(tmp_path):
    tensors, checkpoint = half(tmp_path / "before")
    after, _ = written(checkpoint, checkpoint.build(), tmp_path / "after")
    for name, value in load_file(after / "model.safetensors").items():
        assert value.dtype == tensors[name].dtype and torch.equal(value, tensors[name])
    assert json.loads((after / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_values_that_the_parents_type_would_round_are_fp32(key, tmp_path):
    _, checkpoint = half(tmp_path / "before", key)
    network = checkpoint.build()
    with torch.no_grad():
        network.layers[0].ffn.up.weight[0, 0] = 1 + 2**-20
    after, _ = written(checkpoint, network, tmp_path / "after")
    values = load_file(after / "model.safetensors").values()
    assert {value.dtype for value in values} == {torch.float32}
    config = json.loads((after / "config.json").read_text())
    assert config[key] == "float32" and len({"dtype", "torch_dtype"} & config.keys()) == 1
    read = dict(load_checkpoint(after).build().named_parameters())
    for name, parameter in network.named_parameters():
        assert torch.equal(read[name], parameter)


def test_an_architecture_in_bf16_is_stored_so(tmp_path):
    checkpoint = load_checkpoint(write_llama(tmp_path / "before"))
    architecture, half_size = checkpoint.architecture, Compression("bf16")
    for layer in range(2):
        for block in ("attention", "ffn"):
            architecture = changed(architecture, layer, block, compression=half_size)
    network = checkpoint.build()
    after, _ = written(checkpoint, network, tmp_path / "after", architecture)
    values = load_file(after / "model.safetensors").values()
    assert {value.dtype for value in values} == {torch.bfloat16}
    read = dict(load_checkpoint(after).build().named_parameters())
    for name, parameter in network.named_parameters():
        assert torch.equal(read[name], parameter.bfloat16().float())


def test_a_layers_own_kind_moves_with_it(tmp_path):
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    config = CONFIG | {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "head_dim": 2,
        "num_hidden_layers": 3,
        "layer_types": kinds,
    }
    tensors = llama_tensors()
    third = {n.replace(".1.", ".2."): t.clone() for n, t in tensors.items() if ".1." in n}
    norms = {
        f"model.layers.{i}.self_attn.{x}_norm.weight": torch.ones(2)
        for i in range(3)
        for x in "qk"
    }
    folder = write_llama(tmp_path / "before", config, {**tensors, **third, **norms})
    checkpoint = load_checkpoint(folder)
    architecture = replace(checkpoint.architecture, layers=checkpoint.architecture.layers[:2])
    network = inherit(
        checkpoint.build(), checkpoint.architecture, architecture, checkpoint.workload
    )
    after, _ = written(checkpoint, network, tmp_path / "after", architecture)
    values = json.loads((after / "config.json").read_text())
    # Of three layers the first and the last remain.
    assert values["layer_types"] == ["full_attention", "full_attention"]
    assert values["num_hidden_layers"] == 2
    unchanged = config.keys() - {"layer_types", "num_hidden_layers"}
    assert all(values[key] == config[key] for key in unchanged)


@pytest.mark.parametrize(
    ("layer", "block", "fields", "parts"),
    [
        (1, "ffn", {"d_ff": 8}, ("layers[1].ffn.d_ff is 8", "12", "intermediate_size")),
        (
            1,
            "attention",
            {"n_heads": 2},
            ("layers[1].attention.n_heads is 2", "4", "num_attention_heads"),
        ),
        (
            1,
            "attention",
            {"n_kv_heads": 1},
            ("layers[1].attention.n_kv_heads is 1", "num_key_value_heads"),
        ),
        (1, "attention", {"d_head": 4}, ("layers[1].attention.d_head is 4", "head_dim")),
        (0, "ffn", {"rank": 2}, ("layers.0.ffn.rank is 2", "factorised")),
        (
            1,
            "attention",
            {"compression": Compression("int4wo")},
            ("layers.1.attention.precision is int4wo", "safetensors"),
        ),
        (
            1,
            "ffn",
            {"compression": Compression("bf16")},
            ("layers.1.ffn.precision is bf16", "one type, here fp32"),
        ),
        (
            0,
            "ffn",
            {"compression": Compression("fp32", "2:4")},
            ("layers.0.ffn.sparsity is 2:4", "dense"),
        ),
    ],
)
def test_a_refusal_names_the_layer_and_why(layer, block, fields, parts, tmp_path):
    checkpoint = load_checkpoint(write_llama(tmp_path / "before"))
    architecture = changed(checkpoint.architecture, layer, block, **fields)
    (reason,) = refusals(checkpoint, architecture)
    assert "\n" not in reason and all(part in reason for part in parts), reason
    with pytest.raises(ValueError) as caught:
        written(checkpoint, checkpoint.build(), tmp_path / "after", architecture)
    assert str(caught.value) == reason
    assert not list((tmp_path / "after").iterdir())


def test_several_refusals_are_counted(tmp_path):
    checkpoint = load_checkpoint(write_llama(tmp_path / "before"))
    architecture = changed(checkpoint.architecture, 1, "ffn", d_ff=8)
    architecture = replace(changed(architecture, 1, "ffn", rank=2), resolution=8)
    assert len(refusals(checkpoint, architecture)) == 3
    with pytest.raises(ValueError, match=r"resolution is 8, and the parent's is None \(and 2 mor"):
        check_loadable(checkpoint, architecture)
    assert refusals(checkpoint, checkpoint.architecture) == ()


def test_what_is_copied_is_downloaded_from_the_hub(tmp_path, monkeypatch):
    hub, seen = pytest.importorskip("huggingface_hub"), []

    def snapshot_download(name, allow_patterns):
        seen.extend(allow_patterns)
        return str(write_llama(tmp_path / "snapshot"))

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    assert load_checkpoint("owner/name").workload.name == "name"
    assert set(COMPANIONS) <= set(seen)
