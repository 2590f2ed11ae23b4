"""Networks of GGUF files: equal to Hugging Face's folder, and to the package's own values."""

import gguf
import numpy as np
import pytest
import torch
from gguf_fakes import (
    CONFIG,
    folder_of,
    metadata_of,
    small_gguf,
    stored_tensors,
    tensors_of,
    write_gguf,
)
from pretrained_fakes import largest_difference, layers_of, streams

from search_spaces.pretrained import load_checkpoint

QWEN2 = CONFIG | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
QWEN3 = CONFIG | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 128}
CONFIGS = {
    "llama": CONFIG,
    "llama, tied": CONFIG | {"tie_word_embeddings": True},
    "llama, biases": CONFIG | {"attention_bias": True, "mlp_bias": True},
    "llama, size of heads": CONFIG | {"head_dim": 8, "num_key_value_heads": 4},
    "qwen2": QWEN2,
    "qwen3, tied": QWEN3 | {"tie_word_embeddings": True},
}


def parameters(checkpoint, **how):
    return dict(checkpoint.build(**how).named_parameters())


def are_equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_in_f32_is_the_folder_to_the_bit(name, tmp_path):
    folder = load_checkpoint(folder_of(CONFIGS[name], tmp_path / "folder"))
    file = load_checkpoint(small_gguf(tmp_path / "file.gguf", CONFIGS[name]))
    assert file.architecture == folder.architecture
    assert file.workload.vocab_size == 40 and file.longest == folder.longest == 32
    assert file.workload.name == "file" and file.model_type == CONFIGS[name]["model_type"]
    assert are_equal(parameters(file), parameters(folder))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_each_type_has_the_values_of_the_package(kind, tmp_path):
    stored = stored_tensors(CONFIG, tensors_of(CONFIG))
    path = write_gguf(tmp_path / "m.gguf", "llama", metadata_of(CONFIG), stored, kind)
    number = gguf.GGMLQuantizationType[kind]
    found = parameters(load_checkpoint(path))
    names = {
        "embed.weight": ("token_embd.weight", 0),
        "head.weight": ("output.weight", 0),
        "layers.1.attention.q.weight": ("blk.1.attn_q.weight", 4),
        "layers.0.attention.k.weight": ("blk.0.attn_k.weight", 2),
        "layers.0.attention.v.weight": ("blk.0.attn_v.weight", 0),
        "layers.1.ffn.down.weight": ("blk.1.ffn_down.weight", 0),
    }
    for ours, (theirs, heads) in names.items():
        (name,) = (each for each in found if each.endswith(ours))
        rows = gguf.quantize(stored[theirs], number)
        values = gguf.dequantize(rows.view(np.uint8), number)
        if heads:
            # Back in the network's order: first halves, then second halves of each head.
            turns = values.reshape(heads, -1, 2, values.shape[-1])
            values = np.concatenate([turns[:, :, 0], turns[:, :, 1]], axis=1)
        values = values.reshape(found[name].shape)
        assert np.array_equal(found[name].detach().numpy(), values), name
        assert not np.array_equal(values, stored[theirs])
    norm = next(value for name, value in found.items() if name.endswith("0.ffn_norm.weight"))
    assert np.array_equal(norm.detach().numpy(), stored["blk.0.ffn_norm.weight"])


@pytest.mark.parametrize("of", ["F16", "Q4_1"])
def test_other_types_of_weights_are_rounded_from_the_values(of, tmp_path):
    checkpoint = load_checkpoint(small_gguf(tmp_path / "m.gguf", of=of))
    exact = parameters(checkpoint, dtype=torch.float64)
    for name, value in parameters(checkpoint, dtype=torch.bfloat16).items():
        assert torch.equal(value, exact[name].bfloat16())


@pytest.mark.parametrize("alignment", [1, 64])
def test_values_may_begin_anywhere(alignment, tmp_path):
    stored = stored_tensors(CONFIG, tensors_of(CONFIG))
    for letters in ("a", "ab"):
        metadata = metadata_of(CONFIG) | {"general.name": letters}
        path = write_gguf(tmp_path / "m.gguf", "llama", metadata, stored, alignment=alignment)
        begins = {entry.begin % 4 for entry in load_checkpoint(path).match.entries.values()}
        if begins != {0}:
            break
    assert (begins != {0}) == (alignment == 1)
    expected = parameters(load_checkpoint(small_gguf(tmp_path / "other.gguf")))
    assert are_equal(parameters(load_checkpoint(path)), expected)


def test_a_large_tensor_is_read_in_chunks(tmp_path, monkeypatch):
    path = small_gguf(tmp_path / "m.gguf", of="Q8_0")
    expected = parameters(load_checkpoint(path))
    # Seven rows at a time, of which a head has sixteen.
    monkeypatch.setattr("search_spaces.pretrained.files.tensors._CHUNK_BYTES", 7 * 4 * 64 * 4)
    assert are_equal(parameters(load_checkpoint(path)), expected)


def test_a_folder_with_one_file_is_that_file(tmp_path):
    path = small_gguf(tmp_path / "m.gguf")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    found = load_checkpoint(tmp_path)
    assert found.folder == path and found.workload.name.startswith("test_a_folder_with_one")
    small_gguf(tmp_path / "other.gguf")
    with pytest.raises(ValueError, match=r"one GGUF file: name one of m.gguf, other.gguf"):
        load_checkpoint(tmp_path)
    folder_of(CONFIG, tmp_path)
    assert load_checkpoint(tmp_path).folder == tmp_path


def factors(factor, size, theta, low=1.0, high=4.0, length=8192):
    """Llama 3's factors, by a loop over wavelengths."""
    found = []
    for index in range(0, size, 2):
        wavelength = 2 * np.pi * theta ** (index / size)
        if wavelength < length / high:
            found.append(1.0)
        elif wavelength > length / low:
            found.append(factor)
        else:
            smooth = (length / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, dtype=np.float32)


LLAMA3 = CONFIG | {"rope_theta": 500_000.0, "head_dim": 64, "max_position_embeddings": 16_384}


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_scaling_of_llama_3_is_known_by_its_factors(factor, tmp_path):
    stored = stored_tensors(LLAMA3, tensors_of(LLAMA3))
    stored["rope_freqs.weight"] = factors(factor, 64, 500_000.0)
    path = write_gguf(tmp_path / "m.gguf", "llama", metadata_of(LLAMA3), stored)
    scaling = load_checkpoint(path).architecture.style.positions.scaling
    assert (scaling.kind, scaling.factor, scaling.original_length) == ("llama3", factor, 8192)
    assert (scaling.low_frequency_factor, scaling.high_frequency_factor) == (1.0, 4.0)
    stored["rope_freqs.weight"] = np.ones(32, np.float32)
    write_gguf(path, "llama", metadata_of(LLAMA3), stored)
    assert load_checkpoint(path).architecture.style.positions.scaling is None
    stored["rope_freqs.weight"] = factors(factor, 64, 500_000.0, length=4096)
    write_gguf(path, "llama", metadata_of(LLAMA3), stored)
    with pytest.raises(ValueError, match=r"'rope_freqs.weight' must have the factors of Llama 3"):
        load_checkpoint(path)


def test_linear_scaling_is_read(tmp_path):
    changes = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    file = load_checkpoint(small_gguf(tmp_path / "m.gguf", **changes))
    config = CONFIG | {"rope_scaling": {"type": "linear", "factor": 4.0}}
    folder = load_checkpoint(folder_of(config, tmp_path / "folder"))
    assert file.architecture == folder.architecture


@pytest.mark.parametrize(
    ("name", "kind"),
    [("llama", "F32"), ("llama", "Q4_1"), ("qwen2", "F16"), ("qwen3, tied", "Q8_0")],
)
def test_outputs_are_those_of_transformers(name, kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    path = small_gguf(tmp_path / "m.gguf", CONFIGS[name], kind, **{"general.name": "m"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    ).eval()
    ours, tokens = load_checkpoint(path).build(), torch.arange(30).reshape(2, 15)
    *expected, logits = streams(layers_of(theirs), lambda: theirs(tokens).logits)
    *found, our_logits = streams(ours.stack, lambda: ours(tokens))
    assert largest_difference([*found, our_logits], [*expected, logits]) < 1e-5


@pytest.mark.parametrize(
    ("of_file", "factor"),
    [
        ({"factor": 4.0}, 4),
        ({"type": "linear", "factor": 4.0}, 4),
        ({"type": "none", "factor": 4.0}, None),
        ({"type": "linear", "factor": 1.0}, None),
        ({"type": "linear"}, None),
        ({}, None),
    ],
)
def test_a_factor_without_a_type_is_linear_as_in_llama_cpp(of_file, factor, tmp_path):
    changes = {f"llama.rope.scaling.{key}": value for key, value in of_file.items()}
    path = small_gguf(tmp_path / "m.gguf", **changes)
    scaling = load_checkpoint(path).architecture.style.positions.scaling
    assert (None if scaling is None else (scaling.kind, scaling.factor)) == (
        None if factor is None else ("linear", factor)
    )
