"""What only a CUDA device can show: its kernels, and the stored form of what they read."""

import pytest
import torch
from torch import nn
from torch.sparse import SparseSemiStructuredTensorCUSPARSELT

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
from search_spaces.compression.probing import probe
from search_spaces.compression.quantize import weight_precision
from search_spaces.compression.realness import Shape
from search_spaces.compression.store import load_compressed, save_compressed
from search_spaces.cost.counting import count
from search_spaces.cost.kernels import INT8_CUDA_LEAST_ROWS
from search_spaces.models.build import build
from search_spaces.models.decoding import as_priced
from search_spaces.workload import Workload

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WORKLOAD = Workload("digits", "image_classification", (1, 8, 8), 10, 64)
SPARSE = Compression("bf16", "2:4")


def here(precision):
    capability = torch.cuda.get_device_capability()
    least = {"fp8": (8, 9), "int4wo": (8, 0)}.get(precision, (0, 0))
    if capability < least:
        pytest.skip(f"{precision} needs SM >= {least}")
    return make(Compression(precision))


def make(compression, d_model=256, rank=None):
    layer = LayerSpec(
        AttentionSpec(4, 4, d_model // 4, rank, compression),
        FfnSpec(4 * d_model, rank, compression),
    )
    return Architecture(d_model, (layer,), 2)


def trained(architecture):
    return build(architecture, WORKLOAD, generator_seed=0).to("cuda")


def inputs():
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to("cuda")


def linears(module):
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "fp8", "int8wo", "int4wo"])
@pytest.mark.parametrize("rank", [None, 64])
def test_every_layer_changes_and_outputs_stay_close(precision, rank):
    here(precision)
    architecture = make(Compression(precision), rank=rank)
    model = trained(architecture)
    compressed = compress(model, architecture)
    assert {weight_precision(m) for m in linears(compressed.layers)} == {precision}
    out, expected = run_eagerly(compressed).call(inputs()).float(), model(inputs()).detach()
    allowed = 0.4 if precision == "int4wo" else 0.1
    assert (out - expected).abs().max() <= allowed * expected.abs().max()


@pytest.mark.parametrize("precision", ["int8", "fp8", "int8wo", "int4wo"])
def test_the_prepared_network_computes_what_the_eager_one_does(precision):
    architecture = here(precision)
    compressed = compress(trained(architecture), architecture)
    prepared = prepare_for_inference(compressed, architecture, inputs())
    eager = run_eagerly(compressed).call(inputs()).float()
    assert (prepared.call(inputs()).float() - eager).abs().max() < 0.05 * eager.abs().max()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_prepared_network_answers_when_nobody_else_holds_the_model(precision):
    architecture = here(precision)
    compressed = compress(trained(architecture), architecture)
    prepared = prepare_for_inference(compressed, architecture, inputs())
    expected = prepared.call(inputs())
    del compressed
    torch.cuda.empty_cache()
    # Takes the memory that weights would have left.
    filled = [torch.full((256, 1024), 7.0, device="cuda") for _ in range(64)]
    assert torch.equal(prepared.call(inputs()), expected)
    assert len(filled) == 64


@pytest.mark.parametrize("phase_tokens", [1, 2, 8])
@pytest.mark.parametrize("rank", [None, 64])
def test_int8_takes_batches_of_few_rows(phase_tokens, rank):
    # As many rows as the product refuses, and fewer: one of them, and up to the limit of 16.
    architecture = make(Compression("int8"), rank=rank)
    architecture = Architecture(256, architecture.layers)
    workload = Workload("few", "language_modelling", (32,), 64, 2 * phase_tokens, 64)
    workload = workload.with_phase("generate")
    tokens = torch.randint(64, (2 * phase_tokens, 32), device="cuda")
    model = build(architecture, workload, generator_seed=0).to("cuda")
    compressed = compress(model, architecture)
    network, last = as_priced(compressed, workload, tokens)
    expected = run_eagerly(network).call(last).float()
    prepared = prepare_for_inference(network, architecture, last)
    assert prepared.mode == "compile-cuda-graph" and prepared.compile_s > 0
    assert (prepared.call(last).float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_the_product_refuses_as_few_rows_as_it_is_said_to():
    weight = torch.ones(64, 64, dtype=torch.int8, device="cuda").t()
    rows = torch.ones(INT8_CUDA_LEAST_ROWS, 64, dtype=torch.int8, device="cuda")
    assert torch._int_mm(rows, weight).shape == (INT8_CUDA_LEAST_ROWS, 64)
    # Where fewer are taken one day, padding may go.
    with pytest.raises(RuntimeError, match="greater than 16"):
        torch._int_mm(rows[:-1], weight)


def test_a_replayed_graph_runs_the_batch_it_was_given():
    architecture = make(Compression("bf16"))
    compressed = compress(trained(architecture), architecture)
    prepared = prepare_for_inference(compressed, architecture, torch.zeros_like(inputs()))
    expected = run_eagerly(compressed).call(inputs())
    replay = prepared.repeat(inputs())
    prepared.call.static_output.zero_()
    replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(prepared.call.static_output, expected)
    assert prepared.mode == "cuda-graph" and prepared.compile_s == 0


def test_2_4_weights_are_sparse_tensors_in_every_layer():
    from torch.sparse import SparseSemiStructuredTensor

    architecture = make(SPARSE)
    compressed = compress(trained(architecture), architecture)
    found = linears(compressed.layers)
    assert len(found) == 6
    assert all(isinstance(m.weight.data, SparseSemiStructuredTensor) for m in found)
    # The same zeros in dense products.
    dense = compress(trained(architecture).cpu(), architecture).to("cuda")
    out, expected = (run_eagerly(m).call(inputs()).float() for m in (compressed, dense))
    assert (out - expected).abs().max() < 0.05 * expected.abs().max()


def test_2_4_products_are_searched_and_compute_the_same():
    compressed = compress(trained(make(SPARSE)), make(SPARSE))
    expected = run_eagerly(compressed).call(inputs())
    weights = [m.weight for m in linears(compressed.layers)]
    if not all(isinstance(w, SparseSemiStructuredTensorCUSPARSELT) for w in weights):
        pytest.skip("needs cuSPARSELt")
    searched = []
    search = torch._cslt_sparse_mm_search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch,
            "_cslt_sparse_mm_search",
            lambda *a, **named: searched.append(search(*a, **named)) or searched[-1],
        )
        prepared = prepare_for_inference(compressed, make(SPARSE), inputs())
    assert len(searched) == 6
    assert {w.alg_id_cusparselt for w in weights} == set(searched)
    out = prepared.call(inputs())
    assert (out - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("choice", ["bf16", "int8", "fp8", "int8wo", "int4wo", "2:4"])
def test_the_compressed_network_comes_back_to_the_bit(choice, tmp_path):
    architecture = make(SPARSE) if choice == "2:4" else here(choice)
    compressed = compress(trained(architecture), architecture)
    save_compressed(compressed, architecture, tmp_path / "small.safetensors")
    loaded = load_compressed(architecture, WORKLOAD, tmp_path / "small.safetensors", device="cuda")
    first, second = (run_eagerly(m).call(inputs()) for m in (compressed, loaded))
    assert torch.equal(first, second)


def test_the_probe_names_kernels_and_offers_bf16(tmp_path):
    report = probe("cuda:0", shapes=(Shape(1024, 4096),), cache_dir=tmp_path)
    rows = {row.choice: row for row in report.rows}
    assert rows["bf16"].status == "real" and rows["bf16"].kernel
    assert rows["2:4"].status in ("real", "harmful", "absent")
    assert "driver" in report.versions


@pytest.mark.parametrize("rank", [None, 64])
def test_4_bit_weights_take_the_bytes_that_are_counted(rank):
    architecture = here("int4wo") if rank is None else make(Compression("int4wo"), rank=rank)
    compressed = compress(trained(architecture), architecture)
    stored = sum(
        m.weight.qdata.nbytes + m.weight.scale_and_zero.nbytes for m in linears(compressed.layers)
    )
    plain = sum(
        parameter.nbytes
        for name, parameter in compressed.layers.named_parameters()
        if not name.endswith("weight") or "norm" in name
    )
    blocks = count(architecture, WORKLOAD, "cuda:0").blocks
    assert sum(block.weight_bytes for block in blocks) == stored + plain


def test_fp32_products_do_not_round_to_tf32():
    architecture = here("int8")
    compress(trained(architecture), architecture)
    assert not torch.backends.cuda.matmul.allow_tf32
    a, b = torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(0)).to("cuda")
    exact = a.double() @ b.double()
    # TF32 keeps 10 bits of each factor, and would be off by a hundred times as much.
    assert (a @ b - exact).abs().max() < 1e-3
