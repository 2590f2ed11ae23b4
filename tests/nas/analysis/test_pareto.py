from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.pareto.dominance import non_dominated_mask
from nas.pareto.hypervolume import (
    hypervolume,
    hypervolume_subset,
    reference_point,
    volume_losses,
    volume_values,
)
from nas.pareto.queries import Front, FrontMember
from nas.records.goals import Goals

# Few distinct values, so that ties and duplicates are common.
POINTS = st.integers(2, 4).flatmap(
    lambda m: arrays(
        np.float64,
        st.tuples(st.integers(0, 25), st.just(m)),
        elements=st.integers(0, 6).map(float),
    )
)


def dominates(a, b, maximize):
    better = [x > y if up else x < y for x, y, up in zip(a, b, maximize, strict=True)]
    return any(better) and not any(
        x < y if up else x > y for x, y, up in zip(a, b, maximize, strict=True)
    )


@given(POINTS, st.data())
def test_the_mask_is_the_definition(points, data):
    maximize = data.draw(st.tuples(*[st.booleans()] * points.shape[1]))
    expected = [not any(dominates(q, p, maximize) for q in points) for p in points]
    assert non_dominated_mask(points, maximize).tolist() == expected


@pytest.mark.parametrize(
    ("rows", "maximize", "expected"),
    [
        ([[1, 3], [2, 3], [0, 4]], (False, False), [True, False, True]),
        ([[1, 3], [1, 2], [2, 1], [2, 1]], (False, False), [False, True, True, True]),
        ([[1, 2, 3], [1, 2, 3], [1, 2, 4]], (False,) * 3, [True, True, False]),
        ([[0.9, 1], [0.8, 1]], (True, False), [True, False]),
    ],
    ids=["equal in one", "equal in the first", "equal in all", "more is better"],
)
def test_which_rows_are_dominated_by_hand(rows, maximize, expected):
    assert non_dominated_mask(rows, maximize).tolist() == expected


@given(POINTS)
def test_hypervolume_is_the_share_of_unit_cells(points):
    m = points.shape[1]
    # Points lie on a grid, so counting the cells up to 7 is exact.
    cells = np.stack(np.meshgrid(*[np.arange(7)] * m), axis=-1).reshape(-1, m)
    covered = np.zeros(len(cells), dtype=bool)
    for point in points:
        covered |= np.all(cells >= point, axis=1)
    assert hypervolume(points, [7.0] * m, [False] * m) == pytest.approx(covered.sum())


@given(POINTS, st.integers(1, 6))
def test_each_member_of_a_subset_adds_the_most_volume(points, most):
    m = points.shape[1]
    front = np.unique(points[non_dominated_mask(points, (False,) * m)], axis=0)
    reference = np.full(m, 7.0)
    chosen = hypervolume_subset(front, reference, most).tolist()
    assert len(set(chosen)) == len(chosen) == min(most, len(front))
    for n in range(1, len(chosen) + 1):
        volumes = [
            hypervolume(front[[*chosen[: n - 1], at]], reference, (False,) * m)
            for at in range(len(front))
        ]
        assert volumes[chosen[n - 1]] == max(volumes)


def test_a_subset_keeps_the_volume_that_even_steps_of_one_loss_lose():
    points = np.abs(np.random.default_rng(0).normal(size=(200, 4)))
    front = points / np.linalg.norm(points, axis=1)[:, None]
    reference = np.full(4, 1.1)

    def volume(positions):
        return hypervolume(front[positions], reference, (False,) * 4) / whole

    whole = hypervolume(front, reference, (False,) * 4)
    even = np.argsort(front[:, 0])[np.linspace(0, 199, 20).astype(int)]
    assert volume(hypervolume_subset(front, reference, 20)) > 0.85 > 0.7 > volume(even)


def test_objectives_come_back_from_the_losses_of_a_hypervolume():
    values = (0.875, 2e-5, 0.0125)
    (losses,) = volume_losses([values])
    assert losses == pytest.approx([0.125, np.log10(2e-5), np.log10(0.0125)])
    assert volume_values(losses) == pytest.approx(values)


def test_hypervolume_by_hand_with_a_maximised_objective():
    points = [[0.9, 2.0], [0.8, 1.0], [0.5, 3.0], [0.95, 9.0]]
    volume = hypervolume(points, reference=(0.5, 4.0), maximize=(True, False))
    assert volume == pytest.approx((0.9 - 0.5) * 2.0 + (0.8 - 0.5) * 1.0)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        non_dominated_mask([[0.5, float("nan")]], (True, False))


def member(trial, quality, energy_j):
    return FrontMember(
        trial=trial,
        architecture={},
        architecture_text=f"a{trial}",
        quality=quality,
        quality_se=0.01,
        test_quality=None,
        energy_j=energy_j,
        energy_low_j=energy_j * 0.9,
        energy_high_j=energy_j * 1.1,
        meter="fake",
        source="fake",
        is_estimate=False,
        device="d",
        workload="w",
        params=10,
    )


FRONT = Front.of(
    [member(0, 0.80, 1e-3), member(1, 0.95, 2e-3), member(2, 0.96, 8e-3), member(3, 0.90, 3e-3)]
)


def test_the_front_leaves_the_dominated_out_and_is_sorted_by_joules():
    assert [m.trial for m in FRONT] == [0, 1, 2]


@pytest.mark.parametrize(
    ("query", "trial"),
    [
        ({"max_joules": 2e-3}, 1),
        ({"max_joules": 1.9e-3}, 0),
        ({"min_quality": 0.9}, 1),
        ({"min_quality": 0.9, "max_joules": 1.0}, 2),
        ({}, 2),
    ],
)
def test_best(query, trial):
    assert FRONT.best(**query).trial == trial


def test_best_says_what_there_is_when_nothing_fits():
    with pytest.raises(ValueError, match=r"max_joules 500 µJ.*80.00% at 1 mJ"):
        FRONT.best(max_joules=5e-4)
    with pytest.raises(ValueError, match="no trial is complete"):
        Front(()).best()


def test_the_knee_is_where_quality_stops_paying():
    assert FRONT.knee().trial == 1


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0.5, 1.0)],
        [(0.5, 1.0), (0.9, 2.0)],
        # Straight, in joules and in their logarithm, and convex.
        [(0.5, 1.0), (0.6, 2.0), (0.7, 3.0), (0.8, 4.0)],
        [(0.5, 1.0), (0.6, 2.0), (0.7, 4.0), (0.8, 8.0)],
        [(0.5, 1.0), (0.52, 2.0), (0.6, 4.0), (0.9, 8.0)],
        # Hardly above the line, and above it by less than the standard error of 1%.
        [(0.5, 1.0), (0.61, 2.0), (0.71, 4.0), (0.8, 8.0)],
        [(0.500, 1.0), (0.508, 2.0), (0.509, 4.0), (0.510, 8.0)],
    ],
)
def test_a_front_without_a_knee_has_none(points):
    front = Front.of([member(i, a, j) for i, (a, j) in enumerate(points)])
    assert len(front) == len(points) and front.knee() is None


def test_a_knee_is_sought_in_the_metrics_own_unit():
    # Straight in bits per byte and the logarithm of joules, not in shares.
    bits = {0: 4.0, 1: 3.0, 2: 2.0, 3: 1.0}
    straight = [
        replace(member(i, 2.0**-b, 2.0**i), score=b, score_se=0.01) for i, b in bits.items()
    ]
    assert Front.of(straight).knee() is None
    bent = [replace(m, score=b) for m, b in zip(straight, (4.0, 2.0, 1.9, 1.8), strict=True)]
    assert Front.of(bent).knee().trial == 1


@pytest.mark.parametrize(
    ("errors", "trial"),
    [
        # The best is 0.96, of trial 2: within 0.011 of it lies 0.95, within 0.17 0.80 too.
        ({2: 0.011}, 1),
        ({2: 0.17}, 0),
        ({2: 0.009}, 2),
        # Errors of others do not count, and without any the best is recommended.
        ({1: 0.5, 0: 0.5, 2: 0.0}, 2),
        ({2: float("nan")}, 2),
        ({2: None}, 2),
    ],
)
def test_the_cheapest_within_one_standard_error_of_the_best_is_recommended(errors, trial):
    members = [replace(m, quality_se=errors.get(m.trial, m.quality_se)) for m in FRONT]
    assert Front(tuple(members)).recommended().trial == trial


def test_joules_decide_what_is_recommended_of_three_objectives_too():
    costs = [replace(m, latency_s=1.0 / (m.trial + 1)) for m in FRONT]
    front = Front.of([*costs, replace(member(7, 0.955, 3e-3), latency_s=0.01)], ("latency",))
    assert [m.trial for m in front] == [0, 1, 7, 2]
    assert front.recommended().trial == 1
    assert front.within(max_joules=1.5e-3).recommended().trial == 0
    with pytest.raises(ValueError, match="no trial is complete"):
        Front(()).recommended()


@pytest.mark.parametrize("budget", ["2mJ", "2 mJ", "0.002", "2000µJ", "2,000 μJ", 2e-3])
def test_budgets_are_read_as_tables_print_them(budget):
    assert FRONT.best(max_joules=budget).trial == 1
    assert len(FRONT.within(max_joules=budget)) == 2


@pytest.mark.parametrize(
    ("metric", "least", "trial"),
    [
        ("accuracy", "95%", 1),
        ("accuracy", "0.95", 1),
        ("bleu", "95", 1),
        ("bleu", "95 BLEU", 1),
        ("bits_per_byte", "0.075 bits", 1),
        ("bits_per_byte", "0.073", 2),
    ],
)
def test_least_qualities_are_read_as_tables_print_them(metric, least, trial):
    front = Front(tuple(replace(m, metric=metric) for m in FRONT))
    assert front.best(min_quality=least).trial == trial


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"max_joules": "2 apples"}, "max_joules must be a number > 0 in J, .*'2 apples'"),
        ({"max_joules": "-2mJ"}, "max_joules must be"),
        ({"min_quality": "84"}, r"min_quality must be .*84%.*, got '84'"),
        ({"min_quality": "2 bits"}, "min_quality must be"),
        ({"max_joules": -1.0}, "max_joules must be a number > 0 in J, .*got -1.0"),
        ({"max_joules": float("nan")}, "max_joules must be"),
        ({"max_joules": float("inf")}, "max_joules must be"),
        ({"max_joules": 10**400}, "max_joules must be"),
        ({"max_joules": True}, "max_joules must be"),
        ({"max_joules": [1]}, "max_joules must be"),
        ({"min_quality": 84}, r"min_quality must be .*84%.*, got 84"),
        ({"min_quality": -0.5}, "min_quality must be"),
        ({"min_quality": float("nan")}, "min_quality must be"),
        ({"min_quality": 10**400}, "min_quality must be"),
        ({"min_quality": True}, "min_quality must be"),
    ],
)
def test_what_is_no_such_figure_is_refused(query, words):
    with pytest.raises(ValueError, match=words):
        FRONT.best(**query)
    with pytest.raises(ValueError, match=words):
        FRONT.within(**query)


def test_what_a_front_spans_is_told_in_the_metrics_own_unit():
    front = Front(tuple(replace(m, metric="bleu") for m in FRONT))
    with pytest.raises(
        ValueError, match=r"min_quality 99.00 \(BLEU\): .* 80.00 at 1 mJ to 96.00 at"
    ):
        front.best(min_quality="99 BLEU")


@pytest.mark.parametrize("name", ["max_joules", "max_latency_s", "max_params", "max_memory_bytes"])
@pytest.mark.parametrize("value", [True, [1], -1, float("nan"), float("inf"), {}])
def test_limits_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        Goals(**{name: value})


def test_the_default_reference_point_lies_a_tenth_of_the_extent_beyond_the_front():
    front = np.array([[1.0, 20.0], [3.0, 10.0]])
    assert reference_point(front) == pytest.approx([3.2, 21.0])
    one = np.array([[1.0, 20.0]])
    seen = np.array([[1.0, 20.0], [5.0, 20.0]])
    assert reference_point(one, seen) == pytest.approx([1.4, 20.1])
    assert reference_point(one) == pytest.approx([1.1, 20.1])
