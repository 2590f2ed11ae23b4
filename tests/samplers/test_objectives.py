"""Directions of objectives that their names make doubtful."""

import logging

import optuna
import pytest

from nas.samplers.ehvi import EhviSampler
from nas.samplers.objectives import doubt, usual_direction


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
