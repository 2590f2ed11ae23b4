"""The search from scratch: a training is run once, and each search is charged for it."""

from dataclasses import replace

import pytest

from experiments.benchmarks.training.scratch_search import Outcome, Trainings, search, space
from experiments.recipes import quickstart


def test_a_training_runs_once_and_every_search_is_charged_for_it(tmp_path):
    plain = quickstart("cpu")
    domains = {**space().domains, "d_model": (16, 24), "depth": (1,), "patch_size": (4,)}
    config = replace(
        plain,
        space=replace(space(), domains=domains),
        trials=3,
        baselines=(),
        training=replace(plain.training, epochs=1, batch_size=256),
    )
    cache = tmp_path / "trainings.jsonl"
    outcomes = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        outcomes.append(search(config, Trainings(cache, config), tmp_path / name))
    assert len(cache.read_text().splitlines()) == 3
    assert outcomes[0] == outcomes[1] and len(outcomes[0].train_s) == 3
    assert list(outcomes[0].train_s) == sorted(outcomes[0].train_s)


def test_seconds_to_a_hypervolume_are_infinite_where_it_is_not_reached():
    outcome = Outcome((0.5, 0.8, 1.0), (0.5, 0.8, 0.9), (10.0, 20.0, 40.0))
    assert outcome.seconds_to(0.9) == 40
    assert outcome.seconds_to(1.1) == pytest.approx(float("inf"))
