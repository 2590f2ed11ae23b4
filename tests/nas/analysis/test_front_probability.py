"""How sure a front is: probabilities by hand and against the definition."""

import numpy as np
import pytest
from scipy.stats import norm

from nas.pareto.uncertainty import exact_front_probabilities, front_probabilities

BOTH = (True, False)


def test_without_errors_it_is_the_front():
    values = [[0.9, 1.0], [0.95, 2.0], [0.9, 2.0], [0.8, 3.0]]
    assert front_probabilities(values, np.zeros((4, 2)), BOTH) == pytest.approx([1, 1, 0, 0])


def test_two_trials_of_one_cost_share_it_as_their_difference_says():
    # Which is the more accurate is a normal difference; joules are the same but for a little.
    found = front_probabilities([[0.90, 1.0], [0.91, 1.001]], [[0.01, 0], [0.01, 0]], BOTH)
    better = norm.cdf(1 / np.sqrt(2))
    assert found[0] == 1
    assert found[1] == pytest.approx(better, abs=0.03)


def test_a_lucky_best_is_less_sure_than_a_clear_one():
    values = [[0.98, 5.0], [0.979, 4.0], [0.90, 1.0]]
    found = front_probabilities(values, [[0.01, 0.1]] * 3, BOTH)
    assert found[0] < 0.65 and found[2] == 1


def test_a_trial_that_is_worse_by_two_deviations_and_a_half_has_some_chance():
    found = front_probabilities([[0.0, 0.0], [2.5, 2.5]], np.ones((2, 2)), (False, False))
    assert found[1] == pytest.approx(1 - norm.cdf(2.5 / np.sqrt(2)) ** 2, abs=0.02)


def test_many_hopeless_trials_change_nothing_and_cost_little():
    values = [[0.9, 1.0], [0.95, 2.0]]
    few = front_probabilities(values, [[0.01, 0.1]] * 2, BOTH)
    many = values + [[0.5, 9.0]] * 20_000
    found = front_probabilities(many, [[0.01, 0.1]] * len(many), BOTH)
    assert np.array_equal(found[:2], few) and not found[2:].any()


def test_no_trial_has_no_probabilities():
    assert len(front_probabilities([], [], BOTH)) == 0


def test_drawing_agrees_with_the_closed_form_where_the_front_is_exact():
    front = np.array([[0.2, 1.0], [0.1, 3.0], [0.05, 9.0], [0.15, 8.0]])
    for mean, sd in (
        ([0.12, 2.0], [0.04, 1.0]),
        ([0.3, 0.9], [0.1, 0.2]),
        ([0.06, 9.5], [0.02, 1]),
    ):
        exact = exact_front_probabilities(front, np.array([mean]), np.array([sd]))
        drawn = front_probabilities(
            np.vstack([mean, front]), np.vstack([sd, np.zeros((4, 2))]), (False, False)
        )
        assert exact[0] == pytest.approx(drawn[0], abs=0.04)
