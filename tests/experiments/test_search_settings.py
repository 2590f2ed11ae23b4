"""Noise, evaluations in flight and further objectives of the search benchmark."""

import numpy as np
import pandas as pd
import pytest

from experiments.benchmarks.sampling import running, search_quality
from experiments.benchmarks.sampling.curves import measured_front_curve, volume_curve
from experiments.benchmarks.sampling.peers import optuna_peers
from experiments.benchmarks.sampling.peers.registry import PEERS
from experiments.benchmarks.sampling.problems.cells import OPERATIONS, cell_table
from experiments.benchmarks.sampling.problems.dtlz import dtlz2
from experiments.benchmarks.sampling.problems.hwgpt import hwgpt
from experiments.benchmarks.sampling.problems.noise import Measured, MeasurementNoise, noise_rng
from experiments.benchmarks.sampling.problems.problem import volume_of
from experiments.benchmarks.sampling.problems.registry import ProblemName, make_problem
from experiments.benchmarks.sampling.problems.scoring import Scoring
from experiments.benchmarks.sampling.problems.space import walk
from experiments.benchmarks.sampling.report import table_of, workers_table
from experiments.benchmarks.sampling.results import Results
from experiments.benchmarks.sampling.running import Job, run_one
from nas.pareto.dominance import non_dominated_mask


def options(*words):
    return search_quality._parser().parse_args([*words, "--out", "unused"])


@pytest.mark.parametrize("n_objectives", [3, 4])
def test_a_curve_of_several_losses_is_the_hypervolume_of_what_came_before(n_objectives):
    losses = np.random.default_rng(0).random((25, n_objectives)) * 1.2
    reference = (1.0,) * n_objectives
    found = volume_curve(losses, reference)
    assert found == pytest.approx([volume_of(losses[: n + 1], reference) for n in range(25)])


def test_a_lucky_measurement_takes_the_place_of_better_ones():
    true = np.array([[0.5, 0.5], [0.6, 0.6], [0.2, 0.2]])
    measured = np.array([[0.5, 0.5], [0.4, 0.4], [0.2, 0.2]])
    found = measured_front_curve(measured, true, (1.0, 1.0))
    assert found == pytest.approx([0.25, 0.16, 0.64])
    assert volume_curve(true, (1.0, 1.0)) == pytest.approx([0.25, 0.25, 0.64])


@pytest.mark.parametrize("is_accuracy", [False, True])
@pytest.mark.parametrize("is_log_cost", [False, True])
def test_noise_has_the_stated_size(is_accuracy, is_log_cost):
    noise = MeasurementNoise(Measured(is_accuracy, is_log_cost), 0.05, 400)
    loss = np.array([-0.2 if is_accuracy else 0.2, 1.0 if is_log_cost else 10.0])
    seen = np.array([noise(loss, noise_rng(0, i, 0)) for i in range(4000)])
    assert seen[:, 0].mean() == pytest.approx(loss[0], abs=0.002)
    assert seen[:, 0].std() == pytest.approx((0.2 * 0.8 / 400) ** 0.5, rel=0.05)
    # A share of 400 samples.
    assert np.allclose(seen[:, 0] * 400, np.round(seen[:, 0] * 400))
    logarithms = seen[:, 1] * np.log(10) if is_log_cost else np.log(seen[:, 1])
    assert logarithms.mean() == pytest.approx(np.log(10), abs=0.004)
    assert logarithms.std() == pytest.approx(0.05, rel=0.05)


def test_noise_depends_on_the_seed_the_row_and_how_often_it_was_evaluated():
    def draw(*key):
        return noise_rng(*key).random()

    assert draw(0, ("a", 1), 0) == draw(0, ("a", 1), 0)
    others = {draw(0, ("a", 1), 1), draw(1, ("a", 1), 0), draw(0, ("a", 2), 0)}
    assert len(others | {draw(0, ("a", 1), 0)}) == 4


class Repeating:
    """A sampler that always proposes the same candidate, and records the losses of each."""

    told: list[list[float]] = []

    def __init__(self, problem, seed):
        self._problem, Repeating.told = problem, []

    def ask(self):
        return walk(self._problem.parameters, lambda p: p.values[0])

    def tell(self, number, losses):
        Repeating.told.append(losses)


def test_samplers_see_measurements_and_are_scored_by_true_values(monkeypatch):
    monkeypatch.setattr(
        type(PEERS["random"]), "make", lambda self, problem, seed: Repeating(problem, seed)
    )
    name = ProblemName("layers", noise=0.05, validation_size=500)
    run = run_one(Job(name, "random", 3, 6))
    told, (true,) = np.array(Repeating.told), {tuple(r) for r in _true("layers")}
    assert len({tuple(t) for t in told}) == 6 and run.distinct_rows == 1
    assert np.abs(told[:, 1] - true[1]).max() < 4 * 0.05
    assert set(run.volumes) == {round(make_problem(name).volume(np.array([true])), 9)}
    first = [list(t) for t in told]
    run_one(Job(name, "random", 3, 6))
    assert Repeating.told == first
    assert run.evaluated_volume == run.volumes[-1]


def _true(kind):
    problem = make_problem(ProblemName(kind))
    return problem.truth([walk(problem.parameters, lambda p: p.values[0])]).tolist()


def test_a_noisy_problem_says_so_and_counts_what_luck_cost(tmp_path):
    name = ProblemName("graphs", noise=0.15, validation_size=1000)
    problem = make_problem(name)
    assert problem.name == "graphs-noise-15" and "15% of noise" in problem.about
    assert "1,000 samples" in problem.about
    run = run_one(Job(name, "random", 0, 60))
    assert run.evaluated_volume > run.volumes[-1]
    text = table_of(problem, problem.best(), {"random": [run]}, 60).text()
    assert "of all evaluated" in text and f"{run.evaluated_volume / problem.best():.4f}" in text
    plain = table_of(make_problem(ProblemName("graphs")), 1.0, {"random": [run]}, 60).text()
    assert "of all evaluated" not in plain


def test_which_tables_have_noise():
    losses = np.array([[-0.5, 1.0], [-0.9, 2.0]])
    scoring = Scoring(("accuracy", "energy"), ("max", "min"))
    assert scoring.measured(losses) == Measured(is_accuracy=True)
    assert scoring.measured(100 * losses) is None
    assert scoring.measured(losses - [0, 1.5]) is None
    assert Scoring(("error", "energy"), scales=("linear", "log")).measured(-losses) == Measured(
        is_log_cost=True
    )
    assert Scoring(("error", "energy"), ("min", "max")).measured(np.abs(losses)) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--synthetic", "mixed", "--noise", "0.05"], "--noise must be of a rate from 0 to 1"),
        (["--made-tables", "graphs", "--objectives", "3"], "--objectives of a table must be 2"),
        (
            ["--synthetic", "layers", "--in-flight", "8", "--peers", "pymoo-nsga2"],
            "--in-flight of pymoo-nsga2 must be 1, got 8",
        ),
    ],
)
def test_settings_that_cannot_be_are_one_line(tmp_path, capsys, words, message):
    assert search_quality.main([*words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise", "1"], "must be above 0 and below 1, got 1"),
        (["--in-flight", "0"], "must be 1 or more, got 0"),
        (["--made-tables", "grpahs"], "invalid choice: 'grpahs'"),
    ],
)
def test_values_of_settings_are_checked(capsys, words, message):
    with pytest.raises(SystemExit):
        options(*words)
    assert message in capsys.readouterr().err


def test_what_settings_name():
    def names(*words):
        return [make_problem(n).name for n in search_quality.problems_of(options(*words))]

    assert names("--synthetic", "layers", "--noise", "0.01", "0.05") == [
        "layers-noise-1",
        "layers-noise-5",
    ]
    assert names("--synthetic", "--objectives", "2", "3") == ["layers", "mixed", "dtlz2-3"]
    assert names("--made-tables", "sparse", "cells-log") == ["sparse", "cells-log"]
    both = options("--synthetic", "--made-tables")
    assert search_quality.theme_of(both) == "search-quality"
    themes = {
        search_quality.theme_of(options(*words))
        for words in (
            ["--synthetic"],
            ["--made-tables"],
            ["--synthetic", "--noise", "0.1"],
            ["--synthetic", "--in-flight", "1", "8"],
            ["--synthetic", "--objectives", "3"],
        )
    }
    assert len(themes) == 5


class Recorder:
    """Proposes by number, and records the order of what happens."""

    events: list[tuple[str, int]] = []

    def __init__(self, problem, seed):
        self._problem, self._n, Recorder.events = problem, 0, []

    def ask(self):
        Recorder.events.append(("ask", self._n))
        self._n += 1
        return walk(self._problem.parameters, lambda p: p.values[self._n % len(p.values)])

    def tell(self, number, losses):
        Recorder.events.append(("tell", number))


def test_evaluations_in_flight_end_in_another_order(monkeypatch):
    monkeypatch.setattr(
        type(PEERS["random"]), "make", lambda self, problem, seed: Recorder(problem, seed)
    )
    run = run_one(Job(ProblemName("layers"), "random", 0, 20, in_flight=4))
    events = Recorder.events
    assert events[:5] == [*(("ask", n) for n in range(4)), events[4]] and events[4][0] == "tell"
    under_way = np.cumsum([1 if kind == "ask" else -1 for kind, _ in events])
    assert under_way.max() == 4 and set(under_way[4:-8]) == {3, 4}
    told = [n for kind, n in events if kind == "tell"]
    assert sorted(told) == list(range(20)) and told != sorted(told)
    assert run.in_flight == 4 and run.evaluations == 20
    run_one(Job(ProblemName("layers"), "random", 0, 20))
    assert [n for kind, n in Recorder.events if kind == "tell"] == list(range(20))


@pytest.mark.parametrize("sampler", ["ours", "nsga2", "tpe"])
def test_samplers_take_results_in_any_order(sampler):
    jobs = [Job(ProblemName("layers"), sampler, 0, 14, in_flight=q) for q in (5, 5, 1)]
    first, again, alone = map(run_one, jobs)
    assert first.volumes == again.volumes and first.distinct_rows >= 13
    assert first.volumes != alone.volumes


def test_runs_in_flight_are_kept_and_shown_apart(tmp_path):
    results, name = Results(tmp_path), ProblemName("layers")
    for q in (1, 3):
        results.add(run_one(Job(name, "random", 0, 12, in_flight=q)))
    assert results.find("layers", "random")[0].in_flight == 1
    assert results.find("layers", "random", 3)[0].in_flight == 3
    jobs = search_quality.jobs_of(
        [name], ["random"], results, seeds=2, evaluations=12, caps={}, in_flight=(1, 3)
    )
    assert [(job.seed, job.in_flight) for job in jobs] == [(1, 1), (1, 3)]
    by_workers = {q: {"random": [results.find("layers", "random", q)[0]]} for q in (1, 3)}
    table = workers_table(make_problem(name), 1.0, by_workers, 12)
    one, three = table.rows
    assert one["ratio_12"] == 1.0
    assert three["ratio_12"] == pytest.approx(three["at_12"] / one["at_12"])
    run = results.find("layers", "random", 3)[0]
    assert three["rate"] == pytest.approx(12 / run.wall_s[-1])


@pytest.mark.parametrize("n_objectives", [3, 4])
def test_the_best_front_of_dtlz2_is_not_passed(n_objectives):
    problem = dtlz2(n_objectives)
    rng = np.random.default_rng(0)
    configs = [walk(problem.parameters, lambda p: rng.choice(p.values)) for _ in range(3000)]
    losses = problem.truth(configs)
    assert losses.shape == (3000, n_objectives) and np.all(losses >= 0)
    # The distance from the origin is 1 on the best front.
    radius = np.linalg.norm(losses, axis=1)
    assert radius.min() > 1 and np.median(radius) > 1.5
    on_front = [
        {p.name: 3 for p in problem.parameters if p.name.startswith("angle")}
        | {f"distance_{i}": (2 * i + 1) % 5 for i in range(8)}
        | {"kind": "b"}
    ]
    assert np.linalg.norm(problem.truth(on_front)) == pytest.approx(1)
    best = problem.best()
    assert 0 < problem.volume(losses[radius < 1.6]) < best
    with pytest.raises(ValueError, match="3 objectives or more, got 2"):
        dtlz2(2)


@pytest.mark.parametrize("sampler", ["ours", "nsga3", "tpe"])
def test_samplers_have_several_objectives(sampler):
    run = run_one(Job(ProblemName("dtlz2", n_objectives=4), sampler, 0, 10))
    assert run.evaluations == 10 and len(run.reference) == 4


def test_cells_are_a_full_grid_with_joules_of_a_wide_span():
    table = cell_table()
    assert isinstance(table, pd.DataFrame) and len(table) == 15_625
    assert table.iloc[:, :6].drop_duplicates().shape[0] == 15_625
    assert set(table.iloc[:, :6].to_numpy().ravel()) == set(OPERATIONS)
    assert table["accuracy"].between(0.1, 1).all()
    assert 15 < table["energy_j"].max() / table["energy_j"].min() < 40
    dead = (table["edge_0_3"] == "none") & (table["edge_1_3"] == "none")
    assert (table["accuracy"][dead & (table["edge_2_3"] == "none")] == 0.1).all()
    losses = np.column_stack([-table["accuracy"], table["energy_j"]])
    assert 15 < non_dominated_mask(losses, (False, False)).sum() < 300
    assert "a full grid" in make_problem(ProblemName("cells")).about
    assert make_problem(ProblemName("cells-log")).measured == Measured(True, True)


def test_a_number_of_objectives_that_hwgpt_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2, 3 or 4 objectives, got 5"):
        hwgpt(tmp_path, "h100", 5)


def test_a_clock_counts_within_its_blocks_alone():
    clock = running._Clock()
    with clock:
        sum(range(300_000))
    spent = clock.cpu_s
    sum(range(300_000))
    assert 0 < spent == clock.cpu_s <= clock.wall_s + 0.1


def test_ours_is_told_where_each_candidate_has_values_of_its_own():
    def told(name):
        searcher = optuna_peers.ours(make_problem(name), seed=0)
        return searcher._study.sampler._options.deterministic

    assert told(ProblemName("cells")) and told(ProblemName("layers"))
    # The nearest row of a sparse table answers for several candidates.
    assert not told(ProblemName("graphs")) and not told(ProblemName("sparse"))
    assert not told(ProblemName("cells", noise=0.05, validation_size=100))
