"""Rows stay within their domains whatever is done to them."""

import numpy as np
import pytest

from nas.samplers.activity import Activity
from nas.samplers.features import Features
from nas.samplers.parameters import Parameter, Parameters, keys, numeric_scale

MIXED = Parameters(
    (
        Parameter("rate", None),
        Parameter("kind", 3),
        Parameter("width", 4, numeric_scale([8, 16, 32, 64])),
        Parameter("flag", 2),
        Parameter("only", 1),
    )
)


def in_domain(rows):
    limits = np.array([1.0, 2, 3, 1, 0])
    return bool(np.all(rows >= 0) and np.all(rows <= limits) and np.all(rows[:, 1:] % 1 == 0))


def test_random_mutated_and_crossed_rows_are_in_the_domain():
    rng = np.random.default_rng(0)
    rows = MIXED.random(500, rng)
    assert in_domain(rows)
    mutated = MIXED.mutated(rows, rng)
    assert in_domain(mutated)
    # A change may draw the old value again, but most change something, and few change much.
    changed = (mutated != rows).sum(axis=1)
    assert (changed > 0).mean() > 0.6 and np.median(changed) <= 2
    crossed = MIXED.crossed(rows[:250], rows[250:], rng)
    assert in_domain(crossed)
    assert np.all((crossed == rows[:250]) | (crossed == rows[250:]))


def test_absent_values_are_taken_from_the_other_parent_or_filled():
    rng = np.random.default_rng(0)
    rows = MIXED.random(40, rng)
    holed = rows.copy()
    holed[:, 2] = np.nan
    assert np.array_equal(MIXED.crossed(holed, rows, rng)[:, 2], rows[:, 2])
    assert in_domain(MIXED.filled(holed, rng))


def test_every_row_of_a_finite_space_is_listed_once():
    finite = Parameters(MIXED.columns[1:])
    assert finite.size == 24 and MIXED.size == np.inf
    assert len(set(keys(finite.all_rows()))) == 24


def test_corners_are_the_least_and_the_greatest():
    low, high = MIXED.corners()
    assert (low[0], low[2], high[0], high[2]) == (0, 0, 1, 3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], (0, 0.5, 1)),
        ([1, 4, 16], (0, 0.5, 1)),
        ([16, 4, 1], (1, 0.5, 0)),
        (["a", "b", "c"], None),
        ([None, 0.5, 0.25], None),
        ([True, False, 2], None),
        ([1, 2], None),
        ([1, 2, float("nan")], None),
    ],
)
def test_numbers_have_a_scale_and_others_do_not(values, expected):
    assert numeric_scale(values) == (None if expected is None else pytest.approx(expected))


def layered(depths):
    """Rows of a depth and three widths, of which the first ``depth`` exist."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([depths, rng.integers(0, 3, size=(len(depths), 3))]).astype(float)
    for row in rows:
        row[2 + int(row[0]) :] = np.nan
    return rows


LAYERED = Parameters(
    (
        Parameter("depth", 3, (0.0, 0.5, 1.0)),
        *(Parameter(f"layer{i}.width", 3, (0.0, 0.5, 1.0)) for i in range(3)),
    )
)


def test_conditions_are_learnt_from_what_is_absent():
    rows = layered([0, 1, 2, 0, 1, 2])
    activity = Activity.learn(rows, LAYERED)
    whole = np.where(np.isnan(rows), 1.0, rows)
    assert np.array_equal(activity.apply(whole), rows, equal_nan=True)


def test_what_no_condition_explains_stays_as_it_is():
    rows = np.array([[2, np.nan, 1, 0], [2, 1, 1, 0]])
    assert Activity.learn(rows, LAYERED) == Activity()


def test_a_series_is_summed_up_over_the_layers_that_exist():
    reference = Activity.learn(layered([0, 1, 2] * 4), LAYERED).apply(
        LAYERED.random(500, np.random.default_rng(0))
    )
    features = Features(LAYERED, reference)
    # One layer of width 2 and three of width 2 have the same mean; layers of 0 and 2 do not.
    one, three, other = features(
        np.array([[0, 2, np.nan, np.nan], [2, 2, 2, 2], [2, 0, 2, 2]], dtype=float)
    )
    mean, slope = 8, 10
    assert one[mean] == pytest.approx(three[mean])
    assert other[mean] < three[mean]
    assert three[slope] == pytest.approx(features(np.array([[2.0, 1, 1, 1]]))[0][slope])
    assert other[slope] > three[slope]


def test_a_best_value_inside_is_seen_by_what_is_not_linear():
    one = Parameters((Parameter("width", 4, numeric_scale([8, 16, 32, 64])),))
    rows = one.all_rows()
    linear, bent = Features(one, rows)(rows).T
    assert abs(linear @ bent) < 1e-9
    assert np.allclose(bent, bent[::-1]) and bent[1] < bent[0]


def test_features_are_standard_and_constant_ones_are_left_out():
    reference = MIXED.random(2000, np.random.default_rng(0))
    values = Features(MIXED, reference)(reference)
    assert values.shape == (2000, 2 + 3 + 2 + 1)
    assert np.allclose(values.mean(axis=0), 0) and np.allclose(values.std(axis=0), 1)
    extra = Features(MIXED, reference, lambda rows: rows[:, :1] * 5)(reference)
    assert extra.shape == (2000, 9)
    assert np.allclose(extra[:, -1], extra[:, 0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Parameter("x", 0), "n_choices of x must be >= 1, got 0"),
        (lambda: Parameter("x", 3, (0.0, 1.0)), "scale of x must have 3 values, got 2"),
    ],
)
def test_impossible_parameters_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_rows_of_many_columns_are_all_there_in_order():
    # As many as an encoder-decoder has genes, most of them with one value.
    two, one = Parameter("two", 2), Parameter("one", 1)
    rows = Parameters((two, *[one] * 40, two)).all_rows()
    assert rows[:, [0, -1]].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert not rows[:, 1:-1].any()
