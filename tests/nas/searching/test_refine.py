"""Evaluating again: what replicas say together, and which trials get them."""

import numpy as np
import pytest
from search_fakes import SPACE, changed, failed, make_trial, reading

from nas.core.files import write_json
from nas.pareto.queries import chances
from nas.records.front_member import member_of
from nas.records.goals import Goals
from nas.records.replicas import RESULT, pooled, replica_folder, replicas_of, save_scores
from nas.searching.controller.refine import MOST_REPLICAS, Refinement
from search_spaces.space.sampling import sample

N = 400


def complete(number, quality, energy_j, *, se=0.01, replica=0):
    architecture = sample(SPACE, np.random.default_rng(number))
    return make_trial(
        number,
        "complete",
        architecture,
        quality,
        se,
        test_quality=quality,
        reading=reading(energy_j),
        params=1,
        train_energy_j=5.0,
        replica=replica,
    )


def put(folder, record, right=None):
    where = replica_folder(folder / str(record.number), record.replica)
    where.mkdir(parents=True, exist_ok=True)
    if right is not None:
        save_scores(where, right)
    if record.replica:
        write_json(where / RESULT, record.to_dict())


def test_without_replicas_a_trial_is_what_it_was(tmp_path):
    record = complete(0, 0.9, 1e-5)
    assert pooled(record, tmp_path / "0") is record
    dropped = make_trial(1, "dropped", record.architecture, reason="x")
    assert pooled(dropped, tmp_path / "1") is dropped


def test_figures_are_means_and_costs_are_sums(tmp_path):
    first = complete(3, 0.90, 1.00e-5)
    put(tmp_path, complete(3, 0.94, 1.21e-5, replica=1))
    put(tmp_path, changed(failed(changed(first, replica=2), "it broke"), train_energy_j=5.0))
    found = pooled(first, tmp_path / "3")
    assert found.quality == pytest.approx(0.92) and found.energy_j == pytest.approx(1.1e-5)
    assert (found.n_evaluations, found.train_energy_j) == (2, 15.0)
    assert [r.state for r in replicas_of(tmp_path / "3")] == ["complete", "failed"]
    # The two measurements differ by more than their intervals say.
    half_width = np.log(found.reading.high_j / found.energy_j)
    assert half_width == pytest.approx(1.96 * np.log(1.1) * np.sqrt(2) / np.sqrt(2), rel=1e-6)


def test_the_error_of_a_mean_is_what_such_means_scatter_by(tmp_path):
    rng = np.random.default_rng(0)
    means, errors = [], []
    for repeat in range(60):
        # Samples of different difficulty, which all seeds share, and seeds of different skill.
        difficulty = rng.beta(4, 0.5, size=N)
        found = []
        for replica in range(4):
            right = rng.random(N) < np.clip(difficulty + rng.normal(0, 0.01), 0, 1)
            se = float(np.sqrt(right.mean() * (1 - right.mean()) / N))
            record = complete(repeat, right.mean(), 1e-5, se=se, replica=replica)
            put(tmp_path, record, right)
            found.append(record)
        together = pooled(found[0], tmp_path / str(repeat))
        means.append(together.quality)
        errors.append(together.quality_se)
    alone = np.mean([r.quality_se for r in found])
    assert np.mean(errors) < 0.95 * alone, "seeds agree on much, not on all"
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.3)


def test_seeds_that_agree_on_every_sample_say_no_more_than_one(tmp_path):
    right = np.random.default_rng(0).random(N) < 0.9
    for replica in range(3):
        put(tmp_path, complete(0, right.mean(), 1e-5, replica=replica), right)
    first = complete(0, right.mean(), 1e-5)
    assert pooled(first, tmp_path / "0").quality_se == pytest.approx(first.quality_se)


def make(folder, records, budget, goals=None):
    return Refinement(records, folder, goals or Goals(), budget)


def test_the_least_sure_place_comes_first(tmp_path):
    records = [
        complete(0, 0.80, 1e-5, se=0.001),
        complete(1, 0.900, 2e-5),
        complete(2, 0.902, 2.001e-5),
        complete(3, 0.99, 9e-5, se=0.001),
        complete(4, 0.5, 8e-5, se=0.001),
    ]
    p = chances([member_of(r, "cpu") for r in records])
    first = make(tmp_path, records, 5).next_replica()
    assert first.number == int(np.argmax(p * (1 - p))) in (1, 2)
    assert first.replica == 1 and not first.is_audit
    assert first.architecture == records[first.number].architecture


def test_nothing_is_evaluated_where_all_is_sure(tmp_path):
    records = [complete(0, 0.8, 1e-5, se=0.001), complete(1, 0.9, 2e-5, se=0.001)]
    assert make(tmp_path, records, 5).next_replica() is None


def test_the_budget_counts_what_is_in_flight_what_failed_and_what_was_there(tmp_path):
    records = [complete(n, 0.9 + 0.001 * n, 2e-5 + 1e-8 * n) for n in range(6)]
    refinement = make(tmp_path, records, 4)
    replicas = [refinement.next_replica() for _ in range(4)]
    assert refinement.next_replica() is None
    assert len({(r.number, r.replica) for r in replicas}) == 4
    put(tmp_path, failed(replicas[0], "it broke"))
    refinement.ended(replicas[0])
    assert refinement.done == 1 and refinement.next_replica() is None
    again = make(tmp_path, records, 4)
    left = [again.next_replica() for _ in range(3)]
    assert all(left) and again.next_replica() is None
    failed_one = (replicas[0].number, replicas[0].replica)
    assert failed_one not in {(r.number, r.replica) for r in left}


def test_no_trial_gets_more_than_its_share(tmp_path):
    records = [complete(n, 0.9, 2e-5) for n in range(2)]
    refinement = make(tmp_path, records, 99)
    found = []
    while (replica := refinement.next_replica()) is not None:
        found.append(replica.number)
    assert max(found.count(n) for n in (0, 1)) <= MOST_REPLICAS


NEARLY_EQUAL_J = (2e-5, 2.0001e-5, 2.001e-5)


def test_what_breaks_a_limit_is_left_alone(tmp_path):
    records = [complete(n, 0.9 + 0.002 * n, joules) for n, joules in enumerate(NEARLY_EQUAL_J)]

    def replicated(goals):
        refinement = make(tmp_path, records, 9, goals)
        replicas = iter(refinement.next_replica, None)
        return {replica.number for replica in replicas}

    assert replicated(Goals()) == {0, 1, 2}
    assert replicated(Goals(max_joules=2.0005e-5)) == {0, 1}


def test_fronts_flatter_less_afterwards(tmp_path):
    """Of ten equal models the luckiest is the front; its mean is closer to the truth."""
    rng = np.random.default_rng(3)
    flattery = {"before": [], "after": []}
    for repeat in range(12):
        folder = tmp_path / str(repeat)
        records = [
            complete(n, 0.9 + rng.normal(0, 0.01), 2e-5 * float(np.exp(rng.normal(0, 0.01))))
            for n in range(10)
        ]
        flattery["before"].append(max(r.quality for r in records) - 0.9)
        refinement = make(folder, records, 20)
        while (replica := refinement.next_replica()) is not None:
            energy_j = 2e-5 * float(np.exp(rng.normal(0, 0.01)))
            done = complete(
                replica.number, 0.9 + rng.normal(0, 0.01), energy_j, replica=replica.replica
            )
            put(folder, done)
            refinement.ended(done)
        after = [pooled(r, folder / str(r.number)) for r in records]
        flattery["after"].append(max(r.quality for r in after) - 0.9)
    assert np.mean(flattery["after"]) < 0.75 * np.mean(flattery["before"])
