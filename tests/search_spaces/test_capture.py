"""Compiling that lets go of the device, and graphs that may not be empty."""

import warnings
from contextlib import contextmanager

import pytest
import torch

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.compression.apply import compiled_layers, run_eagerly
from search_spaces.compression.capture import refuse_empty_graph
from search_spaces.models.build import build
from search_spaces.workload import Workload

WORKLOAD = Workload("digits", "image_classification", (1, 8, 8), 10, 4)


def test_the_device_is_let_go_of_while_the_compiler_works_and_never_while_layers_run():
    layers = tuple(LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(d_ff)) for d_ff in (32, 48, 32))
    architecture = Architecture(16, layers, 4)
    model = build(architecture, WORKLOAD, generator_seed=0).eval()
    inputs = torch.randn(4, 1, 8, 8)
    expected = run_eagerly(model).call(inputs)
    state, seen = ["held"], []

    @contextmanager
    def let_go():
        state[0] = "free"
        seen.append("compiled")
        try:
            yield
        finally:
            state[0] = "held"

    for layer in model.layers:
        layer.register_forward_hook(lambda *_: seen.append(state[0]))
    with compiled_layers(model, architecture, with_plain=True, while_compiling=let_go):
        found = run_eagerly(model).call(inputs)
        assert torch.allclose(found, expected, atol=1e-5)
        assert seen.count("compiled") >= 2 and "free" not in seen
        n = seen.count("compiled")
        run_eagerly(model).call(inputs)
        assert seen.count("compiled") == n


def test_an_empty_graph_is_an_error_and_other_warnings_are_none():
    with pytest.raises(RuntimeError, match="must hold the kernels"), refuse_empty_graph():
        # Torch's own words, of CUDAGraph.capture_end.
        warnings.warn(
            "The CUDA Graph is empty. This usually means that the graph was attempted to be "
            "captured on wrong device or stream.",
            stacklevel=1,
        )
    with pytest.warns(UserWarning, match="something else"), refuse_empty_graph():
        warnings.warn("something else", stacklevel=1)
