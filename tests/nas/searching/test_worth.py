"""Expected hypervolume of one more trial, and what new candidates bring for an epoch."""

import math

import numpy as np
import pytest

from nas.pareto.hypervolume import hypervolume
from nas.searching.early_stopping.worth import Frontier, Prospect, going_rate


def volume(frontier, points):
    return hypervolume(points, frontier.corner, (True, False))


def test_a_gain_is_the_difference_of_hypervolumes():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [(float(a), float(e)) for a, e in rng.uniform((0.5, 1), (1, 9), (6, 2))]
        frontier = Frontier.of(points)
        logs = [(a, math.log(e)) for a, e in points]
        quality, energy_j = float(rng.uniform(0.3, 1)), float(rng.uniform(0.5, 11))
        more = volume(frontier, [*logs, (quality, math.log(energy_j))]) - volume(frontier, logs)
        found = frontier.gain(np.array([quality]), energy_j)
        assert found == pytest.approx(more, abs=1e-12)
        inside = [a for a, e in points if e <= energy_j]
        assert frontier.best_at(energy_j) == max(inside, default=-math.inf)


def test_gains_are_means_and_none_is_left_out():
    frontier = Frontier.of([(0.7, 1.0), (0.9, 4.0)])
    one, two = (frontier.gain(np.array([a]), 2.0) for a in (0.8, 1.0))
    assert frontier.gain(np.array([0.8, 1.0]), 2.0) == pytest.approx((one + two) / 2)
    assert frontier.gain(np.array([0.7]), 2.0) == 0
    assert frontier.without(1).gain(np.array([0.9]), 4.0) > 0
    assert frontier.without(1).corner == frontier.corner


def test_the_most_expensive_may_add_something_too():
    points = [(0.7, 1.0), (0.9, 4.0)]
    assert Frontier.of(points).gain(np.array([0.95]), 40.0) == 0
    assert Frontier.of(points, [40.0, 2.0]).gain(np.array([0.95]), 40.0) > 0


def test_the_going_rate_is_that_of_the_best_threshold():
    prospects = [Prospect(g, 5, 55) for g in (0.0, 0.1, 0.02, 0.5, 0.0)]
    # Stopping all but the best brings most; trained to their end all would bring half of it.
    assert going_rate(prospects) == pytest.approx(0.5 / (25 + 55))
    equal = [Prospect(0.1, 5, 55)] * 4
    assert going_rate(equal) == pytest.approx(0.1 / 60)
    assert going_rate([Prospect(0.0, 5, 55)]) == 0 == going_rate([])
