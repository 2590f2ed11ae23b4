"""Networks prepared to run: op by op, with compiled layers, or as a CUDA graph."""

import gc
import time
import weakref
from contextlib import nullcontext

import pytest
import torch
from compression_fakes import DIGITS, inputs, make, needs_compiler
from torch import nn

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression import apply
from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
from search_spaces.models.build import build


@pytest.mark.thorough
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


@pytest.mark.thorough
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


def test_without_a_compiler_plain_variants_run_op_by_op(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    architecture = make("bf16", "fp32")
    model = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    assert prepare_for_inference(model, architecture, inputs()).mode == "eager"
