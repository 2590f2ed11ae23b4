"""Options of objectives, and directions that their names make doubtful."""

import logging

import numpy as np
import optuna
import pytest

from nas.pareto.hypervolume import hypervolume
from nas.samplers.ehvi import EhviSampler
from nas.samplers.objectives import ObjectiveOptions, doubt, usual_direction
from nas.samplers.proposer import Effort


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_accuracy", "max"),
        ("F1", "max"),
        ("mean_iou", "max"),
        ("testTop1Acc", "max"),
        ("accuracy_drop", "min"),
        ("energy_j", "min"),
        ("Latency (ms)", "min"),
        ("width", None),
    ],
)
def test_a_name_has_a_usual_direction(name, direction):
    assert usual_direction(name) == direction


def test_the_other_direction_is_a_question():
    assert doubt("accuracy", maximize=False) == (
        "is 'accuracy' to be minimised? max is usual for it"
    )
    assert "is 'loss' to be maximised? min is usual" in doubt("loss", maximize=True)
    assert doubt("accuracy", maximize=True) is doubt("width", maximize=True) is None


def questions(caplog, directions, names):
    caplog.clear()
    study = optuna.create_study(directions=directions, sampler=EhviSampler(seed=0))
    if names is not None:
        study.set_metric_names(names)

    def objective(trial):
        # The space grows, so that the proposer is made anew.
        sizes = [trial.suggest_int(f"size{i}", 1, 9) for i in range(1 + trial.number % 3)]
        return 1 / sum(sizes), sum(sizes)

    with caplog.at_level(logging.WARNING):
        study.optimize(objective, n_trials=8)
    return [r.getMessage() for r in caplog.records if "is usual for it" in r.getMessage()]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_study_whose_metrics_have_names_is_questioned_once(caplog):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (question,) = questions(caplog, ["minimize", "minimize"], ["accuracy", "energy"])
    assert "is 'accuracy' to be minimised? max is usual for it" in question
    assert questions(caplog, ["maximize", "minimize"], ["accuracy", "energy"]) == []
    assert questions(caplog, ["minimize", "minimize"], None) == []


def test_effects_of_candidates_are_searched_for_where_values_have_no_noise():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    effects = 0.06 * np.random.default_rng(0).normal(size=(12, 12, 12))

    def objective(trial):
        a, b, c = (trial.suggest_int(name, 0, 11) for name in "abc")
        return 1 - 0.05 * (a + 0.5 * b) - 0.01 * c + effects[a, b, c], float(a + b + c)

    def reached(*, deterministic):
        options = ObjectiveOptions(deterministic=deterministic)
        volumes = []
        for seed in range(4):
            sampler = EhviSampler(seed=seed, objectives=options, effort=Effort(3, 60, 20))
            study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
            study.optimize(objective, n_trials=40)
            values = [trial.values for trial in study.trials]
            volumes.append(hypervolume(values, (1.3, 36.0), (False, False)))
        return np.mean(volumes)

    assert reached(deterministic=True) > 1.003 * reached(deterministic=False)
