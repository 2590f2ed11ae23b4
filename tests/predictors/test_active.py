"""Choosing what to measure, without a device."""

import numpy as np
import pytest

from predictors.energy.active import (
    Candidates,
    above_front,
    first_rows,
    front_weights,
    next_rows,
    width_near_front,
)
from predictors.energy.design import design_features, posterior_variance
from predictors.energy.regressor import Predictions


def made(n=200, seed=0):
    """Rows of two costs and four features, with intervals of one width."""
    rng = np.random.default_rng(seed)
    terms = np.exp(rng.normal(0, 1, (n, 2)))
    mean = terms.sum(axis=1)
    features = np.column_stack([np.log(terms), rng.normal(0, 1, (n, 2))])
    sure = np.ones(n, dtype=bool)
    return Candidates(terms, features, terms[:, 0]), Predictions(
        mean, mean * 0.9, mean * 1.1, sure
    )


def test_above_the_front_by_hand():
    size, energy = np.array([1.0, 2.0, 3.0, 3.0]), np.array([1.0, 4.0, 2.0, 6.0])
    # The second is worse than the third, which is larger too; the last is its equal in size.
    assert above_front(size, energy) == pytest.approx(np.log([1, 2, 1, 3]))
    weights = front_weights(size, energy)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == weights[2] > weights[1] > weights[3]


def test_the_width_is_that_near_the_front():
    size, mean = np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 2.0])
    low, high = mean * [0.9, 0.1, 0.7], mean * [1.1, 1.9, 1.3]
    predicted = Predictions(mean, low, high, np.ones(3, dtype=bool))
    assert width_near_front(size, predicted) == pytest.approx((0.1 + 0.3) / 2, abs=1e-6)
    endless = Predictions(mean, low, np.full(3, np.inf), np.ones(3, dtype=bool))
    assert np.isfinite(width_near_front(size, endless))


def test_the_first_rows_fill_the_space_and_go_on_from_what_is_measured():
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]])
    inside = 0.5 + 0.05 * np.random.default_rng(0).normal(size=(50, 2))
    features = np.vstack([inside, corners])
    found = first_rows(features, 5)
    assert {50, 51, 52, 53} < set(found.rows) and found.width is None
    more = first_rows(features, 3, measured=[50, 0])
    assert set(more.rows) == {51, 52, 53}
    assert len(set(first_rows(features, 54).rows)) == 54
    assert set(first_rows(np.ones((3, 2)), 2, measured=[1]).rows) == {0, 2}
    with pytest.raises(ValueError, match="at most 2"):
        first_rows(features[:3], 3, measured=[0])


def test_a_batch_narrows_what_is_near_the_front_more_than_chance_does():
    candidates, predicted = made()
    measured = list(first_rows(candidates.features, 10).rows)
    found = next_rows(candidates, predicted, 8, measured=measured)
    assert len(set(found.rows)) == 8 and not set(found.rows) & set(measured)
    assert found.width == pytest.approx(0.1)
    assert found.expected_width < found.width
    rest = [i for i in range(200) if i not in measured]
    rng = np.random.default_rng(0)
    weights = front_weights(candidates.size, predicted.mean)
    standard = (candidates.features - candidates.features.mean(0)) / candidates.features.std(0)
    design = design_features(candidates.terms, predicted.mean, standard)

    def left(rows):
        return float(weights @ posterior_variance(design, [*measured, *rows]))

    by_chance = [left(rng.choice(rest, 8, replace=False)) for _ in range(20)]
    assert left(found.rows) < min(by_chance)


def test_what_is_expected_is_not_more_than_what_noise_allows():
    candidates, predicted = made(60)
    measured = list(range(40))
    found = next_rows(candidates, predicted, 20, measured=measured)
    # Everything measured: what is left is a label's own noise, one of at most two units.
    assert found.width / np.sqrt(2) < found.expected_width < found.width
    with pytest.raises(ValueError, match="at most 20"):
        next_rows(candidates, predicted, 21, measured=measured)


def test_rows_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="3 rows"):
        Candidates(np.ones((3, 1)), np.ones((2, 1)), np.ones(3))
