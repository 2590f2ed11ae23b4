"""The contract of every runtime. One joins in ``RUNTIMES``."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.architecture import (
    STYLES,
    Architecture,
    AttentionSpec,
    Compression,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)
from search_spaces.models.build import build
from search_spaces.runtimes import base, serve
from search_spaces.runtimes.base import TOLERANCES, Form, RuntimeRefusal, Setting
from search_spaces.runtimes.converting import outputs_of, run_converted
from search_spaces.runtimes.registry import CONVERTERS, RUNTIMES, get_runtime, parse_runtimes
from search_spaces.workload import Workload

# Converting takes a minute in all.
pytestmark = pytest.mark.thorough

IMAGES = Workload("digits", "image_classification", (1, 8, 8), 10, 8)
TEXTS = Workload("texts", "text_classification", (12,), 3, 4, vocab_size=40)
TOKENS = Workload("tokens", "language_modelling", (12,), 40, 4, vocab_size=40)
# Their converters take ten seconds and more.
SLOW = {"executorch", "litert"}
NAMES = [
    pytest.param(name, marks=pytest.mark.thorough) if name in SLOW else name for name in CONVERTERS
]


def images(precision="fp32", ffn=None):
    """Grouped queries, low rank, more tokens than torch's compiler fuses."""
    attention = AttentionSpec(4, 2, 16, 8, Compression(precision))
    layer = LayerSpec(attention, FfnSpec(128, None, Compression(ffn or precision)))
    return Architecture(64, (layer, layer), 2)


def texts(precision="fp32"):
    compression = Compression(precision)
    layer = LayerSpec(AttentionSpec(2, 2, 32, None, compression), FfnSpec(96, None, compression))
    return Architecture(64, (layer,), style=STYLES["bert"])


def tokens(precision="fp32"):
    """Rotary positions, norms of queries and keys, a gated block, a tied head."""
    compression = Compression(precision)
    layer = LayerSpec(AttentionSpec(4, 2, 16, None, compression), FfnSpec(96, None, compression))
    return Architecture(64, (layer, layer), style=STYLES["qwen3"])


SUBJECTS = {
    "images": (images, IMAGES),
    "texts": (texts, TEXTS),
    "prefill": (tokens, TOKENS.with_phase("prefill")),
    "generate": (tokens, TOKENS.with_phase("generate")),
}


def batch(workload, seed=0):
    rng = np.random.default_rng(seed)
    shape = (workload.batch_size, *workload.input_shape)
    if workload.is_image:
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    read = rng.integers(1, workload.vocab_size, shape)
    if workload.has_padding:
        read[0, 5:] = workload.padding_token
    return torch.from_numpy(read)


def installed(name):
    """The runtime; the test is skipped without its packages."""
    runtime = get_runtime(name)
    if runtime.missing() is not None:
        pytest.skip(runtime.missing())
    return runtime


def network_of(architecture, workload):
    network = build(architecture, workload, generator_seed=0).eval()
    with torch.no_grad():
        # Fresh norms are the identity, which would hide their being left out.
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator()) * 0.05)
    return network


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_torchs_within_the_tolerance(name, kind):
    runtime, (make, workload) = installed(name), SUBJECTS[kind]
    inputs = batch(workload)
    for precision in sorted(runtime.precisions):
        architecture = make(precision)
        if runtime.refusal(architecture, workload, "cpu") is not None:
            continue
        network = network_of(architecture, workload)
        running = runtime.run(network, architecture, workload, inputs, Setting())
        assert 0 < running.difference <= TOLERANCES[precision]
        assert running.versions == {k: runtime.versions()[k] for k in running.versions}
        assert running.versions and running.compile_s > 0 and running.mode == name
        running.repeat()
        if precision == "int8":
            # Rounding to 8 bits shows; a form that is fp32 all the same would not.
            assert running.difference > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_only_the_named_blocks_are_int8(name, tmp_path):
    runtime = installed(name)
    network, inputs = network_of(images(), IMAGES), batch(IMAGES)
    sizes = {}
    for paths in ((), ("layers.0.ffn",), tuple(p.path for p in images("int8").placed_blocks)):
        folder = tmp_path / str(len(paths))
        folder.mkdir()
        form = Form("int8", paths) if paths else Form("fp32")
        runtime.convert(network, (inputs,), form, folder)
        sizes[len(paths)] = sum(file.stat().st_size for file in folder.iterdir())
    # The weights of one block of four: 2 * 64 * 128 values, of four bytes each before.
    assert sizes[4] < sizes[1] < sizes[0]
    assert sizes[0] - sizes[1] > 0.6 * 3 * 2 * 64 * 128


@pytest.mark.parametrize("name", NAMES)
def test_a_file_runs_with_its_runtime_alone_in_batches_it_states(name, tmp_path):
    runtime = installed(name)
    network, inputs = network_of(images(), IMAGES), batch(IMAGES)
    runtime.convert(network, (inputs,), Form("fp32"), tmp_path, is_any_batch=runtime.has_any_batch)
    assert {file.name for file in tmp_path.iterdir()} == set(runtime.files("fp32"))
    for size in (8, 1, 3) if runtime.has_any_batch else (8,):
        arrays = tmp_path / "arrays.npz"
        expected = outputs_of(network, (inputs[:size],))
        np.savez(arrays, inputs=inputs[:size].numpy(), outputs=expected.numpy())
        findings = alone(runtime, tmp_path, arrays)
        assert findings["difference"] <= TOLERANCES["fp32"]
        assert findings["peak_bytes"] > findings["bytes_before"] > 0


def alone(runtime, folder, arrays):
    job = {
        "runtime": runtime.name,
        "path": str(folder / runtime.file("fp32")),
        "precision": "fp32",
        "threads": 1,
        "arrays": str(arrays),
    }
    done = subprocess.run(
        [sys.executable, "-P", serve.__file__],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_one_thread_is_one_thread(name):
    """Joules of a CPU without a counter are CPU seconds, those of idle threads included."""
    runtime, workload = installed(name), IMAGES.with_batch_size(64)
    network = network_of(images(), workload)
    running = runtime.run(network, images(), workload, batch(workload), Setting(threads=1))
    running.repeat()
    started_s, cpu_s = time.perf_counter(), time.process_time()
    while time.perf_counter() - started_s < 0.3:
        running.repeat()
    assert time.process_time() - cpu_s <= 1.1 * (time.perf_counter() - started_s)


@pytest.mark.parametrize("name", CONVERTERS)
def test_what_is_no_file_of_a_runtime_is_refused(name, tmp_path):
    runtime = installed(name)
    path = tmp_path / runtime.file("fp32")
    with pytest.raises(ValueError, match="must exist, and does not"):
        serve.load(name, path)
    path.write_bytes(b"\x80\x04" * 40)
    with pytest.raises(ValueError, match=f"must be a file of {name}"):
        serve.load(name, path)


@pytest.mark.parametrize("name", CONVERTERS)
def test_what_a_runtime_cannot_hold_is_said_before_anything_is_built(name):
    runtime = CONVERTERS[name]
    layer = DecoderLayerSpec(AttentionSpec(2, 2, 16), AttentionSpec(2, 2, 16), FfnSpec(32))
    decoder = replace(images(), decoder=DecoderSpec(32, (layer,)), patch_size=1)
    pairs = Workload("pairs", "translation", (8,), 20, 2, vocab_size=20, target_length=4)
    refused = {
        "on the CPU here, not on cuda:0": (images(), IMAGES, "cuda:0"),
        "encoder-decoders": (decoder, pairs, "cpu"),
        "not fp8": (images("fp8"), IMAGES, "cpu"),
    }
    for words, subject in refused.items():
        assert words in runtime.refusal(*subject)
        with pytest.raises(RuntimeRefusal, match=name):
            if subject[2] == "cpu":
                run_converted(runtime, None, *subject[:2], None, Setting())
            raise RuntimeRefusal(name)
    mixed = runtime.refusal(images("bf16", "fp32"), IMAGES, "cpu")
    assert "bf16" in mixed
    assert runtime.refusal(images("int8", "fp32"), IMAGES, "cpu") is None


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_missing_package_is_named_with_the_command(name, monkeypatch):
    runtime = CONVERTERS[name]
    found = base.find_spec
    monkeypatch.setattr(
        base, "find_spec", lambda word: None if word == runtime.packages[-1] else found(word)
    )
    with pytest.raises(ValueError, match=rf"pip install 'joulenas\[{runtime.extra}\]'"):
        parse_runtimes([name])


def test_litert_refuses_what_its_converter_gets_wrong():
    one_head = LayerSpec(AttentionSpec(4, 1, 16), FfnSpec(128))
    refused = CONVERTERS["litert"].refusal(Architecture(64, (one_head,), 2), IMAGES, "cpu")
    assert refused is not None and "layers.0.attention" in refused
    assert (
        CONVERTERS["onnxruntime"].refusal(Architecture(64, (one_head,), 2), IMAGES, "cpu") is None
    )


def test_a_conversion_that_is_wrong_is_found_out(monkeypatch):
    runtime = installed("litert")
    monkeypatch.setattr(type(runtime), "limit", lambda *_: None)
    one_head = Architecture(64, (LayerSpec(AttentionSpec(4, 1, 16), FfnSpec(128)),), 2)
    with pytest.raises(RuntimeRefusal, match="outputs of litert in fp32 differ from torch's by"):
        runtime.run(network_of(one_head, IMAGES), one_head, IMAGES, batch(IMAGES), Setting())


def test_names_of_runtimes_are_checked():
    assert {each.name for each in parse_runtimes(["torch", "torch-eager", "torch"])} == {
        "torch",
        "torch-eager",
    }
    with pytest.raises(ValueError, match="must be one of torch, .*did you mean 'openvino'"):
        get_runtime("openvin")
    assert list(RUNTIMES)[0] == "torch"


def test_eager_torch_computes_the_same():
    inputs, network = batch(IMAGES), network_of(images(), IMAGES)
    eager = RUNTIMES["torch-eager"].run(network, images(), IMAGES, inputs, Setting())
    assert eager.mode == "eager" and eager.compile_s == 0
    torch.testing.assert_close(eager.repeat(), outputs_of(network, (inputs,)))
    assert "not int8" in RUNTIMES["torch-eager"].refusal(images("int8"), IMAGES, "cpu")
