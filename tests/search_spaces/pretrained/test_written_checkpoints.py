"""Checkpoints written back: transformers' own classes load them and give our outputs."""

import json
import random
from dataclasses import replace

import pytest
import torch
from encoder_fakes import IMAGES, TEXTS, encoder
from pretrained_fakes import CAUSAL, causal, saved
from safetensors.torch import load_file

from nas.exporting.formats import stock, stock_worker
from search_spaces.architecture import Architecture, LayerSpec
from search_spaces.compression.inherit import inherit
from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.files.config import Config
from search_spaces.pretrained.writing.configuration import changed_values
from search_spaces.pretrained.writing.folder import write_checkpoint
from search_spaces.pretrained.writing.loadable import family_named, refusals

pytest.importorskip("transformers")

# Of each family one, and what is peculiar: ties, biases, offsets, folds, several heads.
CASES = [
    *((name, "ForCausalLM") for name in ("llama, tied, biases", "llama 3", "mistral, window")),
    *((name, "ForCausalLM") for name in ("qwen2, tied", "qwen3", "gpt2", "gpt2, relu, untied")),
    ("llama", "ForSequenceClassification"),
    ("qwen3", "Model"),
    *(("bert", head) for head in ("ForMaskedLM", "ForQuestionAnswering", "Model")),
    ("bert, tanh, untied", "ForMaskedLM"),
    ("roberta, padding 4", "ForSequenceClassification"),
    ("xlm-roberta", "ForMaskedLM"),
    ("distilbert", "ForSequenceClassification"),
    ("distilbert, relu, untied", "ForMaskedLM"),
    *((name, "ForImageClassification") for name in ("vit", "deit", "dinov2")),
    ("vit, no biases, oblong, relu", "Model"),
    ("deit", "ForImageClassificationWithTeacher"),
    ("dinov2, swiglu", "Model"),
    ("dinov2 with registers", "Model"),
    ("dinov2 with registers, swiglu", "ForImageClassification"),
]


def parent(name, head, folder, **changes):
    make = causal if name in CAUSAL else encoder
    assert name in CAUSAL or name in TEXTS or name in IMAGES
    return saved(make(name, head, **changes), folder)


def written(checkpoint, network, architecture, folder):
    folder.mkdir()
    write_checkpoint(checkpoint, network, architecture, folder)
    return folder


def cut(checkpoint, *, depth=2, **sizes):
    """A smaller architecture: ``d_ff``, ``n_heads`` and ``n_kv_heads`` of every layer."""
    of = checkpoint.architecture
    layer = of.layers[0]
    heads = {k: v for k, v in sizes.items() if k != "d_ff"}
    ffn = replace(layer.ffn, d_ff=sizes.get("d_ff", layer.ffn.d_ff))
    layer = LayerSpec(replace(layer.attention, **heads), ffn)
    return Architecture(of.d_model, (layer,) * depth, of.patch_size, style=of.style)


def child(checkpoint, architecture):
    network = inherit(
        checkpoint.build(), checkpoint.architecture, architecture, checkpoint.workload
    )
    return network.eval()


def stored(folder):
    return load_file(folder / "model.safetensors")


def check_read_again(folder, network):
    """Our reader finds every parameter of ``network`` in the folder, to the bit."""
    read = dict(load_checkpoint(folder).build().named_parameters())
    for name, parameter in network.named_parameters():
        assert torch.equal(read.pop(name), parameter), name
    assert not read


def check_loads(folder, network, monkeypatch):
    """A stock class loads the folder and gives the outputs of ``network``."""
    monkeypatch.setattr(stock, "run", stock_worker.do)
    checkpoint = load_checkpoint(folder)
    style = checkpoint.architecture.style
    found = stock.verify_folder(folder, checkpoint.workload, style, network, by_stock=True)
    (expected,) = json.loads((folder / "config.json").read_text())["architectures"]
    assert found.stock_class == expected
    assert found.missing == ()


@pytest.mark.parametrize(("name", "head"), CASES)
def test_import_and_export_are_inverse_to_the_bit(name, head, tmp_path):
    before = parent(name, head, tmp_path / "before")
    checkpoint = load_checkpoint(before)
    after = written(checkpoint, checkpoint.build(), checkpoint.architecture, tmp_path / "after")
    theirs, ours = stored(before), stored(after)
    assert theirs.keys() == ours.keys()
    for key, value in theirs.items():
        assert value.dtype == ours[key].dtype and torch.equal(value, ours[key]), key
    configs = [json.loads((x / "config.json").read_text()) for x in (before, after)]
    assert configs[0] == configs[1]


@pytest.mark.parametrize(("name", "head"), CASES)
def test_a_cut_network_gives_its_outputs_in_a_stock_class(name, head, tmp_path, monkeypatch):
    checkpoint = load_checkpoint(parent(name, head, tmp_path / "before"))
    d_ff = 24 if name.startswith("dinov2") else 17
    if "swiglu" in name:
        # The width of ratio 1 there: two thirds of 24, in whole eights.
        d_ff = 16
    architecture = cut(checkpoint, d_ff=d_ff)
    assert refusals(checkpoint, architecture) == ()
    network = child(checkpoint, architecture)
    folder = written(checkpoint, network, architecture, tmp_path / "after")
    check_read_again(folder, network)
    check_loads(folder, network, monkeypatch)


@pytest.mark.parametrize(
    ("name", "head", "sizes"),
    [
        ("llama", "ForCausalLM", {"n_heads": 2, "n_kv_heads": 1}),
        ("llama", "ForCausalLM", {"n_heads": 4, "n_kv_heads": 1}),
        ("llama, one group, size of heads", "ForCausalLM", {"n_heads": 3, "n_kv_heads": 3}),
        ("qwen3", "ForCausalLM", {"n_heads": 1, "n_kv_heads": 1}),
        ("vit", "ForImageClassification", {"n_heads": 3, "n_kv_heads": 3}),
        ("dinov2", "Model", {"n_heads": 1, "n_kv_heads": 1}),
    ],
)
def test_fewer_heads_where_a_configuration_has_their_size(
    name, head, sizes, tmp_path, monkeypatch
):
    checkpoint = load_checkpoint(parent(name, head, tmp_path / "before"))
    architecture = cut(checkpoint, depth=3, **sizes)
    assert refusals(checkpoint, architecture) == ()
    network = child(checkpoint, architecture)
    folder = written(checkpoint, network, architecture, tmp_path / "after")
    assert load_checkpoint(folder).architecture == architecture
    check_read_again(folder, network)
    check_loads(folder, network, monkeypatch)


@pytest.mark.parametrize("name", ["dinov2", "deit", "roberta", "bert"])
def test_a_trained_network_is_written_with_its_own_values(name, tmp_path, monkeypatch):
    """Where a scale was folded, it is written as ones."""
    head = "ForImageClassificationWithTeacher" if name == "deit" else "Model"
    checkpoint = load_checkpoint(parent(name, head, tmp_path / "before"))
    network = checkpoint.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.01)
    folder = written(checkpoint, network, checkpoint.architecture, tmp_path / "after")
    check_read_again(folder, network)
    check_loads(folder, network, monkeypatch)
    scales = [value for key, value in stored(folder).items() if "layer_scale" in key]
    assert len(scales) == (6 if name == "dinov2" else 0)
    assert all(bool((value == 1).all()) for value in scales)


def test_values_of_registers_positions_have_no_room(tmp_path):
    checkpoint = load_checkpoint(parent("dinov2 with registers", "Model", tmp_path / "before"))
    network = checkpoint.build()
    with torch.no_grad():
        network.position_TD[1] = 0.25
    with pytest.raises(ValueError, match=r"position_TD must be 0 where .*dinov2_with_reg.* 0.25"):
        written(checkpoint, network, checkpoint.architecture, tmp_path / "after")
    assert not list((tmp_path / "after").iterdir())


def test_positions_that_a_shorter_network_lacks_are_the_parents(tmp_path):
    before = parent("roberta", "Model", tmp_path / "before")
    checkpoint = load_checkpoint(before).with_length(9)
    after = written(checkpoint, checkpoint.build(), checkpoint.architecture, tmp_path / "after")
    theirs, ours = stored(before), stored(after)
    assert all(torch.equal(value, ours[key]) for key, value in theirs.items())


@pytest.mark.parametrize(
    ("name", "head", "sizes", "parts"),
    [
        ("bert", "Model", {"n_heads": 3}, ("layers[0].attention", "3 heads of size 6", "24 / 3")),
        ("gpt2", "ForCausalLM", {"n_heads": 2, "n_kv_heads": 2}, ("GPT2", "n_head", "24 / 2")),
        ("distilbert", "Model", {"n_heads": 1, "n_kv_heads": 1}, ("n_heads", "DistilBert")),
        ("vit", "Model", {"n_kv_heads": 2}, ("layers[0].attention.n_kv_heads is 2", "n_heads, 4")),
        ("dinov2", "Model", {"d_ff": 30}, ("layers[0].ffn.d_ff is 30", "whole mlp_ratio", "24")),
        ("dinov2, swiglu", "Model", {"d_ff": 24}, ("layers[0].ffn.d_ff is 24", "mlp_ratio")),
    ],
)
def test_what_no_stock_class_holds_is_refused_before_anything_is_written(
    name, head, sizes, parts, tmp_path
):
    if name == "bert":
        sizes = sizes | {"n_kv_heads": 3}
    checkpoint = load_checkpoint(parent(name, head, tmp_path / "before"))
    architecture = cut(checkpoint, **sizes)
    (reason,) = refusals(checkpoint, architecture)
    assert all(part in reason for part in parts), reason
    with pytest.raises(ValueError) as caught:
        written(checkpoint, child(checkpoint, architecture), architecture, tmp_path / "after")
    assert str(caught.value) == reason
    assert not list((tmp_path / "after").iterdir())


def drawn(checkpoint, rng):
    """A random architecture of the checkpoint's style, uniform in half of the draws."""
    of, sizes = checkpoint.architecture, (8, 16, 17, 24, 40, 48, 72, 96)

    def layer():
        kv_heads = rng.choice((1, 2, 3, 4))
        first = of.layers[0].attention
        d_head = rng.choice((first.d_head, first.d_head, 4, 12))
        heads = kv_heads * rng.choice((1, 1, 2))
        attention = replace(first, n_heads=heads, n_kv_heads=kv_heads, d_head=d_head)
        return LayerSpec(attention, replace(of.layers[0].ffn, d_ff=rng.choice(sizes)))

    depth, first = rng.choice((1, 2, 3)), layer()
    layers = [first if rng.random() < 0.7 else layer() for _ in range(depth)]
    return Architecture(of.d_model, tuple(layers), of.patch_size, style=of.style)


@pytest.mark.parametrize(
    "name",
    ["llama", "mistral", "qwen2, tied", "qwen3", "gpt2", "bert", "roberta", "distilbert", "vit"]
    + ["deit", "dinov2", "dinov2, swiglu", "dinov2 with registers"],
)
def test_refused_is_exactly_what_a_configuration_cannot_say(name, tmp_path):
    """Of 1,000 architectures, those allowed are read from what would be written, no others."""
    checkpoint = load_checkpoint(parent(name, "Model", tmp_path))
    family = family_named(checkpoint.family)
    path = tmp_path / "config.json"
    before = json.loads(path.read_text())
    rng, n_allowed = random.Random(0), 0
    for _ in range(1000):
        architecture = drawn(checkpoint, rng)
        values = changed_values(checkpoint, architecture, before)
        try:
            read = family.read(Config(values, path), family.heads["Model"]).architecture
        except ValueError:
            read = None
        is_allowed = refusals(checkpoint, architecture) == ()
        assert is_allowed == (read == architecture), (architecture.describe(), values)
        n_allowed += is_allowed
    assert 0 < n_allowed < 1000
