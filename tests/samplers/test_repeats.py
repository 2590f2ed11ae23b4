"""Repeats that a sampler learns from equal values."""

import numpy as np
import optuna
import pytest
from scipy.optimize import check_grad

from nas.samplers import repeats
from nas.samplers.ehvi import EhviSampler
from nas.samplers.parameters import Parameter, Parameters
from nas.samplers.repeats import Repeats

SIZES = (3, 3, 3, 3, 3)
# Values depend on the first three parameters alone.
N_USED = 3


def space():
    scale = (0.0, 0.5, 1.0)
    kinds = [Parameter(f"p{i}", n, scale if i % 2 else None) for i, n in enumerate(SIZES)]
    return Parameters(tuple(kinds))


def trials(n, seed=0):
    rows = np.random.default_rng(seed).integers(0, SIZES, (n, len(SIZES))).astype(float)
    return rows, rows[:, :N_USED]


def test_without_repeats_there_is_no_model():
    model = Repeats(space())
    rows, _ = trials(30)
    model.add(rows, np.arange(60.0).reshape(30, 2))
    assert model.n_repeats == 0 and model.fitted(rows[:0]) is None
    model.add(rows[:1], np.zeros((1, 2)) + [0.0, 1.0])
    assert model.n_repeats == 1 and model.fitted(rows[:0]) is None


def test_what_differs_only_in_parameters_without_effect_is_a_repeat():
    model = Repeats(space())
    model.add(*trials(80))
    novelty = model.fitted(np.empty((0, len(SIZES))))
    candidates, values = trials(400, seed=1)
    seen = {tuple(v) for v in trials(80)[1]}
    is_new = np.array([tuple(v) not in seen for v in values])
    probability = novelty(candidates)
    assert 0.02 < is_new.mean() < 0.5
    assert probability[is_new].min() > probability[~is_new].max()
    # A pending row counts as evaluated.
    new = candidates[is_new][:1]
    assert model.fitted(new)(new)[0] < 0.2 < novelty(new)[0]
    assert novelty.joined(new)(new)[0] < 0.2


def test_absent_parameters_equal_each_other_alone():
    model = Repeats(Parameters((Parameter("a", 2), Parameter("b", None))))
    rows = np.array([[0, np.nan], [0, 0.5], [1, np.nan]])
    affinity = model.affinity(rows, rows)
    assert np.all(np.isfinite(affinity)) and affinity == pytest.approx(affinity.T)
    assert np.all(np.diag(affinity)[:, None] > affinity - np.eye(3) * affinity)


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    model = Repeats(space())
    rows, values = trials(25)
    group = np.unique(values, axis=0, return_inverse=True)[1].ravel()
    later, earlier = np.tril_indices(len(rows), -1)
    parts = [model._apart(rows, rows, i) for i in range(len(SIZES))]
    apart = np.stack([x[later, earlier] for part in parts for x in part])
    same = group[later] == group[earlier]
    arguments = (apart, later, same, np.bincount(later, same, len(rows)) > 0)
    point = rng.normal(size=2 + 2 * len(SIZES))
    error = check_grad(
        lambda v: repeats._loss(v, *arguments)[0], lambda v: repeats._loss(v, *arguments)[1], point
    )
    assert error < 1e-4


def test_rows_of_another_study_are_removed():
    model = Repeats(space())
    model.add(*trials(80))
    model.clear()
    assert model.n_repeats == 0 and model.fitted(np.empty((0, len(SIZES)))) is None


def snapped(trial):
    """A table that has each third value only: others are their nearest."""
    x, y, z = (trial.suggest_int(name, 0, 8) // 3 for name in "xyz")
    unused = trial.suggest_categorical("unused", ["a", "b", "c", "d"])
    assert unused in "abcd"
    return x + 0.31 * y + 0.05 * z, (9 - x) ** 1.5 - y + 0.2 * z


@pytest.mark.parametrize("seed", [0, 1])
def test_a_study_whose_proposals_repeat_rows_finds_more_of_them(monkeypatch, seed):
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def n_distinct():
        sampler = EhviSampler(seed=seed)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        study.optimize(snapped, n_trials=30)
        return len({tuple(t.values) for t in study.trials})

    with_model = n_distinct()
    monkeypatch.setattr(repeats, "_LEAST_REPEATS", 10**9)
    without = n_distinct()
    assert with_model >= without + 3


def test_a_study_without_repeats_is_proposed_the_same(monkeypatch):
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial):
        x, y = trial.suggest_int("x", 0, 20), trial.suggest_int("y", 0, 20)
        return x + 0.01 * y, (20 - x) ** 2 + 0.1 * (y - 3) ** 2

    def params():
        study = optuna.create_study(
            directions=["minimize", "minimize"], sampler=EhviSampler(seed=0)
        )
        study.optimize(objective, n_trials=12)
        return [trial.params for trial in study.trials]

    with_model = params()
    monkeypatch.setattr(repeats, "_LEAST_REPEATS", 10**9)
    assert params() == with_model
