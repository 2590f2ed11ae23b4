"""Causal checkpoints with a classifier, or with no head, give transformers' numbers."""

import pytest
import torch
from pretrained_fakes import (
    CAUSAL,
    causal,
    in_float64,
    largest_difference,
    layers_of,
    saved,
    streams,
)

from search_spaces.pretrained import load_checkpoint

pytest.importorskip("transformers")

KEEP = torch.arange(20) < torch.tensor([[20], [1], [11]])
TOKENS = torch.randint(1, 96, (3, 20), generator=torch.Generator().manual_seed(1))
NAMES = ["llama, one group, size of heads", "mistral", "qwen2, tied", "qwen3", "gpt2"]


def classified(name, padding, **changes):
    return causal(name, "ForSequenceClassification", pad_token_id=padding, **changes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("padding", [0, 96])
def test_classes_of_padded_texts_are_those_of_transformers(name, padding, tmp_path):
    labels = {0: "no", 1: "maybe", 2: "yes"}
    theirs = classified(name, padding, id2label=labels, attn_implementation="eager")
    checkpoint = load_checkpoint(saved(theirs, tmp_path))
    assert checkpoint.labels == ("no", "maybe", "yes")
    assert checkpoint.workload.kind == "text_classification"
    assert checkpoint.unread_keys == ()
    ours = checkpoint.build()
    tokens = torch.where(KEEP, TOKENS, padding)
    call = streams(layers_of(theirs), lambda: theirs(tokens, attention_mask=KEEP.long()).logits)
    *mine, logits = streams(ours.stack, lambda: ours(tokens))
    assert logits.shape == (3, 3)
    assert largest_difference(mine, call[:-1], KEEP) < 1e-5
    assert largest_difference([logits], call[-1:]) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_the_same_in_float64(name, tmp_path, monkeypatch):
    theirs = in_float64(classified(name, 0), monkeypatch)
    checkpoint = load_checkpoint(saved(theirs, tmp_path))
    assert checkpoint.labels == ("LABEL_0", "LABEL_1")
    ours = checkpoint.build(dtype=torch.float64)
    tokens = torch.where(KEEP, TOKENS, 0)
    with torch.no_grad():
        pair = ours(tokens), theirs(tokens, attention_mask=KEEP.long()).logits
    assert largest_difference(*([x] for x in pair)) < 1e-10


@pytest.mark.parametrize("padding", [None, -1])
def test_without_a_padding_token_the_last_token_counts(padding, tmp_path):
    theirs = classified("llama", padding)
    checkpoint = load_checkpoint(saved(theirs, tmp_path))
    tokens = torch.tensor([[5, 0, 7, 0, 96, 0]])
    with torch.no_grad():
        pair = checkpoint.build()(tokens), theirs(tokens).logits
    assert largest_difference(*([x] for x in pair)) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_networks_without_a_head_give_embeddings(name, tmp_path):
    theirs = causal(name, "Model", pad_token_id=0)
    checkpoint = load_checkpoint(saved(theirs, tmp_path))
    assert checkpoint.workload.kind == "text_embedding"
    assert checkpoint.unread_keys == ()
    ours, tokens = checkpoint.build(), torch.where(KEEP, TOKENS, 0)
    with torch.no_grad():
        states = theirs(tokens, attention_mask=KEEP.long()).last_hidden_state
        last = states[torch.arange(3), KEEP.sum(1) - 1]
        assert largest_difference([ours(tokens)], [last]) < 1e-5


def test_every_peculiar_network_here_is_one_of_the_causal():
    assert set(NAMES) <= set(CAUSAL)
