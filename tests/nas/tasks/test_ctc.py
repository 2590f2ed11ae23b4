"""CTC: what is decoded is the likeliest, by all paths of small examples."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch

from nas.tasks.transcription.ctc import decode, greedy_path, prefix_beam_search, steps_needed
from nas.tasks.transcription.objective import TranscriptionObjective


def text_of(path):
    joined = [token for token, _ in itertools.groupby(path)]
    return tuple(token for token in joined if token != 0)


def every_text(logits):
    """Each text with the sum of the probabilities of its paths."""
    shares = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    found = defaultdict(float)
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        found[text_of(path)] += np.prod([shares[t, c] for t, c in enumerate(path)])
    return found


@pytest.mark.parametrize("seed", range(12))
def test_beam_search_finds_the_likeliest_text_of_all(seed):
    logits = np.random.default_rng(seed).normal(0, 1.5, (5, 3))
    texts = every_text(logits)
    assert sum(texts.values()) == pytest.approx(1)
    best = max(texts, key=texts.__getitem__)
    assert tuple(prefix_beam_search(logits, 64)) == best
    path = logits.argmax(axis=1)
    assert tuple(greedy_path(logits)) == text_of(path)
    # Many paths of one text may outweigh the likeliest path.
    assert texts[tuple(prefix_beam_search(logits, 64))] >= texts[text_of(path)]


def test_a_wider_beam_is_not_the_path_where_paths_add_up():
    # Of two steps: the blank has 0.6 at each, and a token 0.4; "a" has 1 - 0.36 in all.
    logits = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    assert decode(logits, 1) == [] and decode(logits, 2) == [1]


def test_the_loss_is_minus_the_log_probability_of_the_text():
    logits = np.random.default_rng(3).normal(0, 1, (5, 3))
    texts = every_text(logits)
    objective = TranscriptionObjective(["x"], list, metric="wer", beam_size=1)
    for text in ((1,), (1, 2), (1, 1), (2, 1, 2)):
        targets = torch.tensor([[*text, *([0] * (4 - len(text))), 0]])
        loss = objective.loss(torch.from_numpy(logits)[None], targets, 0.1)
        assert float(loss) * len(text) == pytest.approx(-np.log(texts[text]), rel=1e-5)
    # More tokens than steps, with the blank between equal ones: no path, no gradient.
    targets = torch.tensor([[1, 1, 1, 1, 0]])
    assert float(objective.loss(torch.from_numpy(logits)[None], targets, 0.0)) == 0


@pytest.mark.parametrize(("tokens", "steps"), [([], 0), ([1, 2], 2), ([1, 1], 3), ([2, 2, 2], 5)])
def test_equal_tokens_need_a_blank_between(tokens, steps):
    assert steps_needed(tokens) == steps
