"""The stand-alone module of every style computes what the network computes."""

import importlib.util

import pytest
import torch
from safetensors.torch import save_file
from style_fakes import EVERY_STYLE, architecture, fitting, inputs_of, network

from nas.exporting.formats.standalone_source import write_source
from search_spaces.architecture import AttentionSpec, Compression, LayerSpec
from search_spaces.compression.apply import compress

CASES = [
    pytest.param(style, workload, id=f"{name}-{workload.name}")
    for name, style in EVERY_STYLE.items()
    for workload in fitting(style)
]


def loaded(folder, source):
    (folder / "model.py").write_text(source)
    spec = importlib.util.spec_from_file_location("standalone", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("style, workload", CASES)
def test_the_source_computes_what_the_network_computes(style, workload, is_mixed, tmp_path):
    of = architecture(style, workload, rank=3)
    if is_mixed:
        first, second = of.layers
        narrow = AttentionSpec(4, 2, 6, None, Compression("bf16"))
        of = type(of)(
            of.d_model, (LayerSpec(narrow, first.ffn), second), of.patch_size, style=style
        )
    made, inputs = network(of, workload), inputs_of(workload)
    compressed = compress(made, of)
    tensors = {n.replace(".block.", "."): v for n, v in compressed.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    alone = loaded(tmp_path, write_source(of, workload))
    with torch.no_grad():
        expected = compressed(inputs)
        difference = (alone(inputs) - expected).abs().max() / expected.abs().max()
    assert float(difference) < (0.03 if is_mixed else 1e-5)
