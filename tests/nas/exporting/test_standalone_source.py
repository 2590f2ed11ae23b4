"""The stand-alone module: the same network for every head, by itself, whatever names it has."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nas.core.files import write_json
from nas.exporting.formats.python import SOURCE, PythonFormat, imported
from nas.exporting.formats.standalone_source import write_source
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.apply import compress
from search_spaces.models.build import build
from search_spaces.workload import Workload

WORKLOADS = [
    Workload("w", "image_classification", (3, 8, 12), 5, 4),
    Workload("w", "image_segmentation", (1, 8, 8), 3, 4),
    Workload("w", "object_detection", (1, 8, 12), 3, 4),
    Workload("w", "text_classification", (9,), 3, 4, vocab_size=20),
    Workload("w", "question_answering", (9,), 2, 4, vocab_size=20),
    Workload("w", "language_modelling", (40,), 20, 4, vocab_size=20),
]


def network_of(workload, precisions, resolution=None):
    attention, ffn = (Compression(precision) for precision in precisions)
    layers = (
        LayerSpec(AttentionSpec(4, 2, 4, 3, attention), FfnSpec(40, 4, ffn)),
        LayerSpec(AttentionSpec(2, 2, 8, None, attention), FfnSpec(24, None, ffn)),
    )
    return Architecture(16, layers, 2 if workload.is_image else 1, resolution)


def written(folder, architecture, workload):
    network = build(architecture, workload, generator_seed=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(2)))
    write_json(folder / ARCHITECTURE, architecture.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    save_weights(network, folder / WEIGHTS)
    PythonFormat().write(folder)
    return network


def inputs_of(workload):
    generator = torch.Generator().manual_seed(0)
    shape = (workload.batch_size, *workload.input_shape)
    if workload.is_image:
        return torch.randn(shape, generator=generator)
    tokens = torch.randint(1, 20, shape, generator=generator)
    if not workload.is_causal:
        tokens[0, 5:] = 0
        tokens[1] = 0
    return tokens


@pytest.mark.parametrize("precisions", [("fp32", "fp32"), ("bf16", "bf16"), ("fp32", "bf16")])
@pytest.mark.parametrize(
    ("workload", "resolution"),
    [(w, None) for w in WORKLOADS] + [(w, 4) for w in WORKLOADS if w.is_image or w.is_pooled],
    ids=lambda x: getattr(x, "kind", str(x)),
)
def test_it_is_the_network(tmp_path, workload, precisions, resolution):
    architecture = network_of(workload, precisions, resolution)
    network = compress(written(tmp_path, architecture, workload), architecture)
    inputs = inputs_of(workload)
    with torch.no_grad():
        expected = network(inputs).float()
    found = PythonFormat().load(tmp_path, device="cpu", threads=1).call(inputs).float()
    relative = 1e-5 if precisions == ("fp32", "fp32") else 0.03
    assert found.shape == expected.shape and expected.std() > 0.1
    assert (found - expected).abs().max() <= relative * (1 + expected.abs().max())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.kind)
def test_on_gpus_groups_of_heads_are_handed_to_flash_attention_alone(
    workload, precision, monkeypatch
):
    source = write_source(network_of(workload, (precision, precision)), workload, None)
    names = {"__name__": "model", "__file__": "model.py"}
    exec(compile(source, "model.py", "exec"), names)
    attention = names["Attention"](4, 2, 4, None)
    seen = []

    def product(q, k, v, *, attn_mask=None, **rest):
        seen.append((k.shape[1], q.dtype, attn_mask))
        return q

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", product)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    # Tensors without numbers, on a device that need not be there.
    with FakeTensorMode():
        x = torch.empty(2, 40, 16, dtype=dtype, device="cuda")
        for name, width in (("q", 16), ("k", 8), ("v", 8)):
            out = torch.empty(2, 40, width, dtype=dtype, device="cuda")
            delattr(attention, name)
            setattr(attention, name, lambda _, out=out: out)
        attention.o = torch.nn.Identity()
        if "keep_BT" in source.partition("class Attention")[2].partition("class Layer")[0]:
            attention(x, torch.ones(2, 40, dtype=torch.bool))
        else:
            attention(x)
    heads, computed_in, mask = seen[0]
    assert heads == (2 if computed_in == torch.bfloat16 and mask is None else 4)


def test_it_runs_where_this_project_is_not(tmp_path):
    written(tmp_path, network_of(WORKLOADS[0], ("bf16", "fp32")), WORKLOADS[0])
    code = """
import sys
for name in ("nas", "search_spaces", "predictors", "experiments", "numpy.random", "torchao"):
    sys.modules[name] = None
sys.path.insert(0, ".")
import torch
from model import load
print(tuple(load()(torch.zeros(7, 3, 8, 12)).shape))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path / "python",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(7, 5)"


NASTY = ['"""\nimport os\nos.system("true")\n"""', "'); import os; ('", "\\", "{x}", "ünï\u2028"]


def test_names_of_strangers_are_text_and_never_code():
    workload = Workload(NASTY[0], "image_classification", (1, 4, 4), len(NASTY), 4)
    source = write_source(network_of(workload, ("fp32", "fp32")), workload, NASTY)
    assert set(imported(source)) == {"__future__", "pathlib", "torch", "safetensors"}
    found = {}
    exec(compile(source.partition("class LowRank")[0], "m", "exec"), found)
    assert found["TASK"] == NASTY[0] and list(found["LABELS"]) == NASTY


def test_a_module_that_imports_more_is_not_run(tmp_path):
    written(tmp_path, network_of(WORKLOADS[0], ("fp32", "fp32")), WORKLOADS[0])
    path = tmp_path / "python" / SOURCE
    path.write_text("import nas\nraise SystemExit(3)\n" + path.read_text())
    with pytest.raises(ValueError, match="only torch and safetensors, got nas"):
        PythonFormat().load(tmp_path, device="cpu", threads=1)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.kind)
def test_it_reads_well(tmp_path, workload):
    """No line too long, no unused name, nothing undefined."""
    source = write_source(network_of(workload, ("bf16", "fp32")), workload, ["a", "b"])
    path = tmp_path / "model.py"
    path.write_text(source)
    rules = ["--isolated", "--line-length", "99", "--select", "E,F,I,UP,B"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
