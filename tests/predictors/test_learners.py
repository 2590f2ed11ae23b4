"""The parts of the predictor, each where its answer is known."""

import numpy as np
import pytest
from scipy.stats import norm

from predictors.energy.calibration import Conformal, calibrate, effective_rows
from predictors.energy.costs import equal_shares, fit_costs, scaled
from predictors.energy.design import choose_rows, design_features
from predictors.energy.learners.line import Line
from predictors.energy.learners.mixture import mixture
from predictors.energy.learners.process import Process, farthest_first
from predictors.energy.learners.relevance import RelevanceProcess
from predictors.energy.learners.ridge import QuadraticRidge, Ridge
from predictors.energy.learners.trees import Trees
from predictors.energy.regressor import CostRegressor, Standard, Terms, TrainingRows
from predictors.energy.transfer import group_sums, rows_to_adapt, transfer_terms

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((300, 6))
LEARNERS = [Ridge, QuadraticRidge, Trees, Process, Line, RelevanceProcess]


def fitted(kind, target, n=200, weight=None):
    weight = np.ones(n) if weight is None else weight
    return kind.fit(ROWS[:n], target[:n], weight, 0)


@pytest.mark.parametrize("kind", LEARNERS)
def test_every_learner_predicts_unseen_rows_of_what_it_can_express(kind):
    target = {
        Ridge: 2 * ROWS[:, 0] - ROWS[:, 3],
        QuadraticRidge: ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2] ** 2,
        Trees: np.where(ROWS[:, 0] > 0, 1.0, -1.0) + (ROWS[:, 1] > 0.5),
        Process: np.sin(ROWS[:, 0]) + ROWS[:, 1],
        Line: 5 + 2 * ROWS[:, 4] - ROWS[:, 1],
        RelevanceProcess: 5 + np.sin(2 * ROWS[:, 0]) + ROWS[:, 1],
    }[kind]
    predicted = fitted(kind, target).predict(ROWS[200:])
    explained = 1 - np.var(predicted - target[200:]) / np.var(target[200:])
    assert explained > 0.9


@pytest.mark.parametrize("kind", LEARNERS)
def test_arrays_hold_a_learner_to_the_bit(kind):
    learner = fitted(kind, ROWS[:, 0] ** 2 - ROWS[:, 1])
    again = kind(**vars(learner))
    np.testing.assert_array_equal(learner.predict(ROWS), again.predict(ROWS))


@pytest.mark.parametrize("kind", LEARNERS)
def test_rows_of_no_weight_teach_nothing(kind):
    target = ROWS[:, 0].copy()
    target[100:200] += 50
    weight = np.where(np.arange(200) < 100, 1.0, 1e-9)
    predicted = fitted(kind, target, weight=weight).predict(ROWS[200:])
    assert np.abs(np.mean(predicted - ROWS[200:, 0])) < 0.2


def test_a_line_takes_the_features_that_matter_and_no_others():
    line = fitted(Line, 5 + 2 * ROWS[:, 4] - ROWS[:, 1])
    np.testing.assert_allclose(line.coefficients, [5, 0, -1, 0, 0, 2, 0], atol=1e-9)
    noise = fitted(Line, RNG.standard_normal(300))
    assert np.count_nonzero(noise.coefficients[1:]) <= 1


def test_relevance_is_that_of_the_features_that_matter():
    learner = fitted(RelevanceProcess, np.sin(3 * ROWS[:, 2]))
    assert np.argmax(learner.relevance) == 2
    assert learner.relevance[2] > 3 * np.delete(learner.relevance, 2).max()


def test_a_mixture_weighs_what_predicts_and_keeps_to_the_simple_where_nothing_does():
    truth = ROWS[:60, 0]
    noise = RNG.standard_normal((4, 60))
    held_out = {"nothing": np.zeros(60), "line": 0.3 * noise[0], "trees": truth + 0.1 * noise[1]}
    weights = mixture(held_out, truth, np.ones(60), 0)
    assert weights["trees"] > 0.9 and abs(sum(weights.values()) - 1) < 1e-12
    useless = {"nothing": np.zeros(60), "line": noise[2], "trees": noise[3]}
    assert mixture(useless, truth, np.ones(60), 0)["nothing"] > 0.8


def test_a_features_products_are_a_quadratic_form():
    learner = fitted(QuadraticRidge, ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2])
    chosen = learner.chosen
    first, second = np.triu_indices(len(chosen))
    picked = ROWS[:, chosen]
    expanded = np.hstack([ROWS, picked[:, first] * picked[:, second]])
    coefficients = learner.coefficients
    by_hand = coefficients[0] + expanded @ coefficients[1:]
    np.testing.assert_allclose(learner.predict(ROWS), by_hand, atol=1e-9)


def test_the_processs_deviation_grows_away_from_its_rows():
    learner = fitted(Process, np.sin(ROWS[:, 0]))
    _, near = learner.predict_with_deviation(ROWS[:50])
    _, far = learner.predict_with_deviation(ROWS[:50] + 30)
    assert np.median(far) > 2 * np.median(near)


def test_a_sparse_process_is_close_to_the_exact_one(monkeypatch):
    target = np.sin(ROWS[:, 0]) + 0.5 * ROWS[:, 1]
    exact = fitted(Process, target, n=300)
    monkeypatch.setattr("predictors.energy.learners.process.MOST_EXACT", 200)
    monkeypatch.setattr("predictors.energy.learners.process.MOST_INDUCING", 150)
    sparse = fitted(Process, target, n=300)
    difference = exact.predict(ROWS) - sparse.predict(ROWS)
    assert np.std(difference) < 0.05 * np.std(target)


def test_farthest_first_begins_in_the_middle_and_covers():
    line = np.linspace(0, 1, 101)[:, None]
    order = farthest_first(line, 3)
    assert line[order[0], 0] == pytest.approx(0.5) and set(order[1:]) == {0, 100}


def test_trees_that_are_no_trees_are_refused():
    arrays = vars(fitted(Trees, ROWS[:, 0]))
    with pytest.raises(ValueError, match="leaves"):
        Trees(**arrays | {"leaf": arrays["leaf"][:, :3]})


# The prior.


def test_costs_are_found_and_outliers_do_not_move_them():
    terms = RNG.uniform(1, 10, (200, 3))
    truth = np.array([2.0, 0.0, 0.5])
    target = terms @ truth
    target[:30] *= 1.25
    costs = fit_costs(terms, target, np.full(200, 0.02), equal_shares(terms, target), pull=0.1)
    np.testing.assert_allclose(terms[30:] @ costs / target[30:], 1, atol=0.02)
    assert np.all(costs > 0), "no term is free, however little the rows say of it"


def test_what_no_row_shows_keeps_its_prior_proportion():
    terms = np.column_stack([RNG.uniform(1, 2, 50), np.zeros(50)])
    prior = np.array([1.0, 5.0])
    target = 3 * terms[:, 0]
    costs = fit_costs(terms, target, np.full(50, 0.01), scaled(prior, terms, target), pull=0.1)
    assert costs[0] == pytest.approx(3.0, rel=1e-3) and costs[1] == pytest.approx(15.0, rel=1e-2)


# Intervals.


def test_conformal_half_widths_are_order_statistics():
    conformal = Conformal(np.arange(1.0, 100.0), 99.0)
    assert conformal.half_width(0.9) == 90.0 and conformal.half_width(0.5) == 50.0
    # Of 14 the 13th would be too few: 0.9 of 15 places, not of 14.
    assert Conformal(np.arange(1.0, 15.0), 14.0).half_width(0.9) == 14.0


def test_too_few_rows_widen_beyond_the_largest_error_seen():
    # As of normal errors with this median, and a quarter more than the largest at least.
    assert Conformal(np.array([1.0, 2.0, 3.0]), 3.0).half_width(0.9) == pytest.approx(4.877, 1e-3)
    assert Conformal(np.array([1.0, 1.0, 9.0]), 3.0).half_width(0.9) == 11.25


def test_rows_of_a_job_that_errs_as_one_count_as_one():
    jobs = np.repeat(np.arange(20), 10)
    shared = np.repeat(np.exp(RNG.normal(0, 1, 20)), 10)
    assert effective_rows(shared, jobs) == pytest.approx(20, rel=0.01)
    alone = np.exp(RNG.normal(0, 1, 200))
    assert effective_rows(alone, jobs) > 120
    assert effective_rows(alone, np.arange(200)) == 200


def test_intervals_hold_on_jobs_that_were_never_seen():
    """Jobs shift all their labels: 90% intervals must know it from the held-out jobs."""
    inside, narrow = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((480, 4))
        terms = np.exp(features[:, :2])
        jobs = np.repeat(np.arange(24), 20)
        offset = rng.normal(0, 0.06, 24)[jobs]
        target = terms.sum(axis=1) * np.exp(offset + rng.normal(0, 0.01, 480))
        train = jobs < 12
        rows = TrainingRows(
            (Terms(terms[train]),), features[train], target[train], np.full(240, 0.01), jobs[train]
        )
        found = CostRegressor.fit(rows).predict(terms[~train], features[~train])
        inside += list((found.low <= target[~train]) & (target[~train] <= found.high))
        alone = CostRegressor.fit(
            TrainingRows(rows.terms, rows.features, rows.target, rows.relative_sd, np.arange(240))
        ).predict(terms[~train], features[~train])
        narrow += list((alone.low <= target[~train]) & (target[~train] <= alone.high))
    assert 0.84 <= np.mean(inside) <= 0.98
    assert np.mean(inside) >= np.mean(narrow), "grouping never narrows"


def test_calibrated_widths_of_gaussian_errors_are_gaussian():
    conformal = calibrate(np.abs(RNG.standard_normal(4000)), np.arange(4000))
    assert conformal.half_width(0.9) == pytest.approx(norm.ppf(0.95), rel=0.05)


# The regressor.


def rows_of(features, terms, target, sd=0.01):
    n = len(target)
    return TrainingRows((Terms(terms),), features, target, np.full(n, sd), np.arange(n))


def test_a_good_prior_is_left_alone_and_a_bad_one_corrected():
    features = RNG.standard_normal((200, 4))
    terms = np.exp(features[:, :2])
    noise = np.exp(RNG.normal(0, 0.02, 200))
    good = CostRegressor.fit(rows_of(features, terms, terms @ [1.0, 2.0] * noise))
    assert good.weights["nothing"] > 0.8
    curved = terms @ [1.0, 2.0] * np.exp(0.5 * np.sin(2 * features[:, 2])) * noise
    bad = CostRegressor.fit(rows_of(features, terms, curved))
    assert bad.weights["nothing"] < 0.2
    predicted = bad.predict(terms, features).mean
    assert np.mean(np.abs(predicted / curved - 1)) < 0.08


def test_the_terms_that_fit_are_chosen():
    features = RNG.standard_normal((120, 3))
    right, wrong = np.exp(features[:, :1]), np.exp(features[:, 1:2])
    target = 3 * right[:, 0] * np.exp(RNG.normal(0, 0.02, 120))
    rows = TrainingRows(
        (Terms(wrong), Terms(right)), features, target, np.full(120, 0.01), np.arange(120)
    )
    assert CostRegressor.fit(rows).choice == 1


def test_labels_with_more_noise_weigh_less():
    features = RNG.standard_normal((100, 3))
    terms = np.exp(features[:, :1])
    target = 2 * terms[:, 0]
    target[:40] *= 1.3
    sd = np.where(np.arange(100) < 40, 0.3, 0.01)
    rows = TrainingRows((Terms(terms),), features, target, sd, np.arange(100))
    predicted = CostRegressor.fit(rows).predict(terms[40:], features[40:]).mean
    np.testing.assert_allclose(predicted / target[40:], 1, atol=0.02)


def test_ten_rows_suffice_and_fewer_are_refused():
    features = RNG.standard_normal((10, 3))
    terms = np.exp(features[:, :2])
    rows = rows_of(features, terms, terms.sum(axis=1))
    assert CostRegressor.fit(rows).predict(terms, features).mean.shape == (10,)
    with pytest.raises(ValueError, match="10 or more, got 9"):
        CostRegressor.fit(rows.rows(np.arange(9)))


def test_outside_the_range_is_flagged_and_widened_with_distance():
    features = RNG.uniform(0, 1, (100, 2))
    terms = np.exp(features)
    noisy = terms.sum(axis=1) * np.exp(RNG.normal(0, 0.03, 100))
    model = CostRegressor.fit(rows_of(features, terms, noisy))
    asked = np.array([[0.5, 0.5], [1.5, 0.5], [5.0, 0.5]])
    found = model.predict(np.ones((3, 2)), asked)
    width = np.log(found.high / found.low)
    assert list(found.in_range) == [True, False, False]
    assert width[0] * 1.9 < width[1] < width[2]


def test_excess_is_in_ranges_of_the_worst_feature():
    standard = Standard.of(np.array([[0.0, 10.0], [2.0, 20.0]]))
    found = standard.excess(np.array([[1.0, 15.0], [3.0, 15.0], [1.0, 40.0]]))
    np.testing.assert_allclose(found, [0, 0.5, 2.0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": np.zeros((4, 1))}, "features must have 5 rows"),
        ({"target": np.array([1, 2, 3, 4, -1.0])}, "target must be finite and > 0"),
        ({"terms": ()}, "terms must be one or more"),
    ],
)
def test_wrong_rows_are_refused(change, words):
    rows = {
        "terms": (Terms(np.ones((5, 1))),),
        "features": np.zeros((5, 1)),
        "target": np.ones(5),
        "relative_sd": np.ones(5),
        "groups": np.arange(5),
    }
    with pytest.raises(ValueError, match=words):
        TrainingRows(**(rows | change))


# Transfer and design.


def test_twenty_chosen_rows_adapt_better_than_twenty_teach():
    rng = np.random.default_rng(5)
    features = rng.standard_normal((600, 13))
    # Terms of real models go together: which of them costs what takes many rows to tell.
    terms = np.exp(0.7 * features[:, :1] + 0.25 * features[:, 1:])
    costs = rng.uniform(0, 1, 12) ** 3
    noise = np.exp(rng.normal(0, 0.05, (2, 600)))
    first = terms @ costs * noise[0]
    # The second device is slower and its memory costs more beside computing.
    truth = terms @ (costs * np.repeat([2.0, 6.0], 6))
    second = truth * noise[1]
    source = CostRegressor.fit(rows_of(features, terms, first))
    prediction = source.predict(terms, features).mean
    groups = {"compute": range(6), "memory": range(6, 12)}
    prior = transfer_terms(terms, source.costs, prediction, groups)
    errors = {"adapted": [], "scratch 20": []}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(600)
        pool, test = order[:300], order[300:]

        def error(candidate, rows, test=test):
            model = CostRegressor.fit(
                TrainingRows(
                    (Terms(candidate.values[rows], candidate.prior, candidate.pull),),
                    features[rows],
                    second[rows],
                    np.full(len(rows), 0.02),
                    np.arange(len(rows)),
                )
            )
            found = model.predict(candidate.values[test], features[test])
            return np.mean(np.abs(found.mean / truth[test] - 1))

        chosen = pool[rows_to_adapt(terms[pool], prediction[pool], groups, 20)]
        errors["adapted"].append(error(prior, chosen))
        errors["scratch 20"].append(error(Terms(terms), pool[:20]))
    means = {name: np.mean(found) for name, found in errors.items()}
    assert means["adapted"] < 0.75 * means["scratch 20"]


def test_group_sums_are_sums():
    terms = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(
        group_sums(terms, {"a": (0, 1), "b": (3,)}), [[1, 3], [9, 7], [17, 11]]
    )
    assert group_sums(terms, {}).shape == (3, 0)


def test_chosen_rows_tell_more_than_random_ones():
    features = np.random.default_rng(3).standard_normal((400, 3))
    terms = np.exp(1.5 * features)
    design = design_features(terms, terms.sum(axis=1), None)

    def variance(rows):
        inside = np.linalg.inv(np.eye(design.shape[1]) + design[rows].T @ design[rows])
        return float(np.mean(np.einsum("ij,jk,ik->i", design, inside, design)))

    chosen = choose_rows(design, 12)
    assert len(set(chosen)) == 12
    random = [variance(np.random.default_rng(s).choice(400, 12, replace=False)) for s in range(50)]
    assert variance(chosen) < min(random)


def test_measured_rows_are_not_chosen_again_and_weights_matter():
    design = np.eye(6)
    assert choose_rows(design, 2, measured=(0, 1), weights_N=np.array([9, 9, 1, 5, 1, 4.0])) in (
        [3, 5],
        [5, 3],
    )
    with pytest.raises(ValueError, match="at most 4"):
        choose_rows(design, 5, measured=(0, 1))
