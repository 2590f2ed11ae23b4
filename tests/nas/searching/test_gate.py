"""The gate's probability, against drawing candidates and looking."""

import numpy as np
import pytest
from search_fakes import SPACE, WORKLOAD, finished, make_trial

from nas.pareto.uncertainty import exact_front_probabilities
from nas.records.config import GateConfig
from nas.searching.gating.gate import CandidatePool, Gate
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
    gate = Gate(WORKLOAD, GateConfig(), seed=0, pool=pool)
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
        gate = Gate(WORKLOAD, GateConfig(), seed=0, pool=pool)
        gate.refit(trials(40))
        chances.append(gate.front_probabilities(fresh))
    alone, beside = chances
    assert np.all(beside <= alone + 1e-9)
    assert np.max(alone - beside) > 0.03, "they are seen where they matter"
