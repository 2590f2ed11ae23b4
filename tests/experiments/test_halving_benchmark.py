"""The benchmark's book-keeping: what searches are charged for, and how they are compared."""

import time
from dataclasses import replace

import pytest

from experiments.benchmarks.halving import (
    Outcome,
    Trainings,
    compared,
    joules,
    least_s,
    space,
)
from experiments.recipes import quickstart
from nas.tasks.registry import get_task
from search_spaces.space.sampling import smallest


def test_a_training_goes_on_where_it_was_and_costs_what_one_in_a_piece_does(tmp_path):
    config = quickstart("cpu")
    config = replace(config, training=replace(config.training, epochs=6), batch_size=360)
    model = smallest(space())
    whole = Trainings(tmp_path / "whole.jsonl", config).until(model, 1, None)
    pieces = Trainings(tmp_path / "pieces.jsonl", config)
    first = pieces.until(model, 1, 3)
    assert first.end is None and [look.epoch for look in first.looks] == [2, 3]
    found = Trainings(tmp_path / "pieces.jsonl", config).until(model, 1, None)
    assert found.looks[:2] == first.looks
    assert [look.quality for look in found.looks] == [look.quality for look in whole.looks]
    assert found.end.test_quality == whole.end.test_quality
    assert found.end.train_s > found.at(5).train_s > found.at(3).train_s > 0
    assert Trainings(tmp_path / "pieces.jsonl", config).until(model, 1, 3) == found
    assert joules(model, get_task("digits").workload(360)) < 1e-5


def test_arms_are_compared_at_their_end_and_at_equal_seconds():
    plain = Outcome((0.5, 0.8, 1.0), (0.5, 0.8, 0.9), (10.0, 20.0, 40.0), 3, 0)
    halved = Outcome((0.5, 0.9, 1.0), (0.5, 0.8, 0.9), (10.0, 15.0, 20.0), 2, 1)
    assert plain.at(25) == 0.8 and plain.seconds_to(0.9) == 40
    lines = compared([(plain, halved), (plain, replace(halved, train_s=(10.0, 15.0, 22.0)))])
    assert lines[0] == "hypervolume with halving: validation +0.00 ± 0.00%, test +0.00 ± 0.00%"
    assert lines[1].startswith("training seconds with halving: x 0.53 ±")
    assert "+22.31" in lines[2]
    # At 20 s: as good as the plain search at 40, which had 0.8 then.
    assert "with halving at half" in lines[3] and lines[3].endswith("-5.27 ± 66.94%")
    assert "without halving at half" in lines[4] and "-22.31" in lines[4]
    audited = [replace(o, stopped=4, lost=1) for o in (halved, halved)]
    assert "of 8 stopped, 2 would be on the last front" in compared([(plain, o) for o in audited])
    assert lines[-1].endswith("x 0.50, 0.55 (2 of 2 seeds)")


def test_a_level_that_is_never_reached_is_said():
    plain = Outcome((0.5, 1.0), (0.5, 0.9), (10.0, 20.0), 2, 0)
    poor = Outcome((0.5, 0.6), (0.5, 0.6), (10.0, 12.0), 1, 1)
    assert compared([(plain, poor)] * 2)[-1].endswith("x - (0 of 2 seeds)")
    assert poor.seconds_to(0.97) == pytest.approx(float("inf"))


def test_what_warms_a_process_up_is_not_charged_to_looks():
    calls = []

    def look():
        calls.append(1)
        end = time.process_time() + (0.2 if len(calls) == 1 else 0.01)
        while time.process_time() < end:
            pass

    assert 0.01 <= least_s(look) < 0.1
