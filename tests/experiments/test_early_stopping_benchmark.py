"""Replays of early stopping: what a search is charged for, and what it loses."""

from dataclasses import asdict
from json import dumps

import pytest

from experiments.benchmarks.sampling import early_stopping
from experiments.benchmarks.sampling.early_stopping import (
    compare,
    is_ranked,
    main,
    near_front,
    replay,
    rules_for,
    trains_on,
)
from experiments.learning_curves import Curve, read_curves
from nas.records.rungs import RungPoint
from nas.searching.early_stopping import Contender

REFERENCE = (0.0, 10.0)


def curve(name, energy_j, *qualities, train_s=10.0):
    return Curve(name, energy_j, qualities, (0.01,) * len(qualities), train_s)


CURVES = [
    curve("a", 1.0, 0.5, 0.7),
    curve("b", 2.0, 0.6, 0.8),
    curve("c", 3.0, 0.3, 0.4),
    # Slow at first: on the front in the end.
    curve("d", 4.0, 0.2, 0.9),
]


def stop_dominated(trial, others):
    return trains_on(trial, others, least_errors=0.5)


def test_a_stopped_trial_costs_its_epochs_and_adds_nothing():
    run = replay(CURVES, (0, 1, 2, 3), (1,), stop_dominated, REFERENCE)
    assert run.stopped == (2, 3)
    assert run.seconds.tolist() == [0.0, 10.0, 20.0, 25.0, 30.0]
    assert run.volumes[1] == pytest.approx(0.7 * 10) and run.volumes[2] == run.volumes[4]
    assert run.at(19.0) == run.volumes[1]
    assert run.seconds_to(run.volumes[2]) == 20.0 and run.seconds_to(100.0) == float("inf")


def test_the_first_trials_are_never_stopped(monkeypatch):
    monkeypatch.setattr(early_stopping, "_STARTUP", 4)
    assert replay(CURVES, (0, 1, 2, 3), (1,), stop_dominated, REFERENCE).stopped == ()


def test_ranks_pass_whole_fronts_up_to_the_share():
    def at(number, quality, energy_j):
        return Contender(number, RungPoint(1, quality, 0.01), energy_j)

    front = [at(0, 0.5, 1.0), at(1, 0.9, 2.0)]
    second = at(2, 0.4, 3.0)
    assert not is_ranked(second, front, eta=3)
    assert is_ranked(second, [*front, at(3, 0.3, 4.0), at(4, 0.2, 5.0)], eta=2)


def test_rows_name_what_was_saved_and_lost():
    rules = [("plain", lambda *_: True, ()), ("ours", stop_dominated, (1,))]
    plain, ours = compare(CURVES, rules, 30)
    assert plain["seconds"] == 1.0 and plain["lost"] == 0.0 and plain["to_goal"] == 1.0
    assert ours["seconds"] < 0.9 and ours["lost"] > 0 and ours["stopped_front"] > 0
    assert ours["stopped"] > ours["stopped_front"]


def test_the_half_near_the_front_is_the_least_dominated():
    assert [c.architecture for c in near_front(CURVES)] == ["a", "b"]


def test_rungs_end_before_the_last_epoch():
    assert all(max(rungs, default=0) < 6 for _, _, rungs in rules_for(6))


def test_the_command_prints_both_tables(tmp_path, capsys):
    path = tmp_path / "curves.jsonl"
    path.write_text("".join(dumps(asdict(c)) + "\n" for c in CURVES))
    assert read_curves(path) == CURVES
    assert main([str(path), "--orders", "5"]) == 0
    text = capsys.readouterr().out
    assert "not dominated by 0.5 SE" in text and "4 candidates of 2 epochs" in text
