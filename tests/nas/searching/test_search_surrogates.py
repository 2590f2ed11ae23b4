"""Gate and sampler predict by the same surrogates of architectures."""

import numpy as np
import pytest
from search_fakes import SPACE, WORKLOAD, finished, make_trial, reading, truth

from nas.records.goals import Goals
from nas.samplers.surrogate import Points
from nas.searching.controller.loss_models import loss_models
from nas.searching.gating.architecture_features import ArchitectureFeatures
from nas.searching.gating.architecture_process import ArchitectureProcess, LogLabel
from nas.searching.gating.surrogates import ArchitectureSurrogates
from predictors.energy.models import Observation
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.sampling import sample, sample_positions

LAYERED = SearchSpace.from_dict(
    {"name": "layered", "d_model": [16, 32, 64], "depth": [2, 3, 4], "n_heads": [1, 2, 4]}
    | {"n_kv_heads": [1], "ffn_ratio": [1, 2, 4], "patch_size": [2, 4], "shared": []}
)


def members(n, seed=0, space=SPACE):
    rng = np.random.default_rng(seed)
    return [sample(space, rng) for _ in range(n)]


def trials(n):
    return [finished(make_trial(i, "running", a)) for i, a in enumerate(members(n))]


def surrogates_of(n, goals=None):
    surrogates = ArchitectureSurrogates(WORKLOAD, goals=goals, seed=0)
    surrogates.refit(trials(n))
    return surrogates


def points_of(n=40, seed=1):
    rows = sample_positions(SPACE, n, np.random.default_rng(seed))
    return Points(rows.astype(float), lambda: rows)


def batch_of(rows):
    return ArchitectureBatch.from_positions(rows.astype(np.int64), SPACE)


def fitted(surrogates, points):
    models = loss_models(surrogates, batch_of)
    labels = np.zeros(len(points))
    fit = [m.fit(points, labels, labels, is_due=True, is_exact=False) for m in models.objectives]
    limits = {
        name: model.fit(points, labels, labels, is_due=True, is_exact=False)
        for name, model in models.constraints.items()
    }
    return fit, limits


def test_the_acquisition_has_the_means_that_the_gate_decides_by():
    surrogates, points = surrogates_of(40), points_of()
    (error, joules), _ = fitted(surrogates, points)
    predicted = surrogates.predict(batch_of(points.rows), 0.9)
    assert np.allclose(np.exp(error.mean(points)), 1 - predicted.quality.mean)
    assert np.allclose(np.exp(joules.mean(points)), predicted.energy_j.mean)
    assert np.allclose(error.smoothed(), 1 - predicted.quality.mean)
    assert error.is_log and not joules.is_log


def test_a_trial_conditions_both_before_the_next_fit():
    surrogates = surrogates_of(40)
    n_fits, (batch, before) = surrogates.n_fits, (ArchitectureBatch.of(members(41)[-1:]), [])
    for _ in range(2):
        (error, joules), _ = fitted(surrogates, points_of())
        own = Points(np.empty((1, 0)), lambda: np.empty((1, 0)))
        before.append(
            [
                s.process.posterior(m.features(batch)).variance[0]
                for s, m in ((error, surrogates.log_error), (joules, surrogates.log_energy))
            ]
        )
        assert len(own) == 1
        surrogates.add(trials(41)[-1], lambda: trials(41))
    assert surrogates.n_fits == n_fits
    assert np.all(np.array(before[1]) < 0.9 * np.array(before[0]))


def test_limits_are_held_by_the_predictions_of_joules_and_latency():
    goals = Goals(("latency", "params"), max_joules=2e-5, max_latency_s=1e-3)
    surrogates, points = surrogates_of(30, goals), points_of()
    objectives, limits = fitted(surrogates, points)
    batch = batch_of(points.rows)
    latency_s = surrogates.latency_s(batch, 0.9).mean
    assert np.allclose(np.exp(objectives[2].mean(points)), latency_s)
    counted = goals.counted(batch, WORKLOAD)["params"]
    assert np.allclose(np.exp(objectives[3].mean(points)), counted)
    assert np.all(objectives[3].posterior(points).variance <= 1e-12)
    energy_j = surrogates.energy_j(batch, 0.9).mean
    assert np.allclose(limits["max_joules"].mean(points), np.log(energy_j / 2e-5))
    assert np.allclose(limits["max_latency_s"].mean(points), np.log(latency_s / 1e-3))


def test_measurements_of_untrained_architectures_make_a_fit_due():
    surrogates = ArchitectureSurrogates(WORKLOAD, seed=0)
    fresh = members(30, seed=5)
    truths = np.array([truth(a)[1] for a in fresh])
    stated = surrogates.predict(ArchitectureBatch.of(fresh), 0.9)
    assert surrogates.n_prior_energy == 0 and stated.quality is None
    labels = [
        Observation.of_energy(a, WORKLOAD, reading(truth(a)[1])) for a in members(20, seed=6)
    ]
    surrogates.add_observations(labels)
    assert surrogates.n_fits == 0 and surrogates.n_prior_energy == 20
    energy_j = surrogates.energy_j(ArchitectureBatch.of(fresh), 0.9)
    assert surrogates.n_fits == 1
    error = np.median(np.abs(energy_j.mean / truths - 1))
    assert error < 0.1 < np.median(np.abs(stated.energy_j.mean / truths - 1))
    surrogates.energy_j(ArchitectureBatch.of(fresh), 0.9)
    assert surrogates.n_fits == 1


def test_before_ten_labels_the_predictor_serves_without_covariances():
    surrogates, points = surrogates_of(6), points_of()
    (_, joules), _ = fitted(surrogates, points)
    posterior = joules.posterior(points)
    low_high = surrogates.energy_j(batch_of(points.rows), 0.9)
    assert np.allclose(posterior.variance, low_high.log_sd(0.9) ** 2)
    before = posterior.variance.copy()
    posterior.condition(3)
    assert posterior.variance[3] < 1e-9
    assert np.array_equal(np.delete(posterior.variance, 3), np.delete(before, 3))
    assert joules.with_pending(points) is joules


def test_a_sampler_without_labels_of_quality_is_refused():
    with pytest.raises(ValueError, match="must have two labels or more"):
        fitted(ArchitectureSurrogates(WORKLOAD, seed=0), points_of())


def test_features_tell_in_which_layer_a_choice_was_made():
    many = members(60, space=LAYERED)
    features = ArchitectureFeatures.of(ArchitectureBatch.of(many), WORKLOAD)
    values = features(ArchitectureBatch.of(many))
    assert values.shape[1] == len(features.expected)
    assert np.linalg.matrix_rank(values) > 20
    assert "ffn ratio" in features.choices and "attention groups" in features.choices
    assert "ffn rank" not in features.choices, "it is the same everywhere"
    # One architecture alone has the features that it has among others.
    assert np.allclose(features(ArchitectureBatch.of(many[7:8])), values[7:8])


def test_a_prior_of_the_right_shape_teaches_with_few_labels():
    few, fresh = members(12, seed=2, space=LAYERED), members(60, seed=3, space=LAYERED)

    def log_cost(batch):
        return 2.0 * np.log(batch.d_model) + np.sin(3.0 * batch.depth)

    batch = ArchitectureBatch.of(few)
    labels = [LogLabel(a, float(v), 1e-6) for a, v in zip(few, log_cost(batch), strict=True)]
    errors = []
    for prior in (None, log_cost):
        process = ArchitectureProcess(WORKLOAD)
        process.fit(labels, prior)
        truths = log_cost(ArchitectureBatch.of(fresh))
        predicted = process.predict(ArchitectureBatch.of(fresh), 0.9)
        errors.append(np.sqrt(np.mean((np.log(predicted.mean) - truths) ** 2)))
    assert errors[1] < errors[0] + 1e-9 and errors[1] < 0.2
