import copy
import gc
import shutil
import time
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.architecture import (
    PRECISIONS,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.architecture.simulated import describe_on, simulated_choices
from search_spaces.compression import apply, quantize, sparsity
from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
from search_spaces.compression.quantize import weight_precision
from search_spaces.compression.sparsity import Masks, mask_2_4
from search_spaces.compression.store import load_compressed, save_compressed
from search_spaces.cost.counting import count
from search_spaces.cost.kernels import least_rows
from search_spaces.models.build import build
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 16)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="int8 compiles C++")


def make(attention="fp32", ffn="fp32", sparsity="dense", rank=None, d_model=32):
    layer = LayerSpec(
        AttentionSpec(4, 2, d_model // 4, rank, Compression(attention, sparsity)),
        FfnSpec(2 * d_model, rank, Compression(ffn, sparsity)),
    )
    return Architecture(d_model, (layer, layer), patch_size=2)


def inputs():
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def linears(module):
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


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


def test_2_4_keeps_the_two_largest_of_each_four():
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    mask = mask_2_4(weight)
    assert torch.all(mask.reshape(6, 8, 4).sum(-1) == 2)
    groups, kept = weight.abs().reshape(6, 8, 4), mask.reshape(6, 8, 4)
    smallest_kept = groups.masked_fill(~kept, np.inf).amin(-1)
    largest_gone = groups.masked_fill(kept, -1).amax(-1)
    assert torch.all(smallest_kept >= largest_gone)
    with pytest.raises(ValueError, match="divisible by 4"):
        mask_2_4(torch.zeros(2, 6))


@pytest.mark.parametrize(
    ("sparsity", "share"), [("2:4", 0.5), ("unstructured-50", 0.5), ("unstructured-90", 0.9)]
)
@pytest.mark.parametrize("precision", ["fp32", "int8", "int8wo"])
def test_a_mask_covers_every_projection_and_outlives_quantising(sparsity, share, precision):
    architecture = make(precision, precision, sparsity=sparsity)
    compressed = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    found = linears(compressed.layers)
    assert len(found) == 12
    for linear in found:
        weight = linear.weight if precision == "fp32" else linear.weight.dequantize()
        zeros = float((weight == 0).float().mean())
        # Rounding to 8 bits adds some zeros to those of the mask and never takes one.
        assert zeros >= share - 1e-3 and (precision != "fp32" or zeros <= share + 1e-3)


def test_masks_keep_the_largest_weights_of_a_matrix():
    architecture = make(sparsity="unstructured-90")
    model = build(architecture, DIGITS, generator_seed=0)
    before = model.layers[0].ffn.up.weight.detach().clone()
    Masks.of(model, architecture)
    after = model.layers[0].ffn.up.weight
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()


def test_a_mask_needs_a_shape_and_a_precision_that_take_it():
    layer = LayerSpec(AttentionSpec(2, 1, 9, None, Compression("fp32", "2:4")), FfnSpec(16))
    odd = Architecture(18, (layer,), 2)
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.q.*divisible by 4"):
        compress(build(odd, DIGITS), odd)
    with pytest.raises(ValueError, match="sparsity must be dense with precision int4wo"):
        Compression("int4wo", "2:4")


@pytest.mark.parametrize("sparsity", ["2:4", "unstructured-90"])
def test_masks_hold_while_a_network_recovers(sparsity):
    dense, sparse = Compression(), Compression("bf16", sparsity)
    layer = LayerSpec(AttentionSpec(4, 2, 8, 4, sparse), FfnSpec(64, None, dense))
    architecture = Architecture(32, (layer,), 2)
    model = build(architecture, DIGITS, generator_seed=0)
    masks = Masks.of(model, architecture)
    assert len(masks.weights) == 8 and model.layers[0].ffn.up.weight.ne(0).all()
    zeros = [weight == 0 for weight in masks.weights]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    targets = torch.arange(16) % 10
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(inputs()), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # The optimiser does move what was zero: without this line the mask would be lost.
        moved = [bool((w[z] != 0).any()) for w, z in zip(masks.weights, zeros, strict=True)]
        masks.apply_()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2 and any(moved)
    assert all(torch.equal(w == 0, z) for w, z in zip(masks.weights, zeros, strict=True))
    # Compressing finds the very same mask.
    for layer_, kept in zip(
        linears(compress(model, architecture).layers), zeros[:8], strict=False
    ):
        assert torch.equal(layer_.weight == 0, kept)


def test_what_has_no_kernel_here_says_so():
    architecture = make("bf16", "bf16", sparsity="2:4")
    assert simulated_choices(architecture, "cpu") == ("2:4",)
    assert simulated_choices(architecture, "cuda:0") == ()
    assert describe_on(architecture, "cpu").endswith("bf16 2:4 (2:4 simulated)")
    assert describe_on(architecture, "cuda:0") == architecture.describe()
    assert simulated_choices(make("fp32", "bf16", sparsity="2:4"), "cuda:0") == ("2:4",)
    masked = make("bf16", "bf16", sparsity="unstructured-90")
    for device in ("cpu", "cuda:0"):
        assert describe_on(masked, device).endswith("(unstructured-90 simulated)")
    assert describe_on(make(), "cpu") == make().describe()


def test_a_mask_without_a_kernel_is_never_credited():
    dense, masked = (count(make(sparsity=s), DIGITS) for s in ("dense", "unstructured-90"))
    assert (dense.macs, dense.weight_bytes) == (masked.macs, masked.weight_bytes)


@needs_compiler
def test_compiled_int8_computes_what_eager_int8_computes():
    architecture = make("int8", "int8", d_model=16)
    model = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    prepared = prepare_for_inference(model, architecture, inputs())
    assert prepared.mode == "compile"
    eager = run_eagerly(model).call(inputs())
    assert (prepared.call(inputs()) - eager).abs().max() < 0.02 * eager.abs().max()


def test_layers_alike_are_compiled_once_and_many_kinds_are_taken(monkeypatch):
    # What is traced counts here, not the C++ that would come of it.
    monkeypatch.setattr(apply, "inductor", lambda _: "eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # More kinds than the eight that torch compiles by default.
    widths = [16 * k for k in range(1, 11)]
    for width in [*widths, widths[0]]:
        first, second = (
            LayerSpec(
                AttentionSpec(2, 2, 8, None, Compression("fp32")),
                FfnSpec(width, None, Compression(precision)),
            )
            for precision in ("int8", "fp32")
        )
        architecture = Architecture(16, (first, second, first), patch_size=2)
        model = compress(build(architecture, DIGITS, generator_seed=0), architecture)
        eager = run_eagerly(model).call(inputs())
        with apply.compiled_layers(model, architecture) as n, torch.no_grad():
            assert n == 2
            out = model(inputs())
        assert (out - eager).abs().max() < 0.02 * eager.abs().max()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(widths)
    assert run_eagerly(model).call(inputs()).equal(eager)
    torch._dynamo.reset()


class Other(nn.Module):
    """Of another family: none of its layers is ours."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.inner(inputs).relu()


@pytest.mark.parametrize(("precision", "n_compiled"), [("int8", 1), ("fp32", 0)])
def test_a_network_whose_layers_are_not_ours_is_compiled_whole(monkeypatch, precision, n_compiled):
    monkeypatch.setattr(apply, "inductor", lambda _: "eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    other = Other()
    architecture = make(precision, "fp32")
    with apply.compiled_layers(other, architecture) as n, torch.no_grad():
        other(torch.ones(1, 4))
    assert n == n_compiled
    assert torch._dynamo.utils.counters["stats"].get("unique_graphs", 0) == n_compiled


class Graph:
    """Stands for a captured graph: counts how often it is replayed."""

    n_replays = 0

    def replay(self):
        self.n_replays += 1


@pytest.fixture
def graphs(monkeypatch):
    class Stream:
        def wait_stream(self, other):
            pass

        def synchronize(self):
            pass

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", nullcontext)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)


def test_what_a_graph_reads_lives_as_long_as_the_graph(graphs):
    model = nn.Linear(2, 2)
    weight = weakref.ref(model.weight)
    call, _ = apply._graphed(model, torch.ones(1, 2))
    del model
    gc.collect()
    assert weight() is not None
    replay = apply.PreparedModel(call, "cuda-graph").repeat(torch.ones(1, 2))
    del call
    gc.collect()
    assert weight() is not None
    del replay
    gc.collect()
    assert weight() is None


def test_a_batch_is_repeated_without_copies_of_inputs_and_outputs(graphs, monkeypatch):
    captured, _ = apply._graphed(nn.Linear(2, 2), torch.zeros(1, 2))
    prepared = apply.PreparedModel(captured, "cuda-graph")
    replay = prepared.repeat(torch.ones(1, 2))
    assert captured.static_input.tolist() == [[1.0, 1.0]]
    n_replays = captured.graph.n_replays
    for name in ("copy_", "clone"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("the harness copies"))
    for _ in range(3):
        replay()
    assert captured.graph.n_replays == n_replays + 3


def test_repeating_an_eager_network_runs_it_on_its_inputs():
    seen = []
    repeated = run_eagerly(nn.Sequential(nn.Identity())).repeat(torch.ones(1, 2))
    assert torch.equal(repeated(), torch.ones(1, 2))
    apply.PreparedModel(seen.append, "eager").repeat("inputs")()
    assert seen == ["inputs"]


def test_seconds_of_compiling_are_those_of_the_first_pass(graphs):
    class Slow(nn.Module):
        n_calls = 0

        def forward(self, inputs):
            self.n_calls += 1
            if self.n_calls == 1:
                time.sleep(0.2)
            return inputs

    assert apply._graphed(Slow(), torch.ones(1, 2))[1] >= 0.15


class SparseProducts:
    """Stands for cuSPARSELt: packed weights are the dense ones, each shape has its algorithm."""

    def __init__(self, monkeypatch):
        self.ran, self.n_searches = [], 0
        monkeypatch.setattr(torch, "_cslt_sparse_mm", self.product)
        monkeypatch.setattr(torch, "_cslt_sparse_mm_search", self.search)

    def product(self, packed, dense, *, bias=None, transpose_result=False, alg_id=0):
        self.ran.append((tuple(packed.shape), alg_id))
        out = packed @ dense + (0 if bias is None else bias[:, None])
        return (out.t() if transpose_result else out).contiguous()

    def search(self, packed, dense, *, bias=None, transpose_result=False):
        self.n_searches += 1
        assert bias is not None
        return packed.shape[0] + dense.shape[1]

    @staticmethod
    def sparse(linear):
        weight = linear.weight.detach()
        packed = torch.sparse.SparseSemiStructuredTensorCUSPARSELT(
            weight.shape, weight, None, None, None, None
        )
        linear.weight = nn.Parameter(packed, requires_grad=False)
        return linear


def test_each_2_4_product_runs_the_algorithm_that_is_fastest_for_its_shape(monkeypatch):
    products = SparseProducts(monkeypatch)
    dense = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 64), nn.Linear(64, 32))
    dense.to(torch.bfloat16)
    rows = torch.randn(3, 8, 64).to(torch.bfloat16)
    expected = dense(rows)
    model = copy.deepcopy(dense)
    for linear in model[:2]:
        products.sparse(linear)
    sparsity.search_sparse_algorithms(model, lambda: model(rows))
    assert products.n_searches == 2
    assert [alg_id for _, alg_id in products.ran] == [0, 0]
    out = run_eagerly(model).call(rows)
    # 24 rows each, and as many outputs as the layer has.
    assert products.ran[2:] == [((128, 64), 152), ((64, 128), 88)]
    assert products.n_searches == 2
    torch.testing.assert_close(out, expected, rtol=0.02, atol=0.02)
    sparsity.search_sparse_algorithms(dense, lambda: pytest.fail("has nothing to search"))


def test_without_a_compiler_plain_variants_run_op_by_op(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    architecture = make("bf16", "fp32")
    model = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    assert prepare_for_inference(model, architecture, inputs()).mode == "eager"
