"""Curves, results that are kept, and the samplers' side of the search benchmarks."""

import numpy as np
import pytest

from experiments.benchmarks.sampling import search_overhead, search_quality
from experiments.benchmarks.sampling.curves import (
    LEAST_REGRET,
    evaluations_to,
    over_time,
    quartiles,
    regret,
    volume_curve,
)
from experiments.benchmarks.sampling.peers import registry as peers
from experiments.benchmarks.sampling.problems.registry import ProblemName
from experiments.benchmarks.sampling.problems.synthetic import mixed
from experiments.benchmarks.sampling.report import table_of
from experiments.benchmarks.sampling.results import Results, Run
from experiments.benchmarks.sampling.running import Job, run_one
from nas.pareto.hypervolume import hypervolume


def run_of(seed=0, volumes=(0.1, 0.2), version="v", sampler="random", problem="mixed"):
    seconds = [0.1 * (i + 1) for i in range(len(volumes))]
    reference = mixed().reference
    return Run(
        problem, sampler, seed, version, reference, len(volumes), list(volumes), seconds, seconds
    )


def test_a_curve_is_the_hypervolume_of_what_came_before():
    rng = np.random.default_rng(0)
    losses = rng.random((40, 2)) * 1.3
    found = volume_curve(losses, (1.0, 1.0))
    expected = [hypervolume(losses[: n + 1], (1.0, 1.0), (False, False)) for n in range(40)]
    assert found == pytest.approx(expected)
    assert np.all(np.diff(found) >= 0)


def test_regret_and_when_it_is_reached():
    found = regret(np.array([0.0, 0.5, 0.9, 1.0]), 1.0)
    assert found == pytest.approx([1.0, 0.5, 0.1, LEAST_REGRET])
    assert [evaluations_to(found, t) for t in (1.0, 0.5, 0.3, 1e-9)] == [1, 2, 3, None]


def test_quartiles_end_with_the_shortest_curve():
    curves = [np.array([1.0, 0.8, 0.6]), np.array([0.5, 0.4]), np.array([0.9, 0.6])]
    assert quartiles(curves)[1] == pytest.approx([0.9, 0.6])
    assert quartiles(curves)[0] == pytest.approx([0.7, 0.5])


def test_over_time_a_run_counts_while_it_is_under_way():
    seconds = [np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0])]
    regrets = [np.array([0.9, 0.5, 0.1]), np.array([0.7, 0.3])]
    found = over_time(seconds, regrets, np.array([0.5, 1.5, 2.0, 3.0, 3.5]))[1]
    assert found == pytest.approx([np.nan, np.nan, 0.6, 0.4, np.nan], nan_ok=True)


def test_results_are_found_again_and_the_last_counts(tmp_path):
    results = Results(tmp_path / "out")
    assert results.find("mixed", "random") == {}
    for run in (run_of(0), run_of(1), run_of(0, volumes=(0.3, 0.4))):
        results.add(run)
    found = results.find("mixed", "random")
    assert found == {0: run_of(0, volumes=(0.3, 0.4)), 1: run_of(1)}
    assert results.find("mixed", "tpe") == {}


def test_a_torn_line_takes_no_other_along(tmp_path):
    results = Results(tmp_path)
    results.add(run_of(0))
    path = tmp_path / "mixed--random.jsonl"
    path.write_text(path.read_text() + '{"problem": "mixed", "sam')
    assert set(results.find("mixed", "random")) == {0}
    results.add(run_of(2))
    assert set(results.find("mixed", "random")) == {0, 2}


def test_what_is_missing_is_run_again(tmp_path):
    results = Results(tmp_path)
    results.add(run_of(0))
    options = {"version": "v", "evaluations": 2, "reference": mixed().reference}

    def missing(**changed):
        return results.missing("mixed", "random", range(2), **(options | changed))

    assert missing() == missing(evaluations=1) == [1]
    assert missing(evaluations=3) == missing(version="w") == [0, 1]
    assert missing(reference=(1.0, 2.0)) == [0, 1]
    assert missing(version=None) == [1]


def test_a_benchmark_goes_on_where_it_was(tmp_path):
    names = [ProblemName("mixed")]

    def jobs():
        return search_quality.jobs_of(
            names, ["random"], Results(tmp_path), seeds=3, evaluations=5, caps={"random": 4}
        )

    assert [(job.seed, job.evaluations) for job in jobs()] == [(0, 4), (1, 4), (2, 4)]
    Results(tmp_path).add(run_one(jobs()[1]))
    assert [job.seed for job in jobs()] == [0, 2]


@pytest.mark.parametrize("sampler", ["ours", "random", "nsga2", "tpe-group"])
@pytest.mark.parametrize("problem", ["layers", "mixed"])
def test_a_run_is_whole_and_the_same_again(sampler, problem):
    first, again = (run_one(Job(ProblemName(problem), sampler, 3, 9)) for _ in range(2))
    assert first.volumes == again.volumes
    assert first.evaluations == len(first.cpu_s) == len(first.wall_s) == 9
    assert np.all(np.diff(first.cpu_s) >= 0)
    assert first.distinct_rows == 9


@pytest.mark.parametrize(
    ("sampler", "package"), [("pymoo-nsga2", "pymoo"), ("syne-morea", "syne_tune")]
)
def test_peers_of_flat_spaces(sampler, package):
    pytest.importorskip(package)
    first, again = (run_one(Job(ProblemName("layers"), sampler, 3, 60)) for _ in range(2))
    assert first.volumes == again.volumes
    assert first.volumes[-1] > first.volumes[0]


def test_a_botorch_column_that_is_not_active_stands_still():
    pytest.importorskip("botorch")
    import torch

    from experiments.benchmarks.sampling.peers.botorch_peer import conditions, fill
    from experiments.benchmarks.sampling.problems.space import choice

    space = [choice("n", 2, 3, 4), *(choice(f"a_{i}", 1, 2, above=("n", i)) for i in range(4))]
    x = torch.tensor([[0.0, 1, 1, 1, 1], [0.5, 1, 1, 1, 1], [1.0, 1, 1, 1, 1]])
    assert fill(x, conditions(space))[:, 1:].tolist() == [
        [1, 1, 0.5, 0.5],
        [1, 1, 1, 0.5],
        [1, 1, 1, 1],
    ]


def test_a_version_is_that_of_the_code_alone():
    same = peers.without_words('def f():\n    """Say."""\n    return 1  # one\n')
    assert same == peers.without_words('def f():\n    """Tell."""\n\n    return 1\n')
    assert same != peers.without_words('def f():\n    """Say."""\n    return 2\n')
    assert len(peers.PEERS["ours"].version()) == 12


def test_what_is_not_installed_is_named_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    absent = peers.Peer("absent", "", "nothing", "make", "no-such-distribution")
    monkeypatch.setitem(peers.PEERS, "absent", absent)
    jobs = search_quality.jobs_of(
        [ProblemName("mixed")],
        ["absent", "random"],
        Results(tmp_path),
        seeds=1,
        evaluations=3,
        caps={},
    )
    assert [job.sampler for job in jobs] == ["random"]
    assert "pip install 'joulenas[peers]'" in caplog.text


def test_the_table_says_how_many_evaluations_ours_needs():
    problem, n = mixed(), 100
    slow, fast = np.linspace(0.01, 0.5, n), np.minimum(np.linspace(0.02, 1.0, n), 0.8)
    runs = {
        "ours": [run_of(s, fast.tolist(), sampler="ours") for s in range(3)],
        "random": [run_of(s, slow.tolist()) for s in range(3)],
        "gp": [run_of(0, slow[:40].tolist(), sampler="gp")],
    }
    text = table_of(problem, 1.0, runs, n).text()
    assert "ours to random's median at 100 (0.5000): 50 evaluations, 2.0x fewer" in text
    assert "(the best peer)" in text
    assert "gp was given 40 evaluations only" in text
    assert "has runs of versions" not in text
    runs["random"][0] = run_of(0, slow.tolist(), version="w")
    assert "random has runs of versions v, w" in table_of(problem, 1.0, runs, n).text()


@pytest.mark.parametrize("text", ["gp", "nothing=3", "gp=0", "gp=x"])
def test_a_cap_names_a_sampler_and_a_number(text):
    with pytest.raises(ValueError, match="--cap must be"):
        search_quality.caps_of([text])
    assert search_quality.caps_of(["gp=100"]) == {"gp": 100}


def test_a_benchmark_of_nothing_is_an_error(tmp_path, capsys):
    assert search_quality.main(["--out", str(tmp_path)]) == 2
    assert "name one problem" in capsys.readouterr().err


def test_tables_and_plots_of_what_is_there(tmp_path, capsys):
    for seed in range(2):
        Results(tmp_path).add(run_of(seed, [0.1, 0.2, 0.3]))
    options = ["--synthetic", "--render", "--evaluations", "3", "--out", str(tmp_path)]
    assert search_quality.main(options) == 0
    found = capsys.readouterr().out
    assert "random" in found and "layers" not in found
    assert (tmp_path / "mixed.png").stat().st_size > 10_000


def test_what_the_overhead_is_measured_on():
    trials = search_overhead.finished(search_overhead.layers(), 30, seed=0)
    assert all(t.params.keys() == t.distributions.keys() for t in trials)
    cost = search_overhead.proposing("random", 30, asks=2)
    # A tenth of the trials, that fits of ours are among them.
    assert cost.asks == 4
    front, volume = search_overhead.front_queries(2_000)
    assert front.n_front == volume.n_front > 50
    costs, queries = search_overhead.tables([cost], [], [front, volume])
    assert costs.rows[0]["wall_ms"] == 1e3 * cost.wall_s
    assert "front of trials" in queries.text()
