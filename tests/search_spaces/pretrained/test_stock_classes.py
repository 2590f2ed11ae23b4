"""Networks without a parent: which stock class computes each, and folders that it loads."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from loadable_fakes import HELD, OBLONG, loadable, mixed
from pages import DOCS
from safetensors.torch import load_file
from style_fakes import ANSWER, EVERY_STYLE, IMAGE, LM, MLM, SEGMENT, TEXT, network

from nas.exporting.formats import stock, stock_worker
from search_spaces.architecture import (
    STYLES,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.writing.new import write_new
from search_spaces.pretrained.writing.stock import (
    in_use,
    loadable_blocks,
    stock_class,
    stock_refusals,
)
from search_spaces.space.loadable import UNGROUPED
from search_spaces.space.sampling import sample

CASES = [(workload, blocks) for workload, names in HELD.items() for blocks in names]
IDS = [f"{blocks}-{workload.kind}" for workload, blocks in CASES]


def plain(layers):
    """Layers without a precision, which a configuration has once."""
    return tuple(
        LayerSpec(
            replace(layer.attention, compression=Compression()),
            replace(layer.ffn, compression=Compression()),
        )
        for layer in layers
    )


def check_describes(read, of, workload):
    """What the family's reader describes is ``of``."""
    assert read.layers == plain(of.layers)
    assert (read.d_model, read.patch_size) == (of.d_model, of.patch_size)
    assert in_use(read.style, workload) == in_use(of.style, workload)


@pytest.mark.parametrize("workload", HELD, ids=lambda workload: workload.kind)
def test_blocks_that_a_class_computes(workload):
    assert loadable_blocks(workload) == HELD[workload]


@pytest.mark.parametrize(("workload", "blocks"), CASES, ids=IDS)
def test_a_thousand_members_are_read_as_they_were_written(workload, blocks):
    space, rng = loadable(workload, blocks), np.random.default_rng(0)
    drawn = [sample(space, rng) for _ in range(1000)]
    assert len({of.hash for of in drawn}) > 50
    for of in drawn:
        assert stock_refusals(of, workload) == ()
        stock_of = stock_class(of.style, workload)
        read = stock_of.read(stock_of.config(of, workload))
        check_describes(read.architecture, of, workload)
        assert read.input_shape == workload.input_shape
        assert read.vocab_size == workload.vocab_size


@pytest.mark.parametrize(("workload", "blocks"), CASES, ids=IDS)
def test_transformers_loads_a_sample_of_them(workload, blocks, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(stock, "run", stock_worker.do)
    space, rng = loadable(workload, blocks), np.random.default_rng(1)
    for index in range(4):
        of = sample(space, rng)
        made, folder = network(of, workload, seed=index), tmp_path / str(index)
        folder.mkdir()
        labels = [f"class {i}" for i in range(workload.n_classes)] if workload.is_pooled else ()
        assert write_new(made, of, workload, folder, labels=labels) == (
            "config.json",
            "model.safetensors",
        )
        done = stock.verify_written(folder, made, of)
        assert done.output_difference < 1e-5 and done.missing == ()
        (name,) = json.loads((folder / "config.json").read_text())["architectures"]
        assert done.stock_class == name
        checkpoint = load_checkpoint(folder)
        check_describes(checkpoint.architecture, of, workload)
        assert checkpoint.unread_keys == () and checkpoint.labels == tuple(labels)
        assert checkpoint.workload == replace(
            workload, name=checkpoint.workload.name, batch_size=1
        )


@pytest.mark.parametrize(
    ("name", "workload"),
    [("linear", LM), ("llama3", LM), ("masked", MLM), ("past", TEXT)],
)
def test_styles_without_a_name_are_written_too(name, workload, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(stock, "run", stock_worker.do)
    layer = LayerSpec(AttentionSpec(4, 4, 8), FfnSpec(40))
    of = Architecture(32, (layer, layer), style=EVERY_STYLE[name])
    assert stock_refusals(of, workload) == ()
    made = network(of, workload)
    write_new(made, of, workload, tmp_path)
    assert stock.verify_written(tmp_path, made, of).output_difference < 1e-5


def test_weights_of_bf16_are_stored_so(tmp_path):
    half = Compression("bf16")
    layer = LayerSpec(AttentionSpec(2, 1, 8, None, half), FfnSpec(16, None, half))
    of = Architecture(16, (layer,), style=STYLES["llama"])
    write_new(network(of, LM), of, LM, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_classes_without_key_value_heads_are_those_of_the_families():
    for workload, names in HELD.items():
        for name in names:
            family = stock_class(STYLES[name], workload).family
            assert (family.sizes.kv_heads is None) == (name in UNGROUPED)


LAYER = LayerSpec(AttentionSpec(4, 2, 8), FfnSpec(40))


@pytest.mark.parametrize(
    ("blocks", "second", "reason"),
    [
        ("llama", replace(LAYER, ffn=FfnSpec(24)), "layers[1].ffn.d_ff is 24, that of layers[0]"),
        ("llama", replace(LAYER, ffn=FfnSpec(40, 4)), "layers.1.ffn.rank is 4"),
        (
            "qwen3",
            replace(LAYER, ffn=FfnSpec(40, None, Compression("int4wo"))),
            "layers.1.ffn.precision is int4wo",
        ),
        (
            "qwen3",
            replace(LAYER, ffn=FfnSpec(40, None, Compression("bf16"))),
            "layers.1.ffn.precision is bf16, and stock classes compute in one type, here fp32",
        ),
        (
            "llama",
            replace(LAYER, ffn=FfnSpec(40, None, Compression("fp32", "2:4"))),
            "layers.1.ffn.sparsity is 2:4",
        ),
        ("gpt2", LAYER, "layers[0].attention.n_kv_heads is 2, and GPT2 classes have as many"),
        ("default", LAYER, "blocks default are computed by no class of transformers for language"),
    ],
)
def test_a_refusal_names_the_layer_and_the_field(blocks, second, reason, tmp_path):
    of = Architecture(32, (LAYER, second), style=STYLES[blocks])
    assert stock_refusals(of, LM)[0].startswith(reason)
    with pytest.raises(ValueError, match="layers|blocks"):
        write_new(network(of, LM), of, LM, tmp_path)
    assert not list(tmp_path.iterdir())


def test_tasks_and_inputs_that_no_class_has():
    layer = LayerSpec(AttentionSpec(4, 4, 8), FfnSpec(40))
    vit = Architecture(32, (layer,), 2, 4, style=STYLES["vit"])
    assert stock_refusals(vit, IMAGE)[0].startswith("resolution is 4, and stock classes read")
    assert stock_refusals(replace(vit, resolution=None), IMAGE) == ()
    assert stock_refusals(replace(vit, resolution=None), SEGMENT)[0].endswith("are: none)")
    # A head over other tokens than the embedding's is none of a causal language model.
    assert stock_class(STYLES["llama"], replace(LM, n_classes=40)) is None


def test_a_mixed_space_has_members_of_both_kinds():
    rng = np.random.default_rng(0)
    for workload in (LM, TEXT, ANSWER, OBLONG):
        drawn = [stock_refusals(sample(mixed(workload), rng), workload) for _ in range(50)]
        assert any(drawn)


def test_the_classes_of_the_page_are_all_there_are():
    page = (DOCS / "export.md").read_text()
    rows = page.partition("| task | `blocks`: class |\n|---|---|\n")[2].partition("\n\n")[0]
    stated = {
        (kind.strip().replace(" ", "_"), *pair)
        for kind, pairs in (row.strip("|").split(" | ") for row in rows.splitlines())
        for pair in re.findall(r"`(\w+)`: `(\w+)`", pairs)
    }
    layer = LayerSpec(AttentionSpec(1, 1, 16), FfnSpec(16))
    found = set()
    for workload, blocks in CASES:
        of = Architecture(16, (layer,), 2 if workload.is_image else 1, style=STYLES[blocks])
        (name,) = stock_class(of.style, workload).config(of, workload)["architectures"]
        found.add((workload.kind, blocks, name))
    assert stated == found
