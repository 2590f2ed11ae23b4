import shutil

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression import realness
from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
from search_spaces.compression.quantize import is_quantized
from search_spaces.compression.realness import probe, real_choices
from search_spaces.compression.sparsity import mask_2_4
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


@pytest.mark.parametrize("attention", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("ffn", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("rank", [None, 4])
def test_every_intended_layer_changes_and_no_other(attention, ffn, rank):
    architecture = make(attention, ffn, rank=rank)
    model = build(architecture, DIGITS, generator_seed=0)
    before = [p.clone() for p in model.parameters()]
    compressed = compress(model, architecture)
    for layer in compressed.layers:
        for block, precision in ((layer.attention, attention), (layer.ffn, ffn)):
            found = linears(block)
            assert len(found) == (4 if block is layer.attention else 2) * (2 if rank else 1)
            for linear in found:
                assert is_quantized(linear) == (precision == "int8")
                if precision != "int8":
                    wanted = torch.bfloat16 if precision == "bf16" else torch.float32
                    assert linear.weight.dtype == wanted
    stream = torch.bfloat16 if attention == ffn == "bf16" else torch.float32
    assert compressed.head.weight.dtype == compressed.position_TD.dtype == stream
    # The model that was given is as it was, and the outputs stay close.
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    out, expected = run_eagerly(compressed).call(inputs()).float(), model(inputs())
    assert out.shape == expected.shape
    assert (out - expected).abs().max() < 0.05 * expected.abs().max() + 0.01


def test_compressing_twice_gives_the_same_outputs_to_the_bit():
    for kinds in (("bf16", "int8"), ("int8", "fp32"), ("fp32", "bf16")):
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


def test_2_4_masks_every_projection():
    architecture = make(sparsity="2:4")
    compressed = compress(build(architecture, DIGITS), architecture)
    for layer in compressed.layers:
        for linear in linears(layer):
            assert (linear.weight == 0).float().mean() == 0.5
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.q.*divisible by 4"):
        odd = make(sparsity="2:4", rank=None, d_model=20)
        odd = Architecture(
            18,
            (
                LayerSpec(
                    AttentionSpec(2, 1, 9, None, Compression("fp32", "2:4")), odd.layers[0].ffn
                ),
            ),
            2,
        )
        compress(build(odd, DIGITS), odd)


@needs_compiler
def test_compiled_int8_computes_what_eager_int8_computes():
    architecture = make("int8", "int8", d_model=16)
    model = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    prepared = prepare_for_inference(model, architecture, inputs())
    assert prepared.mode == "compile"
    eager = run_eagerly(model).call(inputs())
    assert (prepared.call(inputs()) - eager).abs().max() < 0.02 * eager.abs().max()


def test_without_a_compiler_plain_variants_run_op_by_op(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    architecture = make("bf16", "fp32")
    model = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    assert prepare_for_inference(model, architecture, inputs()).mode == "eager"


@pytest.fixture
def without_int8(monkeypatch):
    """Compiling takes seconds; what the probe decides does not depend on it."""
    original = realness._prepare

    def prepare(compression, device):
        if compression.precision == "int8":
            raise RuntimeError("no C++ compiler\nand a long story")
        return original(compression, device)

    monkeypatch.setattr(realness, "_prepare", prepare)


def test_the_probe_says_what_is_real_and_why_not(without_int8, tmp_path):
    report = probe("cpu", cache_dir=tmp_path)
    choices = {c.name: c for c in (*report.precisions, *report.sparsities)}
    assert choices["fp32"].is_real and choices["dense"].is_real
    assert not choices["fp8"].is_real and "8.9" in choices["fp8"].reason
    assert choices["int8"].reason == "no C++ compiler"
    assert not choices["2:4"].is_real and "mask" in choices["2:4"].reason
    precisions, sparsities = real_choices(report)
    assert set(precisions) <= {"fp32", "bf16"} and sparsities == ("dense",)
    assert choices["fp32"].kernel.startswith("aten::")


def test_a_slower_choice_is_not_real(without_int8, monkeypatch):
    monkeypatch.setattr(realness, "_time_ratio", lambda *_: 1.3)
    report = probe("cpu")
    bf16 = next(c for c in report.precisions if c.name == "bf16")
    assert not bf16.is_real and "1.30x" in bf16.reason


def test_the_probe_is_kept_and_a_corrupt_cache_is_probed_anew(without_int8, tmp_path, monkeypatch):
    first = probe("cpu", cache_dir=tmp_path)
    assert probe("cpu", cache_dir=tmp_path) == first
    (path,) = tmp_path.iterdir()
    path.write_text("{")
    monkeypatch.setattr(realness, "_time_ratio", lambda *_: 0.5)
    assert probe("cpu", cache_dir=tmp_path).precisions[1].time_ratio == 0.5


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="device"):
        probe("cuda:99")
