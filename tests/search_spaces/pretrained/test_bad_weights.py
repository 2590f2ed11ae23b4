"""Weights that are not valid give one line that names the file and the tensor."""

import json
import struct

import pytest
import torch
from pretrained_fakes import CONFIG, llama_tensors, refused, write_llama, write_shards
from safetensors.torch import save_file

from search_spaces.pretrained import load_checkpoint


def test_a_file_that_is_cut_after_its_header_was_read_is_named(tmp_path):
    checkpoint = load_checkpoint(write_llama(tmp_path / "m"))
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError) as error:
        checkpoint.build()
    assert str(error.value).startswith(f"{path}: ") and "become shorter" in str(error.value)


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


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5"])
def test_pickles_are_refused_with_the_way_to_convert(name, tmp_path):
    write_llama(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    refused(tmp_path, name, "safetensors", "save_pretrained")


def test_another_type_of_weights_is_named(tmp_path):
    checkpoint = load_checkpoint(write_llama(tmp_path))
    with pytest.raises(ValueError, match="dtype must be one of float32, .*int8"):
        checkpoint.build(dtype=torch.int8)
