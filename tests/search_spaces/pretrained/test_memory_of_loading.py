"""Loading holds the network and little more: the file's pages are given back."""

import json
import subprocess
import sys

import pytest
import torch
from gguf_fakes import CONFIG, small_gguf
from safetensors.torch import save_file

# Memory in kB that the process itself has had at most, since it was last cleared.
MEASURE = """
import sys, torch
from pathlib import Path
from search_spaces.pretrained import load_checkpoint

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

torch.ones(8, 8) @ torch.ones(8, 8)
load_checkpoint(sys.argv[1]).build()
Path("/proc/self/clear_refs").write_text("5")
before = peak()
network = load_checkpoint(sys.argv[2]).build(dtype=getattr(torch, sys.argv[3]))
assert sum(p.numel() for p in network.parameters()) > 10_000_000 / 4
print(peak() - before, "sympy" in sys.modules)
"""
LAYERS = 3


def write(folder, width, dtype=torch.float32):
    """A GPT-2, half of whose weights are stored transposed, with a large embedding."""
    vocabulary = 10 * width
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": vocabulary,
        "n_embd": width,
        "n_layer": LAYERS,
        "n_head": 4,
        "n_positions": 64,
        "activation_function": "gelu_new",
    }
    shapes = {"wte": (vocabulary, width), "wpe": (64, width)}
    norms = [f"h.{i}.ln_{j}" for i in range(LAYERS) for j in (1, 2)] + ["ln_f"]
    linear = {"attn.c_attn": 3, "attn.c_proj": 1, "mlp.c_fc": 4}
    tensors = {}
    for norm in norms:
        tensors |= {f"{norm}.{x}": torch.ones(width) for x in ("weight", "bias")}
    for layer in range(LAYERS):
        for name, times in linear.items():
            shapes[f"h.{layer}.{name}"] = (width, times * width)
            tensors[f"h.{layer}.{name}.bias"] = torch.zeros(times * width)
        shapes[f"h.{layer}.mlp.c_proj"] = (4 * width, width)
        tensors[f"h.{layer}.mlp.c_proj.bias"] = torch.zeros(width)
    tensors |= {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, path)
    return path.stat().st_size


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("width", "dtype"),
    [
        (512, "float32"),
        pytest.param(1088, "float32", marks=pytest.mark.thorough),
        pytest.param(1536, "bfloat16", marks=pytest.mark.thorough),
    ],
    ids=["50 MB", "200 MB", "200 MB in bfloat16"],
)
def test_the_peak_is_at_most_1_3_times_the_checkpoint(width, dtype, tmp_path):
    write(tmp_path / "small", 16)
    size = write(tmp_path / "large", width, getattr(torch, dtype))
    names = (str(tmp_path / name) for name in ("small", "large"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *names, dtype], capture_output=True, text=True, check=True
    )
    peak_kb, has_sympy = done.stdout.split()
    assert 0.9 < int(peak_kb) * 1024 / size < 1.3
    # What torch computes on ``meta`` by Python imports it, for seconds.
    assert has_sympy == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_the_peak_of_quantised_weights_is_at_most_1_3_times_the_network(kind, tmp_path):
    large = CONFIG | {
        "vocab_size": 5120,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "head_dim": 128,
    }
    small_gguf(tmp_path / "small.gguf")
    small_gguf(tmp_path / "large.gguf", large, kind)
    network_bytes = 4 * (2 * 5120 * 512 + 2 * (512 * 512 * 3 + 3 * 512 * 2048))
    names = (str(tmp_path / f"{name}.gguf") for name in ("small", "large"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *names, "float32"],
        capture_output=True,
        text=True,
        check=True,
    )
    peak_kb, has_sympy = done.stdout.split()
    assert 0.9 < int(peak_kb) * 1024 / network_bytes < 1.3
    assert has_sympy == "False"
