"""How sure a front is: probabilities by hand and against the definition."""

import numpy as np
import pytest
from scipy.stats import norm

from nas.pareto.uncertainty import (
    NoisyFront,
    front_probabilities,
    near_front,
    smoothed,
    true_deviations,
)

BOTH = (True, False)
FRONT = np.array([[0.2, 1.0], [0.1, 3.0], [0.05, 9.0], [0.15, 8.0]])


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
    front = NoisyFront(FRONT, np.zeros((4, 2)))
    for mean, sd in (
        ([0.12, 2.0], [0.04, 1.0]),
        ([0.3, 0.9], [0.1, 0.2]),
        ([0.06, 9.5], [0.02, 1]),
    ):
        exact = front.probabilities(np.array([mean]), np.array([sd]))
        drawn = front_probabilities(
            np.vstack([mean, FRONT]), np.vstack([sd, np.zeros((4, 2))]), (False, False)
        )
        assert exact[0] == pytest.approx(drawn[0], abs=0.04)


CANDIDATES = [
    ([0.12, 2.0], [0.3, 0.3]),
    ([0.04, 20.0], [0.2, 0.1]),
    ([0.22, 1.1], [0.05, 0.05]),
    ([0.06, 10.0], [0.02, 0.02]),
]


def drawn_share(members_sd, mean, sd, *, is_shared):
    """The share of draws of log losses in which no member dominates the candidate."""
    n = 100_000
    rng = np.random.default_rng(0)
    candidate = np.log(mean) + rng.normal(size=(n, 2)) * sd
    common = rng.normal(size=(n, 1, 2)) if is_shared else rng.normal(size=(n, 4, 2))
    members = np.log(FRONT) + common * members_sd
    return 1 - (members <= candidate[:, None]).all(axis=2).any(axis=1).mean()


@pytest.mark.parametrize(("mean", "sd"), CANDIDATES)
def test_members_that_share_errors_of_one_deviation_are_exact(mean, sd):
    members_sd = np.tile([0.2, 0.1], (4, 1))
    found = NoisyFront(np.log(FRONT), members_sd).probabilities(np.log([mean]), np.array([sd]))
    drawn = drawn_share(members_sd, mean, sd, is_shared=True)
    assert found[0] == pytest.approx(drawn, abs=0.006)


@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize(("mean", "sd"), CANDIDATES)
def test_no_dependence_of_the_members_errors_gives_more(mean, sd, is_shared):
    members_sd = np.array([[0.1, 0.2], [0.05, 0.1], [0.1, 0.3], [0.1, 0.1]])
    found = NoisyFront(np.log(FRONT), members_sd).probabilities(np.log([mean]), np.array([sd]))
    drawn = drawn_share(members_sd, mean, sd, is_shared=is_shared)
    assert drawn - 0.006 < found[0] < drawn + 0.05


def test_a_candidate_is_likelier_on_a_front_that_is_less_certain():
    mean, sd = np.log([[0.22, 1.2]]), np.array([[0.05, 0.05]])
    chances = [
        NoisyFront(np.log(FRONT), np.full((4, 2), noise)).probabilities(mean, sd)[0]
        for noise in (0.0, 0.05, 0.2)
    ]
    assert chances[0] < 0.05 < chances[1] < 0.1 and chances[2] > 0.4


def test_without_members_every_candidate_is_on_the_front():
    nobody = NoisyFront(np.empty((0, 2)), np.empty((0, 2)))
    assert nobody.probabilities(np.zeros((3, 2)), np.ones((3, 2))) == pytest.approx([1, 1, 1])


def test_many_candidates_are_judged_in_parts_that_agree(monkeypatch):
    rng = np.random.default_rng(2)
    mean, sd = rng.normal(size=(50, 2)), np.full((50, 2), 0.3)
    front = NoisyFront(rng.normal(size=(30, 2)), np.full((30, 2), 0.1))
    at_once = front.probabilities(mean, sd)
    monkeypatch.setattr("nas.pareto.uncertainty._CELLS_AT_ONCE", 1)
    assert front.probabilities(mean, sd) == pytest.approx(at_once)


def test_points_are_near_a_front_by_one_deviation_of_both():
    mean = np.array([[0.0, 0.0], [0.19, 0.19], [0.21, 0.21]])
    assert near_front(mean, np.full((3, 2), 0.1)).tolist() == [True, True, False]


def test_a_label_is_smoothed_by_precision():
    one = np.ones((1, 1))
    # Deviations of 3 from the prediction and of 4 from the measurement: weights 16 and 9.
    mean, sd = smoothed(one * 10, one * 4, one * 0, one * 5)
    assert mean[0, 0] == pytest.approx(10 * 9 / 25)
    assert sd[0, 0] == pytest.approx(3 * 4 / 5)


def test_a_measurement_is_never_taken_as_exact_where_the_surrogate_is_not():
    """A quarter of the variance of labels may be noise that they do not state."""
    one = np.ones((1, 1))
    mean, sd = smoothed(one * 10, one * 0, one * 0, one * 5)
    assert mean[0, 0] == pytest.approx(7.5)
    assert sd[0, 0] == pytest.approx(np.sqrt(0.75) * 2.5)


def test_a_true_value_is_never_as_certain_as_a_difference_of_variances_may_say():
    label_sd = np.array([5.0, 5.0, 5.0])
    assert true_deviations(label_sd, np.array([0.0, 4.0, 5.0])) == pytest.approx([5, 3, 2.5])


def test_smoothed_members_are_right_on_average_where_raw_ones_are_too_good():
    """The member with the best of many noisy labels is a lucky one."""
    rng = np.random.default_rng(3)
    n, noise, spread = 400, 0.15, 0.2
    truth = rng.normal(0, spread, (n, 50))
    labels = truth + rng.normal(0, noise, truth.shape)
    label_sd = np.full(truth.shape, np.hypot(noise, spread))
    mean, sd = smoothed(labels, np.full(truth.shape, noise), np.zeros(truth.shape), label_sd)
    rows, best = np.arange(n), mean.argmin(axis=1)
    raw = labels[rows, labels.argmin(axis=1)] - truth[rows, labels.argmin(axis=1)]
    error = mean[rows, best] - truth[rows, best]
    assert raw.mean() < -0.15
    assert abs(error.mean()) < 0.02
    assert error.std() == pytest.approx(sd[0, 0], rel=0.1)
