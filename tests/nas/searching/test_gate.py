"""The gate's probability, against drawing candidates and looking."""

import numpy as np
import pytest
from search_fakes import SPACE, WORKLOAD, changed, finished, make_trial

from nas.pareto.uncertainty import exact_front_probabilities
from nas.records.config import GateConfig
from nas.records.goals import Goals
from nas.searching.gating.gate import CandidatePool, Gate, audit_summary
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.searching.gating.warm_start_data import WarmStartData
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
    found = exact_front_probabilities(losses, np.log([[error, energy_j]]), np.full((1, 2), sd))
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
        gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0), GateConfig(), pool=pool)
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
    gate = gate_of(n, startup_trials=40)
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
    gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0), GateConfig(), pool=pool)
    gate.refit(trials(40))
    predicted = gate._surrogates.predict(pool.batch, 0.683)
    quality, energy_j = predicted.quality, predicted.energy_j
    points = gate._predicted_points
    assert len(points) > 10
    assert np.isin(points[:, 0], quality.low).all() and np.isin(points[:, 1], energy_j.high).all()


@pytest.mark.parametrize(("goals", "n_points"), [(Goals(), 1), (Goals(max_params=1e5), 0)])
def test_points_of_prior_trials_are_left_out_where_they_may_break_a_limit(goals, n_points):
    prior = WarmStartData(points=((0.9, 1e-6),))
    surrogates = ArchitectureSurrogates(WORKLOAD, goals=goals, seed=0, warm_start=prior)
    gate = Gate(surrogates, GateConfig())
    assert len(gate._predicted_points) == n_points
