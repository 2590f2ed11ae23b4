"""The benchmarks' book-keeping: what a supernet is charged for, and what is compared."""

import math
from dataclasses import replace

import pytest

from experiments.benchmarks.training.scratch_search import Outcome, space
from experiments.benchmarks.training.supernet_cost import (
    Shared,
    break_even,
    curve_of,
    draw_curves,
    supernet_searches,
)
from experiments.benchmarks.training.supernet_fidelity import (
    Row,
    Subsampled,
    digits,
    extent,
    members,
    report,
)
from nas.records.supernet import SupernetConfig
from nas.tasks.registry import get_task
from nas.training.config import SupernetRecipe

SHARED = Shared(1, 50.0, 10.0, 5.0, 100, (20.0, 40.0), (0.5, 0.8), (0.5, 0.7), 0.3, 0.6)


def test_break_even_counts_the_supernets_own_training():
    scratch = Outcome((0.5, 0.8, 0.9), (0.5, 0.8, 0.9), (100.0, 500.0, 900.0))
    assert SHARED.total_s == 100.0
    assert break_even(scratch, SHARED) == (500.0, 5.0)
    worse = replace(scratch, validation=(0.1, 0.2, 0.3))
    assert break_even(worse, SHARED) == (math.inf, math.inf)


def test_curves_are_quartiles_of_what_was_reached_by_then(tmp_path):
    runs = [((0.1, 0.5), (1.0, 3.0)), ((0.2, 0.6), (2.0, 4.0)), ((0.3, 0.7), (1.0, 2.0))]
    found = curve_of(runs, [0.5, 1.0, 4.0])
    assert found[0] == (0.0, 0.0, 0.0)
    assert found[1][1] == 0.1 and found[2] == pytest.approx((0.55, 0.6, 0.65))
    draw_curves({"a": found, "b": found}, [0.5, 1.0, 4.0], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000


def test_a_search_is_run_once_and_each_part_is_charged(tmp_path):
    plain = digits()
    domains = {**space().domains, "d_model": (16, 24), "depth": (1,), "patch_size": (4,)}
    config = replace(
        plain,
        space=replace(space(), domains=domains),
        trials=9,
        baselines=(),
        training=replace(plain.training, epochs=1, batch_size=256),
        supernet=SupernetConfig(
            SupernetRecipe(epochs_factor=1.0), measure_first=9, finalists=2, controls=0
        ),
    )
    told = []
    (found,) = supernet_searches(config, [3], tmp_path / "kept.jsonl", told.append)
    assert told == [found] and found.seed == 3 and found.candidates == 9
    assert min(found.train_s, found.judge_s, found.proposing_s, found.finish_s[0]) > 0
    assert 1 <= len(found.volumes) <= 2 and found.finish_s == tuple(sorted(found.finish_s))
    assert supernet_searches(config, [3], tmp_path / "kept.jsonl", told.append) == [found]


def test_fidelity_is_of_different_members_beside_simple_baselines():
    chosen = members(space(), 12)
    assert len({a.hash for a in chosen}) == 12
    rows = [Row(a, i / 20, i / 12) for i, a in enumerate(chosen)]
    found = report(rows, get_task("digits").workload(64))
    assert found[0]["by"] == "inherited accuracy" and found[0]["n"] == 12
    assert [found[0][name] for name in ("tau", "low", "high")] == pytest.approx([1, 1, 1])
    assert [row["by"] for row in found[2:]] == ["parameters", "MACs"]
    # Of what ranks perfectly all three are 1, but for rounding.
    assert all(-1 <= row["low"] <= row["tau"] + 1e-9 <= row["high"] + 2e-9 < 1.1 for row in found)
    assert extent(rows) == "inherited 0.0% to 55.0%, alone 0.0% to 91.7%"


def test_a_subsampled_task_keeps_what_it_is_judged_by():
    task = get_task("digits")
    small = Subsampled(task, 100)
    assert len(small.split("train")) == 100
    assert len(Subsampled(task, 5000).split("train")) == 1077
    assert small.split("validation") is task.split("validation")
    assert small.workload(8) == task.workload(8)
