"""Estimates: their interval, and the exact ones of a share and of a median."""

import numpy as np
import pytest
from scipy.stats import beta

from nas.core.estimate import Estimate


@pytest.mark.parametrize(
    ("mean", "low", "high"), [(2.0, 2.1, 3.0), (2.0, 1.0, 1.9), (float("nan"), 1.0, 2.0)]
)
def test_an_interval_must_contain_its_mean(mean, low, high):
    with pytest.raises(ValueError, match="low <= mean <= high"):
        Estimate(mean, low, high, "measured")


def test_what_lies_in_the_interval_is_in_the_estimate():
    found = Estimate(2.0, 1.0, float("inf"), "predicted")
    assert 1.0 in found and 1e9 in found and 0.9 not in found


@pytest.mark.parametrize("n", [1, 7, 40])
def test_a_share_has_clopper_and_pearsons_interval(n):
    for k in range(n + 1):
        found = Estimate.of_share(k, n)
        assert found.mean == k / n
        assert found.low == pytest.approx(beta.ppf(0.025, k, n - k + 1) if k else 0.0)
        assert found.high == pytest.approx(beta.ppf(0.975, k + 1, n - k) if k < n else 1.0)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_a_share_of_nothing_is_refused(k, n):
    with pytest.raises(ValueError):
        Estimate.of_share(k, n)


def test_median_interval_covers_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for n in (6, 9, 15):
        inside = 0
        for _ in range(2000):
            # Lopsided draws: a normal interval would miss this median.
            inside += np.log(2) in Estimate.of_median(list(rng.exponential(1.0, n)))
        assert inside / 2000 >= 0.94


def test_fewer_than_six_repeats_have_no_interval():
    with pytest.raises(ValueError, match="6 or more"):
        Estimate.of_median([1.0] * 5)
