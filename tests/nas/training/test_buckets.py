"""Batches of texts by length: all of them once, cut without a change of what networks say."""

import numpy as np
import pytest
import torch
from torch import nn

from nas.tasks.base import Split
from nas.training.buckets import Buckets
from nas.training.config import TrainingConfig
from nas.training.loop import LoopOptions, train
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build
from search_spaces.workload import Workload

TEXTS = Workload("texts", "text_classification", (40,), 2, 16, vocab_size=50)
LAYER = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32))
SMALL = Architecture(16, (LAYER,), 1)


def texts(n=500, seed=0):
    rng = np.random.default_rng(seed)
    tokens_NT = rng.integers(1, 50, (n, 40))
    lengths_N = rng.integers(0, 41, n)
    tokens_NT[np.arange(40) >= lengths_N[:, None]] = 0
    return tokens_NT, lengths_N


def drawn(model, tokens_NT, seed=0):
    buckets = Buckets.of(model, torch.from_numpy(tokens_NT), 16)
    return list(buckets.draw(torch.Generator().manual_seed(seed)))


def test_every_text_is_shown_once_and_whole():
    tokens_NT, lengths_N = texts()
    batches = drawn(build(SMALL, TEXTS), tokens_NT)
    assert sorted(i for indices, _ in batches for i in indices.tolist()) == list(range(500))
    for indices, width in batches:
        assert width in (10, 20, 30, 40)
        assert max(1, lengths_N[indices].max()) <= width < lengths_N[indices].max() + 10
    # Half of the tokens are padding; most of the work on it is saved.
    work = sum(len(indices) * width for indices, width in batches)
    assert work < 0.7 * tokens_NT.size
    # Long and short batches alternate, and another epoch has others.
    widths = [width for _, width in batches]
    assert widths != sorted(widths) and widths != sorted(widths, reverse=True)
    again = drawn(build(SMALL, TEXTS), tokens_NT, seed=1)
    assert {tuple(i.tolist()) for i, _ in again}.isdisjoint(tuple(i.tolist()) for i, _ in batches)


def test_networks_say_the_same_of_texts_that_were_cut():
    tokens_NT, _ = texts()
    model = build(SMALL, TEXTS, generator_seed=0).eval()
    inputs = torch.from_numpy(tokens_NT)
    batches = drawn(model, tokens_NT)
    assert {width for _, width in batches} == {10, 20, 30, 40}
    for indices, width in batches:
        whole, cut = model(inputs[indices]), model(inputs[indices, :width])
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)


def test_what_needs_its_padding_keeps_it():
    tokens_NT, _ = texts()
    images = Workload("images", "image_classification", (1, 8, 8), 2, 16)
    following = Workload("lm", "language_modelling", (40,), 50, 16, vocab_size=50)
    for model in (
        build(Architecture(16, (LAYER,), 2), images),
        build(SMALL, following),
        nn.Embedding(50, 2),
    ):
        batches = drawn(model, tokens_NT)
        assert {width for _, width in batches} == {None}
        assert sorted(i for indices, _ in batches for i in indices.tolist()) == list(range(500))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_training_learns_and_repeats_itself(dropout):
    tokens_NT, lengths_N = texts()
    rows = np.flatnonzero(lengths_N > 2)
    # What decides is a word somewhere in the text.
    has_word = (tokens_NT[rows] == 7).any(axis=1)
    split = Split(tokens_NT[rows], has_word.astype(np.int64))
    config = TrainingConfig(epochs=12, learning_rate=1e-2, token_dropout=dropout)
    losses = []
    for _ in range(2):
        model = build(SMALL, TEXTS, generator_seed=0)
        found = []
        train(
            model,
            split,
            config,
            seed=3,
            options=LoopOptions(on_epoch=lambda _, loss, to=found: to.append(loss)),
        )
        losses.append(found)
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.75 * losses[0][0]
