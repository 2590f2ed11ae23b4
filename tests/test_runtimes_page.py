"""docs/runtimes.md: each block loads an exported file with its runtime alone."""

import subprocess
import sys

import pytest
from export_fakes import made_artifact
from pages import DOCS, blocks

from nas.exporting.formats.registry import FORMATS
from nas.tasks.base.artifact_files import CHECK
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec

# A word of each block, and the format whose file it loads.
BLOCKS = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "ai_edge_litert": "litert",
    "executorch": "executorch",
}
SLOW = {"ai_edge_litert", "executorch"}
WITHOUT = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
"""
COMPARED = """
import numpy as np
from safetensors.numpy import load_file as stored
expected = stored("model/{check}")["outputs"]
print(np.abs(np.asarray(outputs) - expected).max())
"""
WORDS = [
    pytest.param(word, marks=pytest.mark.thorough) if word in SLOW else word for word in BLOCKS
]


def test_the_page_has_a_block_for_each_runtime():
    shown = blocks(DOCS / "runtimes.md", "python")
    assert len(shown) == len(BLOCKS)
    assert all(sum(word in block for block in shown) == 1 for word in BLOCKS)


@pytest.mark.parametrize("word", WORDS)
def test_a_block_runs_without_us(tmp_path, word):
    form = FORMATS[BLOCKS[word]]
    if form.missing() is not None:
        pytest.skip(form.missing())
    layer = LayerSpec(AttentionSpec(2, 2, 16), FfnSpec(48))
    folder = made_artifact(tmp_path / "model", Architecture(32, (layer, layer), 2), "digits")
    form.write(folder)
    (shown,) = (block for block in blocks(DOCS / "runtimes.md", "python") if word in block)
    # Five lines beside the imports and blank ones would be too many to be called five.
    lines = [line for line in shown.splitlines() if line and "import" not in line]
    assert len(lines) <= 5
    blocked = ["nas", "search_spaces", "predictors"] + ["torch"] * (word != "executorch")
    script = WITHOUT.format(blocked=blocked) + shown + COMPARED.format(check=CHECK)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-3
