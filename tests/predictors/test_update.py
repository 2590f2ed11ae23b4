"""Which predictor is believed as measurements arrive, on a made-up device."""

import numpy as np
import pytest
from record_fakes import DIGITS, SPACE, true_j

from predictors.energy.models import CostPredictor, Observation
from predictors.energy.update import updated
from search_spaces.space.sampling import sample


def observed(n, *, seed=0, noise=0.02, factor=1.0, joules=true_j):
    rng = np.random.default_rng(seed)
    models = [sample(SPACE, rng) for _ in range(n)]
    errors = np.exp(rng.normal(0, noise, n))
    return [
        Observation(m, DIGITS, factor * joules(m) * float(e), noise)
        for m, e in zip(models, errors, strict=True)
    ]


@pytest.fixture(scope="module")
def source():
    return CostPredictor.fit(observed(120))


def error(predictor, factor=1.0, joules=true_j):
    fresh = [o.architecture for o in observed(60, seed=99)]
    truth = factor * np.array([joules(m) for m in fresh])
    return float(np.median(np.abs(predictor.predict(fresh, DIGITS).mean / truth - 1)))


@pytest.mark.parametrize("n", [0, 1, 5, 24])
def test_a_predictor_that_is_right_is_kept(source, n):
    assert updated(source, observed(n, seed=1), is_same=True) is source


@pytest.mark.parametrize("n", [3, 12])
def test_one_that_is_off_becomes_the_prior_of_a_better_one(source, n):
    found = updated(source, observed(n, seed=1, factor=3.0), is_same=True)
    assert found.prior.source is source and found.n_records == n
    assert error(found, 3.0) < 0.15 < error(source, 3.0)


def test_another_devices_is_never_used_as_it_is(source):
    found = updated(source, [], is_same=False)
    assert found.prior.source is source
    predicted = found.predict([observed(1)[0].architecture], DIGITS)
    assert predicted.high[0] / predicted.low[0] > 50
    assert error(updated(source, observed(12, seed=1, factor=5.0), is_same=False), 5.0) < 0.1


def test_one_that_says_nothing_of_this_device_gives_way_to_one_of_its_own():
    def odd_j(architecture):
        # Nothing of it follows from what the source has seen.
        return float(np.random.default_rng(int(architecture.hash, 16)).lognormal(-11, 2))

    nonsense = CostPredictor.fit(observed(40, joules=odd_j))
    found = updated(nonsense, observed(24, seed=1, noise=0.01), is_same=True)
    assert found.prior.source is None and found.n_records == 24 and error(found) < 0.1
