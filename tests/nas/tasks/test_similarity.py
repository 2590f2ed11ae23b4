"""Agreement of vectors: by hand on small sets, and its standard errors by repeated draws."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from nas.tasks.embeddings.similarity import (
    pair_correlation,
    recall_at,
    similarity_correlation,
)

RNG = np.random.default_rng(0)


def noisy(n, noise, seed=0, width=16):
    """Vectors, and the same with noise."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, width))
    return vectors, vectors + noise * rng.standard_normal((n, width))


def test_recall_counts_the_neighbours_that_both_have():
    angles = np.radians([0, 10, 25, 60, 90, 180])
    reference = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    moved = angles.copy()
    # The texts at 25 and 60 degrees are now nearest to each other, and were to others.
    moved[2] = np.radians(40)
    own = np.stack([np.cos(moved), np.sin(moved)], axis=1)
    found = recall_at(1, own, reference)
    assert found.of_samples.tolist() == [1, 1, 0, 0, 1, 1]
    assert found.value == pytest.approx(4 / 6)
    # Lengths do not matter.
    assert recall_at(2, reference * RNG.uniform(1, 9, (6, 1)), reference).value == 1
    with pytest.raises(ValueError, match="recall at 5 must have 7 texts or more, got 6"):
        recall_at(5, own, reference)


def test_recall_of_many_texts_is_that_of_one_block():
    reference, own = noisy(2500, 0.5)
    found = recall_at(10, own, reference)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (own, reference)]
    sets = []
    for vectors in unit:
        similarity = vectors[2000:] @ vectors.T
        similarity[np.arange(500), 2000 + np.arange(500)] = -2
        sets.append(np.argsort(-similarity, axis=1)[:, :10])
    expected = [len(set(a) & set(b)) / 10 for a, b in zip(*sets, strict=True)]
    assert np.abs(found.of_samples[2000:] - expected).mean() < 0.002
    assert 0.2 < found.value < 0.9


def test_unrelated_vectors_have_neither_neighbours_nor_order_in_common():
    reference, own = RNG.standard_normal((2, 400, 16))
    assert recall_at(10, own, reference).value < 0.06
    assert similarity_correlation(own, reference).value < 0.05


def test_the_correlation_of_few_texts_is_that_of_all_pairs():
    reference, own = noisy(41, 0.4)
    rows, columns = np.triu_indices(41, 1)

    def cosines(vectors):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return (unit @ unit.T)[rows, columns]

    expected = spearmanr(cosines(own), cosines(reference)).statistic
    found = similarity_correlation(own, reference)
    assert found.value == pytest.approx(expected, abs=1e-4)
    # Without ties the parts of texts have the correlation as their mean.
    assert found.of_samples.mean() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="3 texts or more"):
        similarity_correlation(own[:2], reference[:2])


def test_pairs_are_ranked_by_their_scores():
    left, right = RNG.standard_normal((2, 200, 8))
    cosines = (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    assert pair_correlation(left, right, np.exp(cosines)).value == pytest.approx(1)
    # Less than none is none.
    assert pair_correlation(left, right, -cosines).value == 0
    assert pair_correlation(left, right, np.ones(200)).value == 0


@pytest.mark.parametrize("judge", [lambda a, b: recall_at(5, a, b), similarity_correlation])
def test_standard_errors_are_those_of_repeated_draws(judge):
    found = [judge(*noisy(150, 0.6, seed)[::-1]) for seed in range(40)]
    spread = np.std([each.value for each in found], ddof=1)
    stated = np.mean([each.standard_error for each in found])
    assert 0.6 < stated / spread < 1.7


@pytest.mark.parametrize("judge", [lambda a, b: recall_at(5, a, b), similarity_correlation])
def test_a_perfect_agreement_is_not_certain(judge):
    reference, _ = noisy(60, 0.0)
    found = judge(reference, reference)
    assert found.value == pytest.approx(1) and 0.001 < found.standard_error < 0.05
