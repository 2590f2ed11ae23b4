"""What every energy predictor must do, whatever it was fitted to."""

import numpy as np
import pytest

from predictors.energy.models import CostPredictor, Observation
from search_spaces.cost.counting import count
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 128)
SPACE = PRESETS["digits-tiny"].restrict(precisions=("fp32", "bf16"), sparsities=("dense",))


def true_energy_j(architecture):
    """A made-up device: bf16 products cost half, and every layer has a fixed cost."""
    counts = count(architecture, DIGITS)
    macs = sum(b.macs * (0.5 if b.precision == "bf16" else 1.0) for b in counts.blocks)
    return 1e-10 * macs + 2e-6 * architecture.depth + 1e-6


def observations(n, seed=0, noise=0.02):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        architecture = sample(SPACE, rng)
        energy_j = true_energy_j(architecture) * float(np.exp(rng.normal(0, noise)))
        found.append(Observation(architecture, DIGITS, energy_j, noise))
    return found


@pytest.fixture(scope="module", params=[0, 3, 10, 80])
def fitted(request):
    return CostPredictor.fit(observations(request.param)), request.param


def test_predictions_are_ordered_finite_and_positive(fitted):
    predictor, n = fitted
    rng = np.random.default_rng(5)
    unseen = [sample(SPACE, rng) for _ in range(50)]
    prediction = predictor.predict(unseen, DIGITS)
    assert prediction.mean.shape == (50,)
    assert np.all(prediction.low > 0) and np.all(np.isfinite(prediction.high))
    assert np.all(prediction.low <= prediction.mean)
    assert np.all(prediction.mean <= prediction.high)
    assert predictor.n_records == n and str(n) in predictor.basis + "0"


def test_more_confidence_is_never_narrower(fitted):
    predictor, _ = fitted
    unseen = [o.architecture for o in observations(20, seed=9)]
    narrow, wide = (predictor.predict(unseen, DIGITS, c) for c in (0.5, 0.95))
    assert np.all(wide.high / wide.low >= narrow.high / narrow.low * (1 - 1e-9))


def test_the_same_rows_give_the_same_predictor(fitted):
    _, n = fitted
    unseen = [o.architecture for o in observations(5, seed=9)]
    first, second = (CostPredictor.fit(observations(n)).predict(unseen, DIGITS) for _ in range(2))
    np.testing.assert_array_equal(first.mean, second.mean)


def test_with_no_row_it_says_that_it_guesses():
    predictor = CostPredictor.fit([])
    assert "prior" in predictor.basis
    prediction = predictor.predict([observations(1)[0].architecture], DIGITS)
    assert prediction.high[0] / prediction.low[0] > 50
    assert not prediction.in_range[0]


def test_it_learns_what_the_device_does():
    predictor = CostPredictor.fit(observations(80))
    unseen = observations(200, seed=3)
    prediction = predictor.predict([o.architecture for o in unseen], DIGITS)
    truth = np.array([true_energy_j(o.architecture) for o in unseen])
    assert np.mean(np.abs(prediction.mean / truth - 1)) < 0.05


def test_ninety_percent_intervals_cover_about_ninety_percent():
    inside = []
    for seed in range(4):
        predictor = CostPredictor.fit(observations(60, seed=seed))
        unseen = observations(150, seed=100 + seed)
        prediction = predictor.predict([o.architecture for o in unseen], DIGITS, 0.9)
        labels = np.array([o.cost for o in unseen])
        inside += list((prediction.low <= labels) & (labels <= prediction.high))
    assert 0.84 <= np.mean(inside) <= 0.98


def test_outside_the_training_range_intervals_widen():
    small = [o for o in observations(120) if o.architecture.d_model <= 32]
    predictor = CostPredictor.fit(small)
    large = [o.architecture for o in observations(120) if o.architecture.d_model == 64]
    near = predictor.predict([o.architecture for o in small[:20]], DIGITS)
    far = predictor.predict(large, DIGITS)
    assert not far.in_range.any()
    width = [np.median(np.log(p.high / p.low)) for p in (far, near)]
    assert width[0] > 1.5 * width[1]


def test_nothing_to_predict_gives_nothing(fitted):
    assert fitted[0].predict([], DIGITS).mean.shape == (0,)


@pytest.mark.parametrize("confidence", [0, 1, -1, 2])
def test_a_wrong_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        CostPredictor.fit([]).predict([], DIGITS, confidence)


@pytest.mark.parametrize("energy_j", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_labels_are_refused(energy_j):
    with pytest.raises(ValueError, match="cost"):
        Observation(observations(1)[0].architecture, DIGITS, energy_j, 0.01)
