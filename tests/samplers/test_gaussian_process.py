"""The process: its gradient, what it learns of few rows, and what with_pending does."""

import numpy as np
import pytest

from nas.samplers.gaussian import GaussianModel, GaussianSurrogate, is_log_normal
from nas.samplers.gaussian_process import GaussianProcess, Hyperparameters, _loss
from nas.samplers.surrogate import Points


def rows(n, f, seed=0):
    return np.random.default_rng(seed).normal(size=(n, f))


def points(features):
    return Points(features, lambda: features)


def test_the_gradient_is_that_of_the_loss():
    x, rng = rows(12, 4), np.random.default_rng(1)
    y, noise = rng.normal(size=12), rng.uniform(0, 0.1, size=12)
    vector, expected = rng.normal(-0.5, 0.5, size=8), rng.normal(size=4)
    value, gradient = _loss(vector, x, y, noise, expected)
    for index in range(8):
        step = np.zeros(8)
        step[index] = 1e-5
        up, down = (
            _loss(vector + step, x, y, noise, expected)[0],
            _loss(vector - step, x, y, noise, expected)[0],
        )
        assert gradient[index] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-6)
    assert np.isfinite(value)


def test_products_of_features_are_learnt_from_few_rows():
    x, fresh = rows(40, 8), rows(200, 8, seed=1)

    def truth(points):
        # A cost: width times depth, beside what adds up.
        return (1.5 + points[:, 0]) * (1.5 + points[:, 1]) + points[:, 2]

    process = GaussianProcess.fit(x, truth(x), np.zeros(40))
    error = process.posterior(fresh).mean - truth(fresh)
    assert error.std() < 0.05 * truth(fresh).std()


def test_many_additive_features_are_learnt_from_few_rows():
    weights = np.linspace(-1, 1, 25)
    x, fresh = rows(40, 25), rows(200, 25, seed=1)
    process = GaussianProcess.fit(x, x @ weights, np.zeros(40))
    posterior = process.posterior(fresh)
    truth = fresh @ weights
    assert np.corrcoef(posterior.mean, truth)[0, 1] > 0.99
    covered = np.abs(posterior.mean - truth) < 2.6 * np.sqrt(posterior.variance)
    assert covered.mean() > 0.9


def test_features_that_do_not_matter_are_found_out():
    x, fresh = rows(60, 12), rows(200, 12, seed=1)
    process = GaussianProcess.fit(x, np.sin(2 * x[:, 3]), np.zeros(60))
    assert process.hyper.relevance.argmax() == 3
    error = process.posterior(fresh).mean - np.sin(2 * fresh[:, 3])
    assert np.sqrt((error**2).mean()) < 0.15


def test_noise_is_smoothed_away_known_or_not():
    x, rng = rows(150, 3), np.random.default_rng(1)
    truth = x[:, 0] + 0.5 * x[:, 1] ** 2
    noisy = truth + rng.normal(0, 0.5, size=150)
    for known in (np.zeros(150), np.full(150, 0.25)):
        smoothed = GaussianProcess.fit(x, noisy, known).smoothed()
        assert np.abs(smoothed - truth).mean() < 0.6 * np.abs(noisy - truth).mean()


def test_believing_narrows_as_measuring_there_would():
    x, fresh = rows(20, 3), rows(30, 3, seed=1)
    y = np.sin(x[:, 0])
    process = GaussianProcess.fit(x, y, np.zeros(20))
    posterior = process.posterior(fresh)
    before = posterior.mean.copy()
    posterior.condition(4)
    surrogate = GaussianSurrogate(process, False, False)
    again = surrogate.with_pending(points(fresh[4:5])).posterior(points(fresh))
    assert np.array_equal(posterior.mean, before)
    # Standardising with one label more scales by a little.
    assert np.allclose(posterior.variance, again.variance, rtol=0.3, atol=1e-6)
    assert np.allclose(before, again.mean, atol=0.05)


def test_labels_that_are_all_alike_are_no_trouble():
    x = rows(10, 2)
    posterior = GaussianProcess.fit(x, np.full(10, 3.0), np.zeros(10)).posterior(x)
    assert np.allclose(posterior.mean, 3.0)


def test_hyperparameters_are_read_back():
    hyper = Hyperparameters.from_vector(np.arange(6.0))
    assert np.array_equal(hyper.to_vector(), np.arange(6.0))


@pytest.mark.parametrize(
    ("losses", "is_log"),
    [
        (np.exp(np.linspace(-5, 5, 30)), True),
        (np.linspace(10, 12, 30), False),
        (np.linspace(-1, 5, 30), False),
        (np.full(5, 2.0), False),
    ],
)
def test_ratios_count_where_logarithms_look_normal(losses, is_log):
    assert is_log_normal(losses) is is_log


def test_the_worst_losses_say_bad_and_not_how_bad():
    x = rows(30, 2)
    losses = x[:, 0].copy()
    losses[0] = 1e9
    model = GaussianModel(may_be_log=False).fit(
        points(x), losses, np.zeros(30), is_due=True, is_exact=False
    )
    labels = model.process.labels
    assert labels.max() < 100
    assert np.allclose(labels[1:], losses[1:])
    alike = GaussianModel(may_be_log=False).fit(
        points(x), np.where(x[:, 0] > 1, 1.0, 0.0), np.zeros(30), is_due=True, is_exact=False
    )
    assert set(alike.process.labels.round(9)) == {0.0, 1.0}


def test_deviations_are_what_errors_turn_out_to_be():
    rng = np.random.default_rng(2)
    ratios = []
    for seed in range(8):
        x, fresh = rows(40, 12, seed=seed), rows(300, 12, seed=100 + seed)
        weights = rng.normal(size=12)

        def truth(points, weights=weights):
            return points @ weights + 0.3 * np.sin(2 * points[:, 0])

        posterior = GaussianProcess.fit(x, truth(x), np.zeros(40)).posterior(fresh)
        errors = (posterior.mean - truth(fresh)) / np.sqrt(posterior.variance)
        ratios.append(np.sqrt(np.mean(errors**2)))
    assert 0.6 < np.median(ratios) < 1.6


def test_left_one_out_is_what_leaving_one_out_gives():
    x, rng = rows(12, 3), np.random.default_rng(1)
    y = x[:, 0] + rng.normal(0, 0.1, size=12)
    whole = GaussianProcess.fit(x, y, np.zeros(12))
    squares = []
    for index in range(12):
        others = np.arange(12) != index
        # Centred and scaled as the whole is, so that only the row is missing.
        padded = y[others]
        process = GaussianProcess(x[others], padded, np.zeros(11), whole.hyper)
        process._mean, process._spread = whole._mean, whole._spread
        process._labels = (padded - whole._mean) / whole._spread
        process._alpha = np.linalg.solve(process._lower @ process._lower.T, process._labels)
        found = process.posterior(x[index : index + 1])
        noise = np.exp(whole.hyper.noise) * whole._spread**2
        squares.append((y[index] - found.mean[0]) ** 2 / (found.variance[0] + noise))
    assert whole.dispersion() == pytest.approx((sum(squares) + 5) / 17, rel=1e-3)


def test_where_losses_repeat_exactly_deviations_are_no_noise():
    x, rng = rows(60, 2), np.random.default_rng(3)
    losses = 3 + x[:, 0] + 0.3 * rng.standard_normal(60)
    fresh = points(rows(20, 2, seed=1))

    def fitted(*, is_exact):
        model = GaussianModel(may_be_log=False)
        return model.fit(points(x), losses, np.zeros(60), is_due=True, is_exact=is_exact)

    noisy, exact = fitted(is_exact=False), fitted(is_exact=True)
    assert exact.smoothed() == pytest.approx(losses)
    assert np.abs(noisy.smoothed() - losses).max() > 0.3
    more = exact.posterior(fresh).variance - noisy.posterior(fresh).variance
    assert more == pytest.approx(exact.process.noise_variance)
    assert 0.5 * 0.09 < more[0] < 2 * 0.09
    assert np.array_equal(exact.posterior(fresh).mean, noisy.posterior(fresh).mean)
