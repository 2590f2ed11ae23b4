"""Few members for a whole front, and lifetimes."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.pareto.comparison import compare_fronts
from nas.pareto.lifetime import lifetimes
from nas.pareto.queries import Front, FrontMember
from nas.pareto.spread import spread


def member(trial, quality, energy_j, train_energy_j=100.0):
    return FrontMember(
        trial,
        {},
        "a",
        quality,
        0.01,
        None,
        energy_j,
        energy_j * 0.9,
        energy_j * 1.1,
        "m",
        "s",
        False,
        "d",
        "w",
        10,
        train_energy_j=train_energy_j,
    )


def least_distance(rows, chosen):
    scaled = (rows - rows.min(axis=0)) / np.where(
        np.ptp(rows, axis=0) > 0, np.ptp(rows, axis=0), 1
    )
    return min(np.abs(scaled[i] - scaled[j]).max() for i, j in combinations(chosen, 2))


@given(st.integers(3, 9), st.integers(2, 5), st.integers(0, 2**31))
def test_two_objectives_are_spread_as_well_as_any_choice_can_be(n, k, seed):
    rng = np.random.default_rng(seed)
    rows = np.column_stack([np.sort(rng.random(n)), -np.sort(rng.random(n))])
    rows = rows[rng.permutation(n)]
    chosen = spread(rows, k)
    assert len(chosen) == len(set(chosen)) == min(n, k) and chosen == sorted(chosen)
    best = max(least_distance(rows, c) for c in combinations(range(n), min(n, k)))
    assert least_distance(rows, chosen) == pytest.approx(best)


def test_three_objectives_are_spread_at_least_half_as_well():
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows = rng.random((9, 3))
        best = max(least_distance(rows, c) for c in combinations(range(9), 4))
        assert least_distance(rows, spread(rows, 4)) >= best / 2


def test_few_members_hold_both_ends_and_one_is_the_recommended():
    front = Front.of(
        [
            member(i, a, 10.0**e)
            for i, (a, e) in enumerate(
                [(0.5, -6), (0.8, -5.8), (0.82, -5.7), (0.84, -5), (0.9, -4)]
            )
        ]
    )
    assert [m.trial for m in front.diverse(3)] == [0, 2, 4]
    assert [m.trial for m in front.diverse(1)] == [front.recommended().trial]
    assert len(front.diverse(9)) == 5
    with pytest.raises(ValueError, match="top must be >= 1"):
        front.diverse(0)
    with pytest.raises(ValueError, match="k must be >= 2"):
        spread([[0.0, 1.0]], 1)


def test_a_lifetime_is_training_once_and_every_inference():
    cheap_to_train, cheap_to_use = member(0, 0.8, 2e-3, 10.0), member(1, 0.9, 1e-3, 500.0)
    arguments = {"carbon_g_per_kwh": 360.0, "search_energy_j": 1000.0, "baseline_energy_j": 2e-3}
    few = lifetimes([cheap_to_train, cheap_to_use], inferences=1e5, **arguments)
    assert [x.trial for x in few] == [0, 1] and few[0].energy_j == pytest.approx(210.0)
    many = lifetimes([cheap_to_train, cheap_to_use], inferences=1e6, **arguments)
    assert [x.trial for x in many] == [1, 0] and many[0].use_energy_j == pytest.approx(1000.0)
    # 360 g a kWh is 1e-4 g a joule.
    assert many[0].carbon_g == pytest.approx(1500.0 * 1e-4)
    # The search is paid back by the joules saved, and never by a member that saves none.
    assert many[0].inferences_to_break_even == pytest.approx(1e6)
    assert many[1].inferences_to_break_even is None
    shared = lifetimes([cheap_to_use], inferences=1e5, shared_energy_j=7.0, **arguments)
    assert shared[0].training_energy_j == pytest.approx(507.0)
    for count in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="inferences must be finite and > 0"):
            lifetimes([cheap_to_use], inferences=count, **arguments)
    with pytest.raises(ValueError, match="training joules"):
        lifetimes([member(0, 0.5, 1.0, None)], inferences=1.0, **arguments)


def test_two_fronts_by_hand():
    a, b = [[1.0, 4.0], [3.0, 2.0]], [[2.0, 5.0], [3.0, 2.0], [4.0, 1.0]]
    found = compare_fronts(a, b, (5.0, 6.0))
    assert found.volumes == pytest.approx((2 * 2 + 2 * 4, 1 * 1 + 2 * 4 + 1 * 1 * 1))
    # (3, 2) is covered by its equal, which does not dominate it.
    assert found.coverage == pytest.approx((2 / 3, 1 / 2))
    assert found.dominated_a == ((), ()) and found.dominated_b == ((0,), (), ())
    own = compare_fronts(a, b)
    assert own.reference == pytest.approx((4 + 0.3, 5 + 0.4))
    assert compare_fronts(b, a).volumes == pytest.approx(own.volumes[::-1])
    with pytest.raises(ValueError, match="member to compare"):
        compare_fronts(np.empty((0, 2)), b)
    with pytest.raises(ValueError, match="same objectives"):
        compare_fronts([[1.0, 2.0, 3.0]], b)
