"""Kinds of layer to compile, against what torch really compiles."""

from dataclasses import replace

import pytest
import torch

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.architecture.layer_kinds import compressed_layer_kinds
from search_spaces.compression import apply
from search_spaces.compression.apply import compiled_layers, compress
from search_spaces.models.build import build
from search_spaces.models.decoding import as_priced
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 4)
TEXT = Workload("text", "language_modelling", (12,), 50, 4, 50)


def layer(attention="fp32", ffn="fp32", *, d_ff=64, heads=2, rank=None, sparsity="dense"):
    return LayerSpec(
        AttentionSpec(heads, heads, 32 // heads, rank, Compression(attention)),
        FfnSpec(d_ff, None, Compression(ffn, sparsity)),
    )


PLAIN = layer("bf16", "fp32")
INT8 = layer("int8", "int8")
NETWORKS = {
    "plain": ([PLAIN, layer("bf16", "bf16", sparsity="2:4")], 0),
    "equal": ([INT8] * 4, 1),
    "beside plain ones": ([PLAIN, INT8, PLAIN, INT8], 1),
    "another width": ([INT8, layer("int8", "int8", d_ff=96), INT8], 2),
    "another block": ([INT8, layer("int8", "fp32"), layer("fp32", "int8")], 3),
    "other heads": ([INT8, layer("int8", "int8", heads=4)], 2),
    "a rank": ([INT8, layer("int8", "int8", rank=8)], 2),
    # No kernel skips these zeros.
    "simulated": ([INT8, layer("int8", "int8", sparsity="unstructured-50")], 1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_kinds_are_the_graphs_that_torch_compiles(name, monkeypatch):
    layers, expected = NETWORKS[name]
    architecture = Architecture(32, tuple(layers), patch_size=2)
    assert compressed_layer_kinds(architecture) == expected
    model = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    assert n_compiled(model, architecture, torch.randn(4, 1, 8, 8), monkeypatch) == expected


@pytest.mark.parametrize("phase", ["prefill", "generate"])
def test_a_phase_of_a_decoder_compiles_as_many(phase, monkeypatch):
    layers = (INT8, layer("int8", "fp32"), INT8, PLAIN)
    architecture, workload = Architecture(32, layers), replace(TEXT, phase=phase)
    model = compress(build(architecture, workload, generator_seed=0), architecture)
    network, inputs = as_priced(model, workload, torch.randint(50, (4, 12)))
    assert compressed_layer_kinds(architecture) == 2
    assert n_compiled(network, architecture, inputs, monkeypatch) == 2


def n_compiled(model, architecture, inputs, monkeypatch):
    n_graphs = 0

    def backend(graph, example_inputs):
        nonlocal n_graphs
        n_graphs += 1
        return graph.forward

    monkeypatch.setattr(apply, "inductor", lambda _: backend)
    torch._dynamo.reset()
    with compiled_layers(model, architecture), torch.no_grad():
        model(inputs)
    return n_graphs
