"""Texts that artifacts take: several, one alone, none, and what is no text."""

import numpy as np
import pytest
import torch

from nas.exporting.artifact import Artifact
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.workload import Workload

WORKLOAD = Workload("words", "text_classification", (6,), 2, 4, vocab_size=99)
ARCHITECTURE = Architecture(8, (LayerSpec(AttentionSpec(1, 1, 8), FfnSpec(8)),), 1)


class Lengths:
    """An encoder whose tokens are a text's length."""

    def encode(self, texts):
        return np.array([[len(text)] * 6 for text in texts], dtype=np.int64).reshape(-1, 6)


@pytest.fixture
def artifact():
    def call(tokens_BT):
        assert 1 <= len(tokens_BT) <= WORKLOAD.batch_size and tokens_BT.shape[1] == 6
        is_long_B = tokens_BT[:, 0] > 3
        return torch.stack([~is_long_B, is_long_B], dim=1).float()

    return Artifact(ARCHITECTURE, WORKLOAD, call, labels=("short", "long"), encoder=Lengths())


def test_several_texts_give_a_list_and_one_alone_its_label(artifact):
    texts = ["a", "abcdef", "", "abcd", "ab"]
    labels = ["short", "long", "short", "long", "short"]
    assert artifact.classify(texts) == labels
    assert artifact.classify("abcdef") == "long"
    assert artifact.classify(["abcdef"]) == ["long"]
    for several in (tuple(texts), iter(texts), np.array(texts), dict.fromkeys(texts)):
        assert artifact.classify(several) == labels


@pytest.mark.parametrize("nothing", [[], (), iter([]), np.array([], dtype=str)])
def test_no_texts_give_none(artifact, nothing):
    assert artifact.classify(nothing) == []


@pytest.mark.parametrize("wrong", [3, None, b"abc", ["a", 3], [["a"]], {"text": "abcdef"}])
def test_what_is_no_text_is_refused_in_one_line(artifact, wrong):
    with pytest.raises(ValueError, match="texts must be one text or several, got") as error:
        artifact.classify(wrong)
    assert len(str(error.value).splitlines()) == 1
