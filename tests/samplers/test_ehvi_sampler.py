"""``EhviSampler`` in studies of every kind."""

import logging
import warnings

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from nas.pareto.hypervolume import hypervolume
from nas.samplers.columns import Columns
from nas.samplers.ehvi import EhviSampler, RowMaps
from nas.samplers.objectives import Objective, ObjectiveOptions
from nas.samplers.prior import PriorTrial, prior_rows
from nas.samplers.proposer import Effort

FAST = Effort(generations=3, children=60, parents=20)


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(directions=("minimize", "minimize"), **options):
    options = {"seed": 0, "effort": FAST} | options
    return optuna.create_study(directions=list(directions), sampler=EhviSampler(**options))


def mixed(trial):
    rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    share = trial.suggest_float("share", 0, 1)
    width = trial.suggest_int("width", 16, 256, step=16)
    many = trial.suggest_int("many", 1, 5000, log=True)
    kind = trial.suggest_categorical("kind", ["a", None, True, 3])
    one = trial.suggest_int("one", 5, 5)
    error = (np.log10(rate) + 2.5) ** 2 + (share - 0.3) ** 2 + 10 / width + (kind is None) + one
    return error, width * (1 + share) + np.log(many)


def layered(trial):
    depth = trial.suggest_int("depth", 1, 6)
    widths = [trial.suggest_categorical(f"layer{i}.width", [8, 16, 32]) for i in range(depth)]
    return 5 / sum(widths) ** 0.5 + 1 / depth, float(sum(w**1.2 for w in widths))


def tiny(trial):
    a, b = trial.suggest_categorical("a", ["x", "y", "z"]), trial.suggest_int("b", 0, 3)
    return float(ord(a)), float(b)


def distinct(study):
    return len({tuple(sorted(t.params.items(), key=str)) for t in study.trials})


@pytest.mark.parametrize("objective", [mixed, layered])
@pytest.mark.parametrize("directions", [("minimize",) * 2, ("maximize", "minimize")])
def test_any_space_is_searched_without_repeats(objective, directions):
    study = study_of(directions)
    study.optimize(objective, n_trials=25)
    assert len(study.trials) == distinct(study) == 25
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def test_the_front_is_found_sooner_than_by_chance():
    def volume(sampler):
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        study.optimize(layered, n_trials=40)
        return hypervolume([t.values for t in study.trials], (3.0, 300.0), (False, False))

    chance = [volume(optuna.samplers.RandomSampler(seed=seed)) for seed in range(5)]
    assert min(volume(EhviSampler(seed=s, effort=FAST)) for s in range(2)) > max(chance)


def test_the_same_seed_proposes_the_same():
    def proposed():
        study = study_of()
        study.optimize(mixed, n_trials=12)
        return [t.params for t in study.trials]

    assert proposed() == proposed()


@pytest.mark.parametrize("n", [1, 3, 4])
def test_one_objective_or_several(n):
    def objective(trial):
        x = [trial.suggest_float(f"x{i}", 0, 1) for i in range(n)]
        return tuple(sum((v - (i == j)) ** 2 for j, v in enumerate(x)) for i in range(n))

    def volume(sampler):
        study = optuna.create_study(directions=["minimize"] * n, sampler=sampler)
        study.optimize(objective if n > 1 else lambda t: objective(t)[0], n_trials=25)
        return hypervolume([t.values for t in study.trials], (1.5,) * n, (False,) * n)

    by_chance = max(volume(optuna.samplers.RandomSampler(seed=seed)) for seed in range(3))
    ours = EhviSampler(seed=0, effort=FAST, objectives=ObjectiveOptions((1.5,) * n))
    assert volume(ours) > by_chance


def test_an_exhausted_space_is_said_once_and_goes_on(caplog):
    study = study_of()
    with caplog.at_level(logging.WARNING, "nas.samplers.ehvi"):
        study.optimize(tiny, n_trials=12)
        assert distinct(study) == 12 and not caplog.records
        study.optimize(tiny, n_trials=3)
    assert [r.message for r in caplog.records] == [
        "the search space is exhausted: proposals are repeats from now on"
    ]
    assert len(study.trials) == 15


def test_trials_in_flight_are_not_proposed_again_and_repel():
    study = study_of()
    study.optimize(layered, n_trials=10)
    asked = []
    for _ in range(8):
        trial = study.ask()
        layered(trial)
        asked.append(tuple(sorted(trial.params.items())))
    assert len(set(asked)) == 8
    told = {tuple(sorted(t.params.items())) for t in study.trials if t.state.is_finished()}
    assert not told & set(asked)


def test_a_trial_in_flight_may_have_a_parameter_that_others_lack():
    def objective(trial):
        is_on = trial.suggest_categorical("is_on", [0, 1])
        size = trial.suggest_categorical("size", list(range(20)))
        width = trial.suggest_categorical("width", list(range(20))) if is_on else 0
        return size + is_on, 20 - size + width

    study = study_of()
    study.optimize(objective, n_trials=12)
    study.enqueue_trial({"is_on": 0, "size": 3, "width": 4})
    running = study.ask()
    for name, n in (("is_on", 2), ("size", 20), ("width", 20)):
        running.suggest_categorical(name, list(range(n)))
    study.optimize(objective, n_trials=2)
    assert len(study.trials) == 15


def test_a_whole_small_space_in_flight_is_exhausted():
    study = study_of()
    for _ in range(12):
        tiny(study.ask())
    assert distinct(study) == 12
    tiny(study.ask())


def test_failed_pruned_and_infinite_trials_are_not_learnt_from_nor_repeated():
    def objective(trial):
        values = tiny(trial)
        if trial.number % 4 == 1:
            raise optuna.TrialPruned
        if trial.number % 4 == 2:
            raise ArithmeticError
        return (np.inf, 1.0) if trial.number % 4 == 3 else values

    study = study_of()
    study.optimize(objective, n_trials=12, catch=(ArithmeticError,))
    assert distinct(study) == 12


def test_pruned_trials_tell_what_they_are_said_to():
    """Half of the trials are pruned: a partial value of the first objective is as good as one."""
    seen = []

    def partial(complete, unfinished):
        seen.append((len(complete), len(unfinished)))
        return [PriorTrial(t.params, (error(t.params), np.nan), (0.01, 0.0)) for t in unfinished]

    def error(params):
        return (params["x"] - 0.3) ** 2

    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if trial.number % 2:
            raise optuna.TrialPruned
        return error({"x": x}), y

    study = study_of(n_startup_trials=6, partial_trials=partial)
    study.optimize(objective, n_trials=24)
    # Three complete and three pruned fill the space; without partial trials it takes eleven.
    assert seen[0] == (3, 3) and len(seen) == 24 - 6
    late = [t.params["x"] for t in study.trials[12:]]
    assert np.median(np.abs(np.array(late) - 0.3)) < 0.1
    assert all(t.values is None for t in study.trials[1::2])


def test_values_that_are_all_the_same_are_no_trouble():
    study = study_of()
    study.optimize(lambda t: (mixed(t)[0] * 0, 1.0), n_trials=15)
    assert distinct(study) == 15


def test_a_parameter_whose_choices_change_is_drawn_at_random():
    def objective(trial):
        high = 3 + trial.number % 2
        return float(trial.suggest_int("n", 0, high)), trial.suggest_float("x", 0, 1)

    study = study_of()
    study.optimize(objective, n_trials=20)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def test_constraints_keep_the_search_where_they_hold():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_constraint("sum", x + y - 0.6)
        return 1 - x, 1 - y

    study = study_of()
    study.optimize(objective, n_trials=40)
    sums = np.array([sum(t.params.values()) for t in study.trials])
    # The best lie on the edge: proposals step over it by what the model does not know.
    assert np.mean(sums[15:] < 0.61) > 0.9 and np.mean(sums[15:] > 0.5) > 0.9
    assert np.mean(sums <= 0.6) > 0.3


def test_no_feasible_trial_yet_is_searched_for():
    def objective(trial):
        x = [trial.suggest_float(f"x{i}", 0, 1) for i in range(4)]
        trial.set_constraint("corner", 3.4 - sum(x))
        return 1 - x[0], x[1]

    study = study_of()
    study.optimize(objective, n_trials=30)
    assert any(sum(t.params.values()) >= 3.4 for t in study.trials)


def test_noise_is_read_from_variances():
    rng = np.random.default_rng(0)

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        return x + rng.normal(0, 0.3), 1 - x

    seen = []

    def variances(trial):
        seen.append(trial.number)
        return 0.09, 0.0

    study = study_of(objectives=ObjectiveOptions(variances=variances))
    study.optimize(objective, n_trials=15)
    assert sorted(set(seen)) == seen == list(range(14))


def test_features_and_one_form_of_rows_are_taken_from_the_caller():
    def objective(trial):
        on = trial.suggest_categorical("on", [False, True])
        x = trial.suggest_int("x", 0, 9)
        return float(on), float(x if on else 20)

    def canonical(names, rows):
        found = rows.copy()
        on, x = (rows[:, names.index(name)] for name in ("on", "x"))
        found[:, names.index("x")] = np.where(on > 0, x, np.nan)
        return found

    study = study_of(
        row_maps=RowMaps(canonical=canonical, features=lambda names, rows: rows[:, :1] * 2)
    )
    study.optimize(objective, n_trials=11)
    assert len({t.values[1] if t.values[0] else -1 for t in study.trials}) == 11


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reference_point": [1.0]}, "reference_point must have 2 values"),
        ({"log": [True]}, "log must have 2 values"),
        ({"best_possible": [1.0, None, None]}, "best_possible must have 2 values"),
        ({"log": [True, False], "reference_point": [-1.0, 1.0]}, "must be > 0"),
    ],
)
def test_options_that_do_not_fit_the_study_are_refused(options, said):
    study = study_of(objectives=ObjectiveOptions(**options))
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study.ask(space)
    with pytest.raises(ValueError, match=said):
        study.ask(space)


def prior_of(objective, n, known=(True, True)):
    """Rows of a study at random; NaN where a value is not known."""
    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=optuna.samplers.RandomSampler(seed=7)
    )
    study.optimize(objective, n_trials=n)
    return [
        PriorTrial(t.params, [v if k else np.nan for v, k in zip(t.values, known, strict=True)])
        for t in study.trials
    ]


def test_what_is_known_from_before_finds_the_front_sooner():
    def volume(**options):
        study = study_of(**options)
        study.optimize(layered, n_trials=9)
        return hypervolume([t.values for t in study.trials], (3.0, 300.0), (False, False))

    prior = prior_of(layered, 40)
    for seed in range(2):
        cold, warm = volume(seed=seed), volume(seed=seed, prior_trials=prior)
        assert warm > cold


def test_what_is_known_from_before_is_no_part_of_the_front():
    # The best there is has been seen before: it is proposed all the same, and first.
    prior = [PriorTrial({"a": a, "b": b}, (ord(a), b)) for a in "xyz" for b in range(4)]
    study = study_of(prior_trials=prior, n_startup_trials=2)
    study.enqueue_trial({"a": "z", "b": 3})
    study.optimize(tiny, n_trials=3)
    assert {"a": "x", "b": 0} in [t.params for t in study.trials[1:]]
    study.optimize(tiny, n_trials=9)
    assert distinct(study) == 12


@pytest.mark.parametrize("known", [(True, False), (False, True)])
def test_of_what_is_known_from_before_a_value_may_be_missing(known):
    study = study_of(prior_trials=prior_of(layered, 20, known))
    study.optimize(layered, n_trials=12)
    assert distinct(study) == 12


def test_more_is_known_from_before_than_models_can_hold(monkeypatch):
    from nas.samplers import proposer

    monkeypatch.setattr(proposer, "_MOST_ROWS", 15)
    study = study_of(prior_trials=prior_of(layered, 30))
    study.optimize(layered, n_trials=20)
    assert distinct(study) == 20


def test_prior_trials_of_other_spaces_are_left_out_and_wrong_ones_refused():
    space = {"a": optuna.distributions.CategoricalDistribution("xyz")}
    space["b"] = optuna.distributions.IntDistribution(0, 3)
    foreign = [{"a": "w", "b": 1}, {"a": "x", "b": 9}, {"a": "x", "c": 1}, {"a": "x", "b": "no"}]
    columns = Columns(space)
    trials = [PriorTrial(p, (1.0, 2.0)) for p in [*foreign, {"a": "x", "b": 1}]]
    assert len(prior_rows(trials, columns, 2)) == 1
    assert len(prior_rows([PriorTrial({"a": "x", "b": 1}, (np.nan,) * 2)], columns, 2)) == 0
    with pytest.raises(ValueError, match="prior_trials must have 3 values each"):
        prior_rows(trials, columns, 3)
    with pytest.raises(ValueError, match="values must be finite or NaN"):
        PriorTrial({}, (np.inf, 1.0))
    for wrong in ((1.0,), (-1.0, 0.0), (np.nan, 0.0)):
        with pytest.raises(ValueError, match="variances must be 2 numbers >= 0"):
            PriorTrial({}, (1.0, 1.0), wrong)


def test_too_few_startup_trials_are_refused():
    with pytest.raises(ValueError, match="n_startup_trials must be >= 2, got 1"):
        EhviSampler(n_startup_trials=1)


@pytest.mark.parametrize(
    ("objective", "values", "losses"),
    [
        (Objective(), [1.0, 2.0], [1.0, 2.0]),
        (Objective(maximize=True), [1.0, 2.0], [-1.0, -2.0]),
        (Objective(maximize=True, best_possible=1.0), [0.9, 1.0], [0.1, 0.0]),
        (Objective(best_possible=1.0), [1.0, 3.0], [0.0, 2.0]),
        (Objective(log=True), [1.0, np.e], [0.0, 1.0]),
        (Objective(maximize=True, log=True), [1.0, np.e], [0.0, -1.0]),
        (Objective(maximize=True, best_possible=1.0, log=True), [1 - np.e, 0.0], [1.0, 0.0]),
    ],
)
def test_losses_fall_as_values_improve(objective, values, losses):
    assert objective.losses(np.array(values)) == pytest.approx(losses)


def test_thousands_of_trials_are_proposed_in_batches():
    study = study_of()
    space = {f"x{i}": optuna.distributions.IntDistribution(0, 9) for i in range(6)}
    rng = np.random.default_rng(0)
    for _ in range(1500):
        params = {name: int(rng.integers(10)) for name in space}
        values = [sum(params.values()), sum((9 - v) ** 2 for v in params.values())]
        trial = optuna.trial.create_trial(params=params, distributions=space, values=values)
        study.add_trial(trial)
    before = {tuple(t.params.values()) for t in study.trials}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh = [tuple(study.ask(space).params.values()) for _ in range(9)]
    assert len(set(fresh)) == 9 and not before & set(fresh)
