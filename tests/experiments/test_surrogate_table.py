"""Tables too sparse to look candidates up in, whose rows a surrogate is fitted to."""

import numpy as np
import pandas as pd
import pytest

from experiments.benchmarks.sampling import search_quality
from experiments.benchmarks.sampling.problems import surrogate_table
from experiments.benchmarks.sampling.problems.registry import parse_table
from experiments.benchmarks.sampling.problems.space import choice
from experiments.benchmarks.sampling.problems.surrogate_table import encoded, qualities
from experiments.benchmarks.sampling.problems.tabular import read_table
from experiments.benchmarks.sampling.results import Results
from experiments.benchmarks.sampling.running import Job, run_one

WIDTHS = tuple("abcdef")
KINDS = ("plain", "gated", "mixed")


def sparse_table(n=150, seed=0):
    """Of 3 * 8**6 candidates: error falls with every width, cost rises, the kind moves both."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(rng.integers(1, 9, size=(n, len(WIDTHS))), columns=list(WIDTHS))
    rows["kind"] = rng.choice(KINDS, size=n)
    factor = rows["kind"].map({"plain": 1.0, "gated": 1.5, "mixed": 3.0})
    total = rows[list(WIDTHS)].sum(axis=1)
    return rows.assign(accuracy=90 - 200 / (total * factor), cost=total**2 * factor)


@pytest.fixture
def short_evolution(monkeypatch):
    monkeypatch.setattr(surrogate_table, "_STARTS", 1)
    monkeypatch.setattr(surrogate_table, "_GENERATIONS", 10)
    monkeypatch.setattr(surrogate_table, "_POPULATION", 50)


def written(folder, table):
    table.to_csv(folder / "sparse.csv", index=False)
    return folder / "sparse.csv"


def read(folder, table):
    return read_table(written(folder, table), ("accuracy", "cost"), ("max", "min"))


def random_configs(problem, n, seed=1):
    rng = np.random.default_rng(seed)
    columns = {p.name: rng.integers(len(p.values), size=n) for p in problem.parameters}
    return [{p.name: p.values[columns[p.name][i]] for p in problem.parameters} for i in range(n)]


def test_a_sparse_table_becomes_a_surrogate_that_says_how_good_it_is(tmp_path):
    problem = read(tmp_path, sparse_table())
    assert problem.name == "sparse-surrogate"
    assert [p.values for p in problem.parameters[-2:]] == [
        tuple(range(1, 9)),
        tuple(sorted(KINDS)),
    ]
    for words in ("accuracy (R2 0.", "cost (R2 0.", "Kendall tau 0.", "5-fold", "150 candidates"):
        assert words in problem.about
    assert "best known" in problem.about and "exact" not in problem.about


def test_measured_candidates_have_what_was_measured_and_no_other_is_beyond(tmp_path):
    table = sparse_table()
    problem = read(tmp_path, table)
    measured = table[["accuracy", "cost"]].to_numpy() * [-1, 1]
    configs = table[[p.name for p in problem.parameters]].to_dict("records")
    assert problem.truth(configs) == pytest.approx(measured, rel=1e-12)
    others = problem.truth(random_configs(problem, 300))
    assert np.all(others >= measured.min(axis=0)) and np.all(others <= measured.max(axis=0))
    assert np.all(measured.max(axis=0) < problem.reference)


def test_a_surrogate_orders_candidates_that_it_has_not_seen(tmp_path):
    problem, unseen = read(tmp_path, sparse_table()), sparse_table(seed=9)
    configs = unseen[[p.name for p in problem.parameters]].to_dict("records")
    found = problem.truth(configs)
    assert np.corrcoef(-found[:, 0], unseen["accuracy"])[0, 1] > 0.8
    assert np.corrcoef(found[:, 1], unseen["cost"])[0, 1] > 0.8


def test_a_surrogate_is_the_same_in_every_process(tmp_path):
    first, again = (read(tmp_path, sparse_table()) for _ in range(2))
    configs = random_configs(first, 50)
    together = first.truth(configs)
    assert first.about == again.about
    assert np.array_equal(together, again.truth(configs))
    # Runs ask for one at a time, the search for the best front for many.
    assert np.array_equal(together, np.vstack([again.truth([config]) for config in configs]))


def test_the_best_known_front_is_beyond_what_is_measured_and_what_is_drawn(
    tmp_path, short_evolution
):
    table = sparse_table(n=60)
    problem = read(tmp_path, table)
    best = problem.best()
    assert best == problem.best()
    assert best >= problem.volume(table[["accuracy", "cost"]].to_numpy() * [-1, 1])
    assert best > problem.volume(problem.truth(random_configs(problem, 2000)))


def test_a_table_whose_surrogate_is_worthless_is_refused_in_one_line(tmp_path):
    table = sparse_table()
    table["cost"] = np.random.default_rng(3).random(len(table))
    with pytest.raises(ValueError, match=r"sparse.csv .* 0\.5 or more, got .* for 'cost'$") as e:
        read(tmp_path, table)
    assert "\n" not in str(e.value)


def test_an_objective_that_never_varies_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 0.00 for 'cost'"):
        read(tmp_path, sparse_table().assign(cost=1.0))


def test_candidates_are_counted_and_not_rows(tmp_path):
    table = sparse_table(n=30)
    with pytest.raises(ValueError, match="50 candidates or more for a surrogate, got 30"):
        read(tmp_path, pd.concat([table, table]))


@pytest.mark.parametrize(
    ("column", "words"), [("a", "a value"), ("kind", "a value"), ("cost", "a finite number")]
)
def test_an_empty_cell_is_refused(tmp_path, column, words):
    table = sparse_table().astype({"a": float})
    table.loc[3, column] = np.nan
    with pytest.raises(ValueError, match=f"{words} in every row of '{column}'"):
        read(tmp_path, table)


def test_repeated_rows_do_not_flatter_the_figures():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.random((40, 3)), 5, axis=0)
    losses = np.repeat(rng.random((40, 2)), 5, axis=0)
    found = qualities(features, losses, np.repeat(np.arange(40), 5))
    assert all(abs(quality.tau) < 0.4 for quality in found)


def test_numbers_stay_numbers_and_other_values_have_a_column_each():
    space = (choice("n", 1, 10, 100), choice("kind", "x", "y"), choice("flag", False, True))
    columns = {
        "n": np.array([100, 1]),
        "kind": np.array(["y", "x"]),
        "flag": np.array([True, False]),
    }
    assert encoded(space, columns).tolist() == [[100, 0, 1, 1], [1, 1, 0, 0]]


def test_the_benchmark_runs_on_a_sparse_table(tmp_path, capsys, short_evolution):
    text = f"{written(tmp_path, sparse_table(n=60))}:accuracy,cost:max,min"
    Results(tmp_path).add(run_one(Job(parse_table(text), "random", seed=0, evaluations=5)))
    options = ["--table", text, "--render", "--evaluations", "5", "--out", str(tmp_path)]
    assert search_quality.main(options) == 0
    found = capsys.readouterr().out
    assert "accuracy (R2" in found and "Kendall tau" in found


def test_the_benchmark_refuses_a_worthless_table_in_one_line(tmp_path, capsys):
    table = sparse_table()
    table["accuracy"] = np.random.default_rng(3).random(len(table))
    options = [f"--table={written(tmp_path, table)}:accuracy,cost", "--out", str(tmp_path / "out")]
    assert search_quality.main(options) == 2
    found = capsys.readouterr().err
    assert found.startswith("search_quality: table") and found.count("\n") == 1
