"""Tables whose proposals repeat rows, and how their objectives are scored."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from experiments.benchmarks.sampling import search_quality
from experiments.benchmarks.sampling.peers import optuna_peers
from experiments.benchmarks.sampling.problems.graphs import all_graphs, canonical, encoded
from experiments.benchmarks.sampling.problems.problem import MINIMISED
from experiments.benchmarks.sampling.problems.registry import (
    ProblemName,
    make_problem,
    parse_canonical,
    parse_table,
)
from experiments.benchmarks.sampling.problems.scoring import Scoring
from experiments.benchmarks.sampling.problems.tabular import read_table
from experiments.benchmarks.sampling.results import Results
from experiments.benchmarks.sampling.running import Job, run_one
from nas.pareto.hypervolume import hypervolume


def test_graphs_are_as_many_as_are_published():
    graphs = all_graphs()
    # Ying et al. 2019: unique cells by vertices.
    assert Counter(len(operations) + 2 for operations, _ in graphs) == {2: 1, 3: 6, 4: 84, 5: 2441}
    assert len({tuple(encoded(graph).values()) for graph in graphs}) == len(graphs)


def test_graphs_that_compute_the_same_have_one_form():
    edges = frozenset({(0, 1), (0, 2), (1, 3), (2, 3)})
    assert canonical((("conv1x1", "maxpool"), edges)) == canonical((("maxpool", "conv1x1"), edges))
    # A vertex that leads nowhere is no part of the graph.
    assert canonical((("conv1x1", "maxpool"), frozenset({(0, 1), (0, 2), (1, 3)}))) == (
        ("conv1x1",),
        frozenset({(0, 1), (1, 2)}),
    )
    assert canonical((("conv1x1",), frozenset({(0, 1)}))) is None


@pytest.mark.parametrize("kind", ["graphs", "sparse"])
def test_a_made_table_has_repeats_that_a_run_counts(kind):
    problem = make_problem(ProblemName(kind))
    assert "of the grid is there" in problem.about
    run = run_one(Job(ProblemName(kind), "random", 0, 300))
    assert run.evaluations == 300
    assert 150 < run.distinct_rows < 300
    assert max(run.volumes) < problem.best()


def grid(path, accuracies=(0.5, 0.7, 0.6, 0.9)):
    table = pd.DataFrame(
        {
            "width": [1, 1, 2, 2],
            "depth": [1, 2, 1, 2],
            "accuracy": accuracies,
            "energy": [1.0, 10.0, 10.0, 1000.0],
        }
    )
    table.to_csv(path / "grid.csv", index=False)
    return table


def test_repeated_rows_of_a_full_grid_are_one_candidate_and_cap_no_sampler(tmp_path):
    table = grid(tmp_path)
    repeated = pd.concat([table, table.assign(accuracy=table["accuracy"] + 0.04)])
    repeated.to_csv(tmp_path / "grid.csv", index=False)
    problem = read_table(tmp_path / "grid.csv", ("accuracy", "energy"), ("max", "min"))
    assert "8 rows of 4 candidates (means of repeated ones)" in problem.about
    assert "a full grid" in problem.about
    every = [{"width": w, "depth": d} for w in (1, 2) for d in (1, 2)]
    losses = problem.truth(every)
    assert losses[:, 0] == pytest.approx([-0.52, -0.72, -0.62, -0.92])
    # Whoever evaluates all has all of the best known hypervolume.
    assert problem.volume(losses) == pytest.approx(problem.best(), rel=1e-12)


def test_an_objective_is_scored_in_decades_if_asked(tmp_path):
    grid(tmp_path)
    name = parse_table(f"{tmp_path / 'grid.csv'}:accuracy,energy:max,min:linear,log")
    assert name.scales == ("linear", "log") and name.directions == ("max", "min")
    problem = make_problem(name)
    assert "losses minus accuracy and log10 energy" in problem.about
    losses = problem.truth([{"width": 2, "depth": 2}])
    assert losses == pytest.approx(np.array([[-0.9, 3.0]]))
    assert problem.reference == pytest.approx((-0.46, 3.3))
    expected = hypervolume(
        [[-0.5, 0], [-0.7, 1], [-0.6, 1], [-0.9, 3]], problem.reference, MINIMISED
    )
    assert problem.best() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("max,min:linear,lg", "scales must be linear or log, got linear,lg"),
        ("max,up", "directions must be min or max, got max,up"),
        (
            "max,min:linear,log",
            "must have values > 0 in 'energy' to be scored in logarithms, got 0",
        ),
    ],
)
def test_a_scale_that_cannot_be_is_one_line(tmp_path, capsys, ending, words):
    grid(tmp_path).replace({"energy": {1.0: 0.0}}).to_csv(tmp_path / "grid.csv", index=False)
    options = [f"--table={tmp_path / 'grid.csv'}:accuracy,energy:{ending}"]
    assert search_quality.main([*options, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_an_accuracy_that_is_minimised_is_questioned_and_done(tmp_path, caplog, capsys):
    grid(tmp_path)

    def output(ways):
        caplog.clear()
        table, out = f"{tmp_path / 'grid.csv'}:accuracy,energy:{ways}", tmp_path / ways
        Results(out).add(run_one(Job(parse_table(table), "random", 0, 3)))
        words = ["--table", table, "--evaluations", "3", "--render", "--out", str(out)]
        assert search_quality.main(words) == 0
        return capsys.readouterr().out

    text = output("min,min")
    asked = [r.message for r in caplog.records if "to be minimised?" in r.message]
    assert len(asked) == 1 and "'accuracy'" in asked[0] and "\n" not in asked[0]
    assert "losses accuracy and energy of 4 rows" in text and "reference 0.94, " in text
    assert "distinct rows" in text and "repeats" in text
    output("max,max")
    asked = [r.message for r in caplog.records if "to be maximised?" in r.message]
    assert len(asked) == 1 and "'energy'" in asked[0] and "min is usual" in asked[0]
    text = output("max,min")
    assert not any("to be minimised?" in r.message for r in caplog.records)
    assert "losses minus accuracy and energy of 4 rows" in text and "reference -0.46, " in text


def test_a_direction_or_scale_of_another_name_is_refused():
    with pytest.raises(ValueError, match="directions must be min or max, got up,min"):
        Scoring(("a", "b"), ("up", "min"))
    with pytest.raises(ValueError, match="scales must be linear or log, got log,ln"):
        Scoring(("a", "b"), scales=("log", "ln"))


FORM = """
def form(config):
    if config["kind"] == "none":
        return {"kind": "none"}
    return config

def strange(config):
    return {"kind": "other"}

def nothing(config):
    return None
"""


@pytest.fixture
def with_form(tmp_path):
    """Of 20 candidates, the ten without a kind are one, and only one of them is in the table."""
    rows = [("none", 0, 0.5, 1.0)]
    rows += [("some", size, 0.6 + size / 100, 2.0 + size) for size in range(10)]
    columns = ["kind", "size", "accuracy", "energy"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "kinds.csv", index=False)
    (tmp_path / "form.py").write_text(FORM)
    return f"{tmp_path / 'kinds.csv'}:accuracy,energy:max,min", str(tmp_path / "form.py")


def named(with_form, function):
    table, path = with_form
    arguments = search_quality._parser().parse_args(
        ["--table", table, "--canonical", f"{path}:{function}", "--out", "unused"]
    )
    return search_quality.problems_of(arguments)[0]


def test_a_canonical_form_serves_every_sampler_and_ours_is_told_of_it(with_form):
    name = named(with_form, "form")
    problem = make_problem(name)
    same = [{"kind": "none", "size": size} for size in range(10)]
    assert problem.truth(same) == pytest.approx(np.tile([-0.5, 1.0], (10, 1)))
    assert len({problem.row_of(config) for config in same}) == 1
    assert "canonical form by form" in problem.about and problem.name == "kinds-canonical"
    searcher = optuna_peers.ours(problem, seed=0)
    kinds = []
    for number in range(11):
        config = searcher.ask()
        kinds.append(config["kind"])
        searcher.tell(number, problem.truth([config])[0].tolist())
    # The first trial defines the space; later ones are one of each equivalent.
    assert kinds[1:].count("none") <= 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("absent", "must have a function 'absent'"),
        ("for", "must have a function"),
        ("not a name", "--canonical must be FILE.py:FUNCTION"),
    ],
)
def test_a_canonical_function_that_is_not_there_is_one_line(
    with_form, tmp_path, capsys, function, words
):
    table, path = with_form
    options = ["--table", table, "--canonical", f"{path}:{function}"]
    assert search_quality.main([*options, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_canonical_file_that_fails_or_serves_no_table_is_one_line(with_form, tmp_path, capsys):
    table, _ = with_form
    broken = tmp_path / "broken.py"
    broken.write_text("raise OSError('so it is')")
    out = ["--out", str(tmp_path / "out")]
    assert search_quality.main(["--table", table, "--canonical", f"{broken}:form", *out]) == 2
    error = capsys.readouterr().err
    assert "cannot be imported: OSError('so it is')" in error and error.count("\n") == 1
    assert search_quality.main(["--synthetic", "--canonical", f"{broken}:form", *out]) == 2
    assert "--canonical is of a --table" in capsys.readouterr().err
    assert parse_canonical(None) is None


@pytest.mark.parametrize(
    ("function", "words"),
    [("strange", "got kind='other'"), ("nothing", "must return a dictionary, got None")],
)
def test_a_canonical_function_is_checked_where_it_is_used(with_form, function, words):
    problem = make_problem(named(with_form, function))
    with pytest.raises(ValueError, match=words):
        problem.truth([{"kind": "some", "size": 1}])
