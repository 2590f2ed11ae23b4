"""Quantised networks of a checkpoint, as ``transformers`` reads them."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from encoder_fakes import encoder
from pretrained_fakes import causal, saved
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nas.exporting.checkpoint import export_checkpoint
from nas.exporting.formats import stock, stock_worker
from nas.exporting.formats.base import ExportError
from search_spaces.architecture import Compression
from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.writing.loadable import refusals

pytest.importorskip("transformers")


def in_precisions(architecture, attention, ffn):
    """``architecture`` with all blocks of a kind in one precision."""
    layers = tuple(
        replace(
            layer,
            attention=replace(layer.attention, compression=Compression(attention)),
            ffn=replace(layer.ffn, compression=Compression(ffn)),
        )
        for layer in architecture.layers
    )
    return replace(architecture, layers=layers)


CASES = {
    "llama int8": (lambda: causal("llama"), "int8", "int8"),
    "llama int8wo": (lambda: causal("llama"), "int8wo", "int8wo"),
    "qwen2 tied, half": (lambda: causal("qwen2, tied"), "fp32", "int8"),
    "bert": (lambda: encoder("bert", "ForSequenceClassification"), "int8", "int8"),
    "bert masked": (lambda: encoder("bert", "ForMaskedLM"), "int8wo", "bf16"),
    "vit": (lambda: encoder("vit", "ForImageClassification"), "int8", "fp32"),
    "dinov2": (lambda: encoder("dinov2", "Model"), "int8wo", "int8wo"),
}


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(stock, "run", stock_worker.do)
    monkeypatch.setattr("nas.exporting.formats.stock_quantised.run", stock_worker.do)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("case", CASES)
def test_a_stock_class_computes_what_ours_computes(case, tmp_path):
    make, attention, ffn = CASES[case]
    checkpoint = load_checkpoint(saved(make(), tmp_path / "parent"))
    architecture = in_precisions(checkpoint.architecture, attention, ffn)
    to = tmp_path / "to"
    card = export_checkpoint(checkpoint, architecture, to).card
    found = card["load_verification"]
    assert 0 < found["output_difference"] <= found["output_tolerance"]
    written = json.loads((to / "config.json").read_text())
    before = json.loads((tmp_path / "parent" / "config.json").read_text())
    quantisation = written.pop("quantization_config")
    stored = "bfloat16" if "int8wo" in (attention, ffn) else "float32"
    assert written == before | {"dtype": stored}
    assert quantisation["quant_method"] == "torchao"
    with safe_open(to / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["parent"] == "parent"
    blocks = [p for p in (attention, ffn) if p.startswith("int8")]
    n_layers, style = checkpoint.architecture.depth, checkpoint.architecture.style
    names = load_file(to / "model.safetensors")
    n_quantised = sum(name.endswith("_weight_qdata") for name in names)
    of_ffn = (3 if style.is_gated else 2) * ffn.startswith("int8")
    assert n_quantised == n_layers * (4 * attention.startswith("int8") + of_ffn)
    text = f"{len(blocks) * n_layers} of {2 * n_layers} blocks quantised to {blocks[0]}"
    assert card["changed"][0] == text
    assert not list(to.glob("nas-quantised-*"))


@pytest.mark.thorough
def test_a_fresh_process_quantises_and_loads(tmp_path):
    checkpoint = load_checkpoint(saved(causal("llama"), tmp_path / "parent"))
    architecture = in_precisions(checkpoint.architecture, "int8", "int8")
    done = export_checkpoint(checkpoint, architecture, tmp_path / "to")
    assert done.card["load_verification"]["stock_class"] == "LlamaForCausalLM"
    readme = (tmp_path / "to" / "README.md").read_text()
    assert "torchao" in readme and 'dtype="auto"' in readme


@pytest.mark.usefixtures("in_this_process")
def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    checkpoint = load_checkpoint(saved(causal("llama"), tmp_path / "parent"))
    other = saved(causal("llama", intermediate_size=60), tmp_path / "other")

    def of_another(job):
        return stock_worker.do(job | {"folder": str(other)} if "to" not in job else job)

    monkeypatch.setattr(stock, "run", of_another)
    architecture = in_precisions(checkpoint.architecture, "int8", "int8")
    with pytest.raises(ValueError, match="must equal JouleNAS's quantised weight"):
        export_checkpoint(checkpoint, architecture, tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("parents", ["float16", "bfloat16"])
def test_other_weights_have_the_type_that_was_verified(parents, tmp_path):
    import transformers

    network = causal("llama").to(getattr(torch, parents))
    checkpoint = load_checkpoint(saved(network, tmp_path / "parent"))
    to = tmp_path / "to"
    export_checkpoint(checkpoint, in_precisions(checkpoint.architecture, "int8", "fp32"), to)
    assert json.loads((to / "config.json").read_text())["dtype"] == "float32"
    # As the card says.
    read = transformers.AutoModelForCausalLM.from_pretrained(to, dtype="auto")
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}


@pytest.mark.usefixtures("in_this_process")
def test_weights_that_are_not_quantised_are_compared_to_the_bit(tmp_path, monkeypatch):
    checkpoint = load_checkpoint(saved(causal("llama"), tmp_path / "parent"))
    name = "model.layers.1.input_layernorm.weight"

    def with_another_norm(job):
        found = stock_worker.do(job)
        path = Path(job["to"]) / "model.safetensors"
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = {n: t.clone() for n, t in load_file(path).items()}
        # Far less than the tolerance of outputs.
        tensors[name] *= 1.0001
        save_file(tensors, path, metadata)
        return found

    monkeypatch.setattr("nas.exporting.formats.stock_quantised.run", with_another_norm)
    architecture = in_precisions(checkpoint.architecture, "int8", "fp32")
    with pytest.raises(ExportError, match=f"^{name}, which is not quantised, differs"):
        export_checkpoint(checkpoint, architecture, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_layer_that_is_quantised_by_mistake_is_named(tmp_path, monkeypatch):
    checkpoint = load_checkpoint(saved(causal("llama"), tmp_path / "parent"))
    name = "model.layers.0.mlp.up_proj.weight"

    def one_more(job):
        found = stock_worker.do(job | {"quantised": [*job["quantised"], name]})
        del found["names"][name]
        return found

    monkeypatch.setattr("nas.exporting.formats.stock_quantised.run", one_more)
    architecture = in_precisions(checkpoint.architecture, "int8", "fp32")
    with pytest.raises(ExportError, match=f"^{name}, which is not quantised, differs"):
        export_checkpoint(checkpoint, architecture, tmp_path / "to")


@pytest.mark.parametrize(("precision", "file"), [("fp32", "batches"), ("int8", "model")])
def test_a_disk_that_fills_late_is_one_line(precision, file, tmp_path, monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def and_full(call):
        def then(*job):
            found = call(*job)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            return found

        return then

    if precision == "fp32":
        monkeypatch.setattr(stock, "reload", and_full(stock.reload))
    else:
        monkeypatch.setattr("nas.exporting.formats.stock_quantised.run", and_full(stock_worker.do))
    checkpoint = load_checkpoint(saved(causal("llama"), tmp_path / "parent"))
    architecture = in_precisions(checkpoint.architecture, precision, "fp32")
    try:
        with pytest.raises(OSError, match=rf"^{file}.safetensors could not be written: "):
            export_checkpoint(checkpoint, architecture, tmp_path / "to")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["parent"]


def with_equal_projections():
    """A network whose first two layers have output projections of zeros."""
    network = causal("llama")
    with torch.no_grad():
        for layer in network.model.layers[:2]:
            layer.self_attn.o_proj.weight.zero_()
    return network


@pytest.mark.usefixtures("in_this_process")
def test_equal_weights_are_quantised_if_all_of_them_are(tmp_path):
    checkpoint = load_checkpoint(saved(with_equal_projections(), tmp_path / "parent"))
    architecture = in_precisions(checkpoint.architecture, "int8", "fp32")
    done = export_checkpoint(checkpoint, architecture, tmp_path / "to")
    assert done.card["load_verification"]["n_exact"] == 4 * checkpoint.architecture.depth
    _, *rest = architecture.layers
    plain = in_precisions(checkpoint.architecture, "fp32", "fp32").layers[0]
    some = replace(architecture, layers=(plain, *rest))
    with pytest.raises(
        ValueError, match=r"layers\.1\.self_attn\.o_proj\.weight must differ from"
    ) as error:
        export_checkpoint(checkpoint, some, tmp_path / "other")
    line = str(error.value)
    assert "layers.0.self_attn.o_proj.weight" in line and "\n" not in line
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("make", "attention", "ffn", "part"),
    [
        (lambda: causal("gpt2"), "int8", "int8", "GPT2 classes have projections that torchao"),
        (lambda: causal("llama"), "int4wo", "int4wo", "cannot be stored in safetensors"),
        (lambda: causal("llama"), "fp8", "fp8", "it needs a GPU to be verified"),
        (lambda: causal("llama"), "bf16", "int8", "one type, here fp32 beside int8"),
        (lambda: causal("llama"), "int8", "int8wo", "one type, here fp32 beside int8"),
        (lambda: causal("llama"), "fp32", "int8wo", "one type, here bf16 beside int8wo"),
    ],
)
def test_what_is_not_stored_is_refused_by_block(make, attention, ffn, part, tmp_path):
    checkpoint = load_checkpoint(saved(make(), tmp_path / "parent"))
    reasons = refusals(checkpoint, in_precisions(checkpoint.architecture, attention, ffn))
    assert reasons and all(part in reason for reason in reasons)
    assert reasons[0].startswith("layers.0.")
