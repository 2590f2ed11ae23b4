"""Bits per byte of a small language model by its converted files."""

import math

import pytest
from gguf_fakes import CONFIG, byte_pairs, small_gguf

from experiments.benchmarks.serving.text_quality import bits_of
from search_spaces.pretrained import load_checkpoint

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    tokens = byte_pairs()
    config = CONFIG | {"vocab_size": len(tokens["tokenizer.ggml.tokens"])}
    return load_checkpoint(small_gguf(path, config, **tokens))


def test_forms_are_judged_on_the_same_bytes(checkpoint, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the hell, the hello, the tell. " * 20)
    forms = [("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    found = bits_of(checkpoint, text, forms, length=16, n_windows=4)
    assert list(found) == forms
    assert found["onnxruntime", "fp32"] == pytest.approx(found["torch", "fp32"], rel=1e-3)
    assert found["onnxruntime", "int8"] == pytest.approx(found["torch", "fp32"], rel=0.1)
    # Random weights know nothing: a token of a vocabulary of 264 takes 8 bits and more.
    assert math.log2(264) / 4 < found["torch", "fp32"] < 40
