"""Other runtimes compute what networks of every kind of pooling, head and mask compute."""

import pytest
import torch
from export_fakes import save_check
from style_fakes import (
    EVERY_STYLE,
    IMAGE,
    IMAGE_VECTOR,
    MLM,
    TEXT,
    TEXT_VECTOR,
    architecture,
    inputs_of,
    network,
)

from nas.core.files import write_json
from nas.exporting.formats.registry import FORMATS
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights

CASES = [
    ("onnx", "masked", MLM),
    ("onnx", "past-mean", TEXT_VECTOR),
    ("onnx", "registers", IMAGE),
    ("pt2", "past", TEXT),
    ("pt2", "distilled", TEXT),
    ("pt2", "patches", IMAGE_VECTOR),
]


@pytest.mark.parametrize("form, name, workload", CASES, ids=[f"{f}-{n}" for f, n, _ in CASES])
def test_outputs_are_those_of_the_network_at_another_batch_size(form, name, workload, tmp_path):
    of = architecture(EVERY_STYLE[name], workload)
    made, inputs = network(of, workload), inputs_of(workload, n=3)
    write_json(tmp_path / ARCHITECTURE, of.to_dict())
    write_json(tmp_path / WORKLOAD, workload.to_dict())
    save_weights(made, tmp_path / WEIGHTS)
    with torch.no_grad():
        expected = made(inputs)
    save_check(tmp_path, inputs, expected)
    assert FORMATS[form].refusal(of, workload, "cpu") is None
    FORMATS[form].write(tmp_path)
    found = FORMATS[form].load(tmp_path, device="cpu", threads=1).call(inputs)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
