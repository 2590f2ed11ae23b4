"""The gate's probability, against drawing candidates and looking."""

from dataclasses import replace

import numpy as np
import pytest
from search_fakes import SPACE, WORKLOAD, changed, finished, make_trial, reading

from nas.pareto.uncertainty import NoisyFront, true_deviations
from nas.records.config import GateConfig
from nas.records.goals import Goals
from nas.searching.gating.gate import CandidatePool, Gate, audit_summary
from nas.searching.gating.noisy_losses import label_deviations, log_losses, log_predictions
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.searching.gating.warm_start_data import QualityLabel, WarmStartData
from predictors.energy.models import Observation
from search_spaces.space.sampling import sample

FRONT = np.array([[0.80, 1e-6], [0.90, 3e-6], [0.95, 9e-6], [0.85, 8e-6]])


@pytest.mark.parametrize(
    ("error", "energy_j", "sd"), [(0.12, 2e-6, 0.3), (0.04, 2e-5, 0.2), (0.3, 5e-6, 0.1)]
)
def test_it_is_the_share_of_draws_that_nothing_dominates(error, energy_j, sd):
    rng = np.random.default_rng(0)
    errors = error * np.exp(rng.normal(0, sd, 40_000))
    joules = energy_j * np.exp(rng.normal(0, sd, 40_000))
    beaten = (FRONT[:, 0] >= 1 - errors[:, None]) & (FRONT[:, 1] <= joules[:, None])
    losses = np.log(np.column_stack([1 - FRONT[:, 0], FRONT[:, 1]]))
    front = NoisyFront(losses, np.zeros_like(losses))
    found = front.probabilities(np.log([[error, energy_j]]), np.full((1, 2), sd))
    assert found[0] == pytest.approx(1 - beaten.any(axis=1).mean(), abs=0.01)


def trials(n):
    rng = np.random.default_rng(1)
    return [finished(make_trial(number, "running", sample(SPACE, rng))) for number in range(n)]


def test_what_it_suggests_is_new_and_likelier_than_most():
    pool = CandidatePool.sample(SPACE, 0, 200)
    gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0), GateConfig(), pool=pool)
    assert gate.suggest(set()) is None, "nothing is known yet"
    gate.refit(trials(40))
    first = gate.suggest(set())
    second = gate.suggest({first.hash})
    assert second != first
    members = [pool.member(i) for i in range(len(pool.batch))]
    chances = gate.front_probabilities(members)
    assert gate.front_probabilities([first])[0] == pytest.approx(chances.max())
    assert gate.front_probabilities([first])[0] > np.median(chances)


def test_a_pool_only_ever_lower_a_chance():
    fresh = [r.architecture for r in trials(120)[40:]]
    chances = []
    for pool in (None, CandidatePool.sample(SPACE, 0, 500)):
        gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0), GateConfig(0.9), pool=pool)
        gate.refit(trials(40))
        chances.append(gate.front_probabilities(fresh))
    alone, beside = chances
    assert np.all(beside <= alone + 1e-9)
    assert np.max(alone - beside) > 0.03, "they are seen where they matter"


FRESH = [r.architecture for r in trials(120)[40:]]


def gate_of(n, *, goals=None, seed=0, **config):
    gate = Gate(ArchitectureSurrogates(WORKLOAD, goals=goals, seed=seed), GateConfig(**config))
    gate.refit(trials(n))
    return gate


def test_a_candidate_is_dropped_exactly_where_its_chance_is_below_what_is_allowed():
    gate = gate_of(40, confidence=0.7)
    chances = gate.front_probabilities(FRESH)
    assert np.any((chances > 0.15) & (chances < 0.3))
    dropped = [gate.judge(architecture).reason is not None for architecture in FRESH]
    assert dropped == list(chances < 1 - 0.7)


def test_only_the_optimistic_end_of_joules_is_held_to_a_budget():
    energy_j = gate_of(40).judge(FRESH[0]).energy_j
    for share, is_over in ((0.99, True), (1.01, False)):
        gate = gate_of(40, goals=Goals(max_joules=share * energy_j.low))
        reason = gate.judge(FRESH[0]).reason or ""
        assert reason.startswith("at least") == is_over
    assert 1.01 * energy_j.low < energy_j.mean


@pytest.mark.parametrize(("n", "decides"), [(39, False), (40, True)])
def test_it_decides_from_its_last_startup_trial_on(n, decides):
    gate = gate_of(n, startup_trials=40, confidence=0.8)
    assert any(gate.judge(architecture).reason for architecture in FRESH) == decides


@pytest.mark.parametrize(("fit_share", "n_fits"), [(None, 30), (0.1, 4)])
def test_fitting_takes_at_most_its_share_of_the_time(monkeypatch, fit_share, n_fits):
    """Each trial takes a second and each fit of the models as long."""
    now_s, fits = [0.0], []
    monkeypatch.setattr("nas.searching.gating.surrogates.time.perf_counter", lambda: now_s[0])
    surrogates = ArchitectureSurrogates(WORKLOAD, seed=0, fit_share=fit_share)

    def fit(trials):
        surrogates._n_fitted = 0
        fits.append(len(trials))
        now_s[0] += 1.0

    monkeypatch.setattr(surrogates, "_fit_models", fit)
    records = trials(30)
    for n, record in enumerate(records, start=1):
        now_s[0] += 1.0
        surrogates.add(record, lambda n=n: records[:n])
    assert len(fits) == n_fits and fits[0] == 1


def test_a_finalist_neither_is_audited_nor_makes_a_drop_right():
    audited = finished(make_trial(0, "running", FRESH[0], audit=True))
    better = changed(audited, number=1, audit=False, finalist_of=0, quality=0.999)
    summary = audit_summary([audited, better])
    assert (summary.n_audited, summary.n_false) == (1, 1)


def test_a_member_of_the_front_that_costs_the_same_may_dominate():
    gate = gate_of(40, goals=Goals(costs=("params",)))
    front = [r for r in trials(40) if r.number in gate.front_numbers]
    cheapest = min(front, key=lambda r: r.params)
    assert gate.front_probabilities([cheapest.architecture])[0] < 1


def test_members_of_the_pool_count_one_deviation_worse_than_predicted():
    """Or the front of many predictions would be one of lucky ones."""
    pool = CandidatePool.sample(SPACE, 0, 100)
    gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0), GateConfig(0.9), pool=pool)
    gate.refit(trials(40))
    gate.front_probabilities(FRESH)
    quality = gate.surrogates.quality(pool.batch, 0.9)
    energy_j = gate.surrogates.energy_j(pool.batch, 0.9)
    mean, label_sd = log_predictions(quality, energy_j, 0.9)
    worse = mean + true_deviations(label_sd, np.median(label_deviations(trials(40)), axis=0))
    front = gate._rivals.front
    points = front._mean[front._variance[:, 1] == 0]
    assert len(points) > 3 and all(np.isclose(worse, p).all(axis=1).any() for p in points)


def with_readings(trial, energy_j, half_width):
    """The trial with these joules, whose reading states this relative half-width."""
    span = {"low_j": energy_j * (1 - half_width), "high_j": energy_j * (1 + half_width)}
    return changed(trial, reading=replace(reading(energy_j), **span))


def noisy(records, noise, seed=0):
    """Trials whose joules have an error of ``noise``, which their readings state."""
    rng = np.random.default_rng(seed)
    factors = np.exp(rng.normal(0, noise, len(records)))
    return [
        with_readings(r, r.reading.energy_j * factor, min(0.9, 1.96 * noise))
        for r, factor in zip(records, factors, strict=True)
    ]


@pytest.mark.parametrize(("half_width", "share"), [(0.001, 0.65), (0.3, 1.0)])
def test_candidates_are_judged_against_joules_without_luck(half_width, share):
    """A label is 40% too low; where the reading states such errors, predictions count for more."""
    records, n = trials(60), 7
    true_j = records[n].reading.energy_j
    gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0), GateConfig())
    lucky = with_readings(records[n], 0.6 * true_j, half_width)
    gate.refit([*records[:n], lucky, *records[n + 1 :]])
    gate.front_probabilities(FRESH)
    member = [r.number for r in gate._measured].index(n)
    assert np.exp(gate._rivals.mean[member, 1]) / true_j == pytest.approx(share, rel=0.06)


def test_noise_of_labels_makes_no_false_drop_likelier_than_stated():
    """Of true values: what is dropped would not be on the front of what was evaluated."""
    exact = trials(200)
    evaluated = noisy(exact[:60], 0.25, seed=1)
    gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0), GateConfig(confidence=0.9))
    gate.refit(evaluated)
    true_points, labels, fresh = (
        log_losses(np.array([r.objectives for r in rows]))
        for rows in (exact[:60], evaluated, exact[60:])
    )

    def is_dominated(by):
        return (by[None] <= fresh[:, None]).all(axis=2).any(axis=1)

    is_free = ~is_dominated(true_points)
    is_dropped = gate.front_probabilities([r.architecture for r in exact[60:]]) < 0.1
    assert (is_free & is_dominated(labels)).sum() >= 3, "labels alone would drop these"
    assert is_dropped.sum() >= 20 and not (is_free & is_dropped).any()


def test_a_candidate_that_only_prior_trials_dominate_is_not_dropped():
    """They are not on the search's front, so it would lose a member."""
    prior, own = trials(60), trials(60)[:1]
    data = WarmStartData(
        tuple(Observation.of_energy(r.architecture, WORKLOAD, r.reading) for r in prior),
        tuple(QualityLabel(r.architecture, r.quality, r.quality_se) for r in prior),
    )
    gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0, warm_start=data), GateConfig())
    gate.refit(own)
    better = [r for r in prior[1:] if r.energy_j < 0.8 * own[0].energy_j]
    assert len(better) > 10
    assert all(gate.judge(r.architecture).reason is None for r in better)


def test_trials_that_are_dominated_by_far_are_not_compared_with_again():
    gate = gate_of(40)
    chances = gate.front_probabilities(FRESH)
    n_compared, gate._rivals = len(gate._measured), None
    assert 0 < n_compared < 40
    assert gate.front_probabilities(FRESH) == pytest.approx(chances, abs=1e-3)
