"""Precisions of blocks: which layers are quantised, what they compute, and what is refused."""

import pytest
import torch
from compression_fakes import DIGITS, inputs, linears, make, needs_compiler

from search_spaces.architecture import (
    PRECISIONS,
    Architecture,
)
from search_spaces.compression import quantize
from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
from search_spaces.compression.quantize import weight_precision
from search_spaces.compression.store import load_compressed, save_compressed
from search_spaces.cost.kernels import least_rows
from search_spaces.models.build import build
from search_spaces.workload import Workload

# How far outputs may move, as a share of the largest.
TOLERANCE = {"fp32": 0.0, "bf16": 0.05, "int8": 0.05, "int8wo": 0.05, "int4wo": 0.4}
HERE = list(TOLERANCE)


@pytest.mark.parametrize("attention", HERE)
@pytest.mark.parametrize("ffn", HERE)
@pytest.mark.parametrize("rank", [None, 4, 32])
def test_every_intended_layer_changes_and_no_other(attention, ffn, rank):
    if rank == 4 and "int4wo" in (attention, ffn):
        pytest.skip("that rank does not fit groups of 32, which has its own test")
    architecture = make(attention, ffn, rank=rank, d_model=128 if rank == 32 else 32)
    model = build(architecture, DIGITS, generator_seed=0)
    before = [p.clone() for p in model.parameters()]
    compressed = compress(model, architecture)
    for layer in compressed.layers:
        for block, precision in ((layer.attention, attention), (layer.ffn, ffn)):
            found = linears(block)
            assert len(found) == (4 if block is layer.attention else 2) * (2 if rank else 1)
            assert {weight_precision(linear) for linear in found} == {precision}
    low = {"bf16", "int8wo", "int4wo"}
    stream = torch.bfloat16 if {attention, ffn} <= low else torch.float32
    assert compressed.head.weight.dtype == compressed.position_TD.dtype == stream
    # The model that was given is as it was, and the outputs stay close.
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    out, expected = run_eagerly(compressed).call(inputs()).float(), model(inputs())
    assert out.shape == expected.shape
    allowed = max(TOLERANCE[attention], TOLERANCE[ffn])
    assert (out - expected).abs().max() <= allowed * expected.abs().max()
    if attention == ffn == "fp32":
        assert torch.equal(out, expected)
    else:
        assert not torch.equal(out, expected)


def test_attention_and_ffn_of_each_layer_have_their_own_precision():
    kinds = (("int8", "bf16"), ("fp32", "int4wo"), ("int8wo", "int8"))
    layers = tuple(make(*pair).layers[0] for pair in kinds)
    architecture = Architecture(32, layers, 2)
    compressed = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    for layer, (attention, ffn) in zip(compressed.layers, kinds, strict=True):
        assert {weight_precision(linear) for linear in linears(layer.attention)} == {attention}
        assert {weight_precision(linear) for linear in linears(layer.ffn)} == {ffn}
    assert torch.isfinite(run_eagerly(compressed).call(inputs())).all()


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (
            make(attention="int4wo", rank=4),
            r"layers\.0\.attention\.q\.reduce must have an input size divisible by 32 and an "
            r"output size by 16 for int4wo, got \(32, 4\)",
        ),
        (make(ffn="int4wo", d_model=48), r"layers\.0\.ffn\.up must have .* got \(48, 96\)"),
    ],
)
def test_a_shape_that_does_not_fit_is_an_error_that_names_the_layer(architecture, message):
    with pytest.raises(ValueError, match=message):
        compress(build(architecture, DIGITS), architecture)


def test_a_layer_that_torchao_skips_is_an_error(monkeypatch):
    # torchao only logs that a group size does not fit, and leaves the weight as it is.
    monkeypatch.setattr(quantize, "_check_shape", lambda *_: None)
    architecture = make(ffn="int4wo", d_model=48)
    with pytest.raises(
        ValueError, match=r"layers\.0\.ffn\.up must become int4wo, but became bf16"
    ):
        compress(build(architecture, DIGITS), architecture)


@pytest.mark.parametrize("precision", [p for p in HERE if p not in ("fp32", "bf16")])
def test_quantising_leaves_the_compilers_settings_as_they_were(precision):
    before = torch._inductor.config.get_config_copy()
    compress(build(make(precision, precision), DIGITS), make(precision, precision))
    assert torch._inductor.config.get_config_copy() == before


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p not in ("fp32", "bf16")])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_precision_asks_for_a_search_of_kernels(precision, device):
    # Coordinate descent takes most of a minute for each kind of layer on a GPU.
    assert quantize.torchao_config(precision, device).set_inductor_config is False


@pytest.fixture
def refuses_few_rows(monkeypatch):
    """The int8 product of CUDA, which takes no fewer than 17 rows."""
    product = torch._int_mm

    def int_mm(rows, weight, **rest):
        if rows.shape[0] <= 16:
            raise RuntimeError(f"self.size(0) needs to be greater than 16, but got {len(rows)}")
        return product(rows, weight, **rest)

    # Imported first, since it keeps the product that it finds, for compiled code.
    from torch._inductor.kernel import mm
    from torch._inductor.select_algorithm import extern_kernels

    assert mm.aten__int_mm.name == "_int_mm"
    monkeypatch.setattr(torch, "_int_mm", int_mm)
    monkeypatch.setattr(extern_kernels, "_int_mm", int_mm)


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("batch_size", [1, 8, 16, 17, 40])
def test_int8_of_few_rows_is_padded_for_gpus(refuses_few_rows, monkeypatch, batch_size, rank):
    architecture = make("int8", "int8", rank=rank)
    # A token each, as in generating.
    workload = Workload("few", "text_classification", (1,), 10, batch_size, 8)
    architecture = Architecture(32, architecture.layers)
    tokens = torch.arange(batch_size)[:, None] % 8
    model = build(architecture, workload, generator_seed=0)
    whole = tokens.repeat(40, 1)
    expected = run_eagerly(compress(model, architecture)).call(whole)[:batch_size]
    if batch_size <= 16:
        with pytest.raises(RuntimeError, match="greater than 16"):
            run_eagerly(compress(model, architecture)).call(tokens)
    monkeypatch.setattr(quantize, "least_rows", lambda p, _: least_rows(p, "cuda:0"))
    compressed = compress(model, architecture)
    # The same numbers as in a batch with rows enough.
    torch.testing.assert_close(run_eagerly(compressed).call(tokens), expected)
    assert {weight_precision(m) for m in linears(compressed.layers)} == {"int8"}


@needs_compiler
def test_padded_rows_compile_and_are_stored_like_others(refuses_few_rows, monkeypatch, tmp_path):
    monkeypatch.setattr(quantize, "least_rows", lambda p, _: least_rows(p, "cuda:0"))
    architecture = Architecture(32, make("int8", "fp32").layers[:1])
    workload = Workload("few", "text_classification", (2,), 10, 3, 8)
    compressed = compress(build(architecture, workload, generator_seed=0), architecture)
    tokens = torch.tensor([[1, 2], [3, 4], [5, 6]])
    eager = run_eagerly(compressed).call(tokens)
    compiled = prepare_for_inference(compressed, architecture, tokens).call(tokens)
    torch.testing.assert_close(compiled, eager, rtol=0.02, atol=0.02)
    save_compressed(compressed, architecture, tmp_path / "w.safetensors")
    loaded = load_compressed(architecture, workload, tmp_path / "w.safetensors")
    assert torch.equal(run_eagerly(loaded).call(tokens), eager)


def test_quantising_leaves_fp32_products_of_others_as_they_were():
    before = torch.get_float32_matmul_precision()
    compress(build(make("int8", "int8"), DIGITS), make("int8", "int8"))
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_compressing_twice_gives_the_same_outputs_to_the_bit():
    for kinds in (("bf16", "int8"), ("int8wo", "int4wo"), ("fp32", "bf16")):
        architecture = make(*kinds)
        model = build(architecture, DIGITS, generator_seed=0)
        first, second = (run_eagerly(compress(model, architecture)).call(inputs()) for _ in "ab")
        assert torch.equal(first, second)


def test_fp8_on_a_cpu_is_an_error_and_never_a_silent_skip():
    architecture = make("fp8", "fp32")
    with pytest.raises(ValueError, match=r"fp8.*SM >= 8\.9"):
        compress(build(architecture, DIGITS), architecture)
