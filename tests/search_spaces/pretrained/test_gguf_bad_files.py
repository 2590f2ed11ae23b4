"""Files of GGUF that are not valid or not supported: one line, without much memory or time."""

import random
import resource
import struct
import sys
import time

import gguf
import numpy as np
import pytest
from gguf_fakes import (
    CONFIG,
    byte_pairs,
    metadata_of,
    sentence_piece,
    small_gguf,
    stored_tensors,
    tensors_of,
    write_gguf,
)

from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.gguf import header, tokenizer


def refused(path):
    """The message for a file, which must be one line that names it."""
    with pytest.raises(ValueError) as error:
        load_checkpoint(path).build()
    line = str(error.value)
    assert line.isprintable() and str(path) in line and len(line) < 600
    return line


@pytest.fixture
def file(tmp_path):
    return small_gguf(tmp_path / "m.gguf", **{"general.name": "m"})


def test_a_file_may_end_anywhere(file):
    data = file.read_bytes()
    begin = min(entry.begin for entry in load_checkpoint(file).match.entries.values())
    for length in (*range(0, begin + 40, 7), len(data) - 1, len(data) // 2):
        file.write_bytes(data[:length])
        line = refused(file)
        assert "truncated" in line or "begins with the letters GGUF" in line
    file.write_bytes(data + bytes(64))
    assert f"must have the header's {len(data)} bytes, got {len(data) + 64}" in refused(file)


def test_other_files_are_named(file):
    data = file.read_bytes()
    file.write_bytes(b"GGML" + data[4:])
    assert "begins with the letters GGUF" in refused(file)
    for version in (0, 1, 4, 3 << 24):
        file.write_bytes(data[:4] + struct.pack("<I", version) + data[8:])
        assert f"version 2 or 3, little-endian, got {version}" in refused(file)


@pytest.mark.parametrize("name", ["m.GGUF", "model.safetensors", "m"])
def test_a_file_of_another_name_is_not_called_absent(name, file):
    line = refused(file.rename(file.with_name(name)))
    assert line.endswith(f"{name}' must be a folder or a file *.gguf")


def test_an_absent_file_is_not_sought_on_the_hub(monkeypatch):
    def download(name):
        raise AssertionError(f"{name} is downloaded")

    monkeypatch.setattr("search_spaces.pretrained.load.download", download)
    with pytest.raises(ValueError, match=r"^checkpoint file 'none/m.gguf' must exist, and does"):
        load_checkpoint("none/m.gguf")


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_a_file_that_is_cut_after_its_header_was_read_is_named(kind, tmp_path):
    path = small_gguf(tmp_path / "m.gguf", of=kind)
    checkpoint, data = load_checkpoint(path), path.read_bytes()
    last = max(entry.end for entry in checkpoint.match.entries.values())
    path.write_bytes(data[:last])
    checkpoint.build()
    path.write_bytes(data[: last - 1])
    with pytest.raises(ValueError, match="which has become shorter") as error:
        checkpoint.build()
    assert str(error.value).startswith(f"{path}: ")


HUGE = (2**62, 2**40, 2**32, 2**26)


def peak_kb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("count", HUGE)
def test_counts_of_terabytes_take_neither_memory_nor_time(count, file):
    data, before, begun = file.read_bytes(), peak_kb(), time.monotonic()
    # Of tensors, of keys, of the first key's letters.
    for place in (8, 16, 24):
        file.write_bytes(data[:place] + struct.pack("<Q", count) + data[place + 8 :])
        refused(file)
    for kind in (0, 7, 8, 10, 12):
        head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
        value = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, kind, count)
        file.write_bytes(head + value + bytes(100))
        assert "a must be inside the file" in refused(file)
    assert peak_kb() - before < 50_000 and time.monotonic() - begun < 5


def test_a_header_has_a_greatest_length(file, monkeypatch):
    monkeypatch.setattr(header, "MOST_HEADER", 300)
    assert "must have a header of at most 300 bytes" in refused(file)


def raw(keys, tensors=b"", n_tensors=0):
    """A header of keys, each as bytes of its value with its type."""
    packed = b"".join(struct.pack("<Q", len(key)) + key + value for key, value in keys)
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, len(keys)) + packed + tensors


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ([(b"a", struct.pack("<IB", 7, 2))], "a must be true or false, got 2"),
        ([(b"a", struct.pack("<I", 13))], "a must have a type in 0..12, got 13"),
        ([(b"a", struct.pack("<IIQ", 9, 9, 1))], "a must be an array of texts or numbers"),
        (
            [(b"a", struct.pack("<IB", 0, 1))] * 2,
            "the key 'a' must appear once, and appears twice",
        ),
        ([(b"a", struct.pack("<IQ", 8, 1) + b"\xff")], "a must be UTF-8 text"),
        ([(b"\x1b[2J", struct.pack("<IB", 7, 2))], r"\x1b[2J must be true or false"),
        ([(b"x" * 201, struct.pack("<IB", 7, 1))], "must have at most 200 bytes, got 201"),
        ([(b"general.alignment", struct.pack("<II", 4, 24))], "must be a power of two"),
        ([(b"general.alignment", struct.pack("<II", 4, 0))], "must be a power of two"),
    ],
)
def test_metadata_that_is_not_valid(keys, part, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(raw(keys))
    assert part in refused(path)


def description(name=b"t", sizes=(32,), kind=0, offset=0):
    packed = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(sizes))
    return packed + struct.pack(f"<{len(sizes)}Q", *sizes) + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("tensors", "part"),
    [
        ([description(sizes=())], "'t' must have 1..4 dimensions"),
        ([description(sizes=(1,) * 5)], "'t' must have 1..4 dimensions"),
        ([description(sizes=(0, 32))], "'t'.shape must have sizes >= 1"),
        (
            [description(kind=12)],
            "'t'.type must be one of F32, F16, BF16, Q8_0, Q4_0, Q4_1, got Q4",
        ),
        ([description(kind=99)], "got an unknown type, 99"),
        ([description(kind=8, sizes=(33,))], "rows of a multiple of 32 values (Q8_0), got 33"),
        ([description(sizes=(2**60, 2**60))], "must be inside the file, and needs"),
        ([description(offset=32)], "'t' must begin at byte 0 of the values"),
        ([description(), description()], "'t' must appear once, and appears twice"),
        ([description(), description(name=b"u")], "'u' must begin at byte 128"),
    ],
)
def test_tensors_that_are_not_valid(tensors, part, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(raw([], b"".join(tensors), len(tensors)) + bytes(300))
    assert part in refused(path)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"llama.block_count": None}, "llama.block_count must be an integer in 1..1000, got None"),
        ({"llama.block_count": 3}, "must contain the tensor 'blk.2.attn_k.weight'"),
        ({"llama.block_count": 1}, "'blk.1.attn_k.weight' must be left out"),
        ({"llama.block_count": 10**6}, "llama.block_count must be an integer in 1..1000"),
        ({"llama.feed_forward_length": [96, 96]}, "llama.feed_forward_length must be an integer"),
        (
            {"llama.feed_forward_length": 64},
            "'blk.0.ffn_gate.weight' must have the shape (64,",
        ),
        ({"llama.vocab_size": 41}, "'token_embd.weight' must have the shape (41, 64)"),
        ({"llama.attention.head_count": 0}, "llama.attention.head_count must be an integer"),
        ({"llama.attention.head_count_kv": 3}, "n_kv_heads"),
        ({"llama.attention.key_length": 15}, "the size of heads must be even"),
        ({"llama.attention.key_length": 8}, "llama.rope.dimension_count must be null, 8"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "rms_epsilon must be a finite"),
        ({"llama.rope.freq_base": "high"}, "llama.rope.freq_base must be a finite number"),
        ({"llama.rope.scaling.type": "yarn"}, "scaling.type must be one of none, linear"),
        ({"llama.expert_count": 8}, "llama.expert_count must be null, 0 or left out"),
        ({"llama.attention.sliding_window": 16}, "llama.attention.sliding_window must be null, 0"),
        ({"llama.logit_scale": 2.0}, "llama.logit_scale must be left out (no known key"),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model must be one of gpt2, llama"),
        ({"split.count": 3, "llama.block_count": 4}, "split.count must be null, 0, 1 or left out"),
        ({"tokenizer.ggml.model": [1, 2]}, "tokenizer.ggml.model must be one of gpt2, llama"),
        ({"tokenizer.ggml.bos_token_id": "one"}, "tokenizer.ggml.bos_token_id must be an integer"),
    ],
)
def test_metadata_that_is_not_supported_is_named(changes, part, tmp_path):
    assert part in refused(small_gguf(tmp_path / "m.gguf", **changes))


@pytest.mark.parametrize("kind", ["gemma3", "llama4", "mixtral", "bert", "qwen3moe"])
def test_other_architectures_are_named(kind, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", kind, {}, {"t": np.zeros(32, np.float32)})
    assert f"general.architecture must be one of llama, qwen2, qwen3, got '{kind}'" in refused(
        path
    )


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.1.ffn_down.weight"])
def test_values_that_are_not_finite_are_named(name, kind, tmp_path):
    path = small_gguf(tmp_path / "m.gguf", of=kind)
    (entry,) = (e for e in load_checkpoint(path).match.entries.values() if e.name == name)
    data = bytearray(path.read_bytes())
    # The scale of a block, or a value: NaN in 16 and in 32 bits.
    data[entry.begin : entry.begin + 4] = b"\xff\xff\xff\x7f" if kind == "F32" else b"\xff\x7f" * 2
    path.write_bytes(data)
    assert f"'{name}' must hold values that are finite" in refused(path)


def test_pairs_of_nested_tokens_do_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "_MOST_MERGES", 300_000)
    # All cuts of each are two tokens: 131,000 pairs of each letter, in 0.1 MB of a header.
    pieces = [letter * n for letter in "abc" for n in range(1, 513)]
    tokens = sentence_piece(pieces)
    config = CONFIG | {"vocab_size": len(tokens["tokenizer.ggml.tokens"])}
    path, before = small_gguf(tmp_path / "m.gguf", config, **tokens), peak_kb()
    line = refused(path)
    assert "tokenizer.ggml.tokens must be texts that are joined of at most 300000 pairs" in line
    assert peak_kb() - before < 120_000


def test_a_quantised_vector_is_refused(tmp_path):
    stored = stored_tensors(CONFIG, tensors_of(CONFIG))
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for key, value in metadata_of(CONFIG).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    number = gguf.GGMLQuantizationType.Q8_0
    for name, values in stored.items():
        rows = gguf.quantize(values, number) if name == "output_norm.weight" else values
        is_raw = name == "output_norm.weight"
        writer.add_tensor(name, rows, raw_dtype=number if is_raw else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "'output_norm.weight'.type must be one of F64, F32" in refused(tmp_path / "m.gguf")


def test_without_the_package_one_line_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"GGUF needs the package gguf: pip install 'joulenas"):
        load_checkpoint(file)


def test_a_link_out_of_a_folder_is_not_followed(file, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "m.gguf").symlink_to(file)
    with pytest.raises(ValueError, match="must be inside its folder"):
        load_checkpoint(tmp_path / "folder")


def check_mutated(path, seeds):
    """Change bytes of a file's header for each seed: a network, or one line."""
    tokens = byte_pairs()
    config = CONFIG | {"vocab_size": len(tokens["tokenizer.ggml.tokens"])}
    data = small_gguf(path, config, "Q8_0", **tokens).read_bytes()
    begin = min(entry.begin for entry in load_checkpoint(path).match.entries.values())
    n_built, before, begun = 0, peak_kb(), time.monotonic()
    for seed in seeds:
        rng, changed = random.Random(seed), bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 5])):
            at = rng.randrange(begin)
            size = rng.choice([1, 1, 2, 4, 8])
            noise = (rng.randbytes(size), bytes(size), b"\xff" * size)
            changed[at : at + size] = rng.choice(noise)
        if rng.random() < 0.2:
            del changed[rng.randrange(len(changed)) :]
        path.write_bytes(changed)
        try:
            load_checkpoint(path).build()
            n_built += 1
        except ValueError as error:
            line = str(error)
            assert line.isprintable() and str(path) in line and len(line) < 1000, (seed, line)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    assert 0 < n_built < len(seeds)
    assert peak_kb() - before < 200_000 and time.monotonic() - begun < len(seeds)


def test_mutated_files_are_refused_by_one_line_or_built(tmp_path):
    check_mutated(tmp_path / "m.gguf", range(150))


@pytest.mark.thorough
def test_thousands_of_mutated_files_are_refused_by_one_line_or_built(tmp_path):
    check_mutated(tmp_path / "m.gguf", range(1_000, 5_000))
