"""Expected improvement against draws, and boxes against the hypervolume."""

import numpy as np
import pytest

from nas.pareto.hypervolume import hypervolume
from nas.samplers.improvement import Marginal, boxes, expected_improvement

FRONTS = {
    1: (np.array([[2.0]]), np.array([5.0])),
    2: (np.array([[1.0, 4.0], [2.0, 2.0], [4.0, 1.0]]), np.array([5.0, 5.0])),
    3: (
        np.array([[1.0, 4.0, 2.0], [2.0, 2.0, 2.0], [4.0, 1.0, 3.0], [3.0, 3.0, 1.0]]),
        np.array([5.0, 5.0, 4.0]),
    ),
}


@pytest.mark.parametrize("n", FRONTS)
def test_boxes_fill_what_the_front_does_not_dominate(n):
    front, reference = FRONTS[n]
    lows, highs = boxes(front, reference)
    size = np.prod(highs - np.maximum(lows, 0), axis=1).sum()
    whole = np.prod(reference)
    assert size == pytest.approx(whole - hypervolume(front, reference, (False,) * n))
    points = np.random.default_rng(0).uniform(0, reference, size=(300, n))
    inside = np.all((points[:, None] > lows) & (points[:, None] <= highs), axis=2).sum(axis=1)
    dominated = np.any(np.all(front <= points[:, None], axis=2), axis=1)
    assert np.array_equal(inside, np.where(dominated, 0, 1))


@pytest.mark.parametrize("n", FRONTS)
@pytest.mark.parametrize("is_log", [False, True])
def test_expected_improvement_is_the_mean_over_draws(n, is_log):
    front, reference = FRONTS[n]
    rng = np.random.default_rng(1)
    means = rng.uniform(0.2, 4.0, size=(4, n))
    sds = rng.uniform(0.1, 0.8, size=(4, n))
    if is_log:
        means = np.log(means)
    marginals = [Marginal(means[:, m], sds[:, m], is_log) for m in range(n)]
    found = expected_improvement(marginals, *boxes(front, reference))
    before = hypervolume(front, reference, (False,) * n)
    for candidate in range(4):
        draws = rng.normal(means[candidate], sds[candidate], size=(1500, n))
        draws = np.exp(draws) if is_log else draws
        gains = [
            hypervolume(np.vstack([front, draw]), reference, (False,) * n) - before
            for draw in draws
        ]
        error = np.std(gains) / np.sqrt(len(gains))
        assert found[candidate] == pytest.approx(np.mean(gains), abs=4 * error + 1e-6)


def test_an_empty_front_leaves_everything_below_the_reference():
    lows, highs = boxes(np.empty((0, 2)), np.array([1.0, 1.0]))
    gain = expected_improvement([Marginal(np.array([0.5]), np.array([1e-9]))] * 2, lows, highs)
    assert gain[0] == pytest.approx(0.25)
