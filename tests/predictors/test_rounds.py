"""Rounds of variants side by side: resuming, failures, and what ratios are made of."""

from dataclasses import replace

import pytest
from record_fakes import DIGITS, made_record

from predictors.campaign import rounds as rounds_module
from predictors.campaign.plan import PlanItem, plan_items
from predictors.campaign.rounds import Rounds, failures_of, measure_rounds, summarise
from predictors.measurement.process import MeasureError, MeasureInterrupted, MeasureTimeout
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import EnergyRecord
from predictors.measurement.runner import make_job
from predictors.measurement.side_by_side import measure_side_by_side
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)

QUICK = get_protocol("quick")


def variant(precision):
    block = Compression(precision)
    layer = LayerSpec(AttentionSpec(1, 1, 8, compression=block), FfnSpec(8, compression=block))
    return Architecture(8, (layer,), patch_size=4)


ITEMS = tuple(PlanItem(variant(name), DIGITS) for name in ("fp32", "bf16", "int8"))


def rounds_of(n_rounds, items=ITEMS):
    return Rounds((items,), n_rounds, plan_items(items, protocol=QUICK, device="cpu"))


def job(item):
    return make_job("serve", item.architecture, item.workload, protocol=QUICK)


class Device:
    """Stands for measuring side by side: a round's level moves all of its joules alike."""

    def __init__(self, levels, failing=None):
        self.levels, self.failing = iter(levels), failing or {}
        self.rounds = []

    def __call__(self, jobs, protocol, device, *, seed, total_timeout_s, on_turn):
        level = next(self.levels)
        precisions = [job["architecture"]["layers"][0]["ffn"]["precision"] for job in jobs]
        self.rounds.append(precisions)
        own_j = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0}
        return [
            self.failing[name]
            if name in self.failing
            else made_record(
                Architecture.from_dict(job["architecture"]), DIGITS, own_j[name] * level
            )
            for name, job in zip(precisions, jobs, strict=True)
        ]


class Listener:
    """Collects what ends: how many rounds, of how many, and the number of results."""

    def __init__(self):
        self.rounds = []

    def on_turn(self, done, total):
        pass

    def on_round(self, done, total, results):
        self.rounds.append((done, total, len(results)))


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measure rounds on a ``Device``; return it."""

    def measure(rounds, levels, failing=None, **options):
        device = Device(levels, failing)
        monkeypatch.setattr(rounds_module, "measure_side_by_side", device)
        measure_rounds(rounds, tmp_path / "r.jsonl", job, "cpu", **options)
        return device

    return measure


def test_drift_between_rounds_cancels_in_ratios_and_widens_joules(measured, tmp_path):
    measured(rounds_of(3), [1.0, 1.5, 0.8])
    fp32, bf16, int8 = summarise(rounds_of(3), tmp_path / "r.jsonl")
    assert fp32.ratio is None and fp32.n_rounds == 3
    assert bf16.ratio.range == pytest.approx((0.5, 0.5, 0.5))
    assert int8.ratio.range == pytest.approx((0.25, 0.25, 0.25))
    # The geometric mean of 4, 6 and 3.2, by Student's t of two degrees of freedom: 4.303.
    assert fp32.energy.mean == pytest.approx((4 * 6 * 3.2) ** (1 / 3))
    assert fp32.energy.high / fp32.energy.mean == pytest.approx(2.2070, abs=1e-4)


def test_a_single_round_has_the_interval_of_its_windows(measured, tmp_path):
    measured(rounds_of(1), [1.0])
    fp32, bf16, _ = summarise(rounds_of(1), tmp_path / "r.jsonl")
    assert fp32.energy.range == pytest.approx((3.92, 4.0, 4.08))
    assert bf16.ratio.range == pytest.approx((0.5, 0.5, 0.5))


def test_what_is_measured_is_not_measured_again(measured, tmp_path):
    assert len(measured(rounds_of(2), [1.0, 1.0]).rounds) == 2
    before = (tmp_path / "r.jsonl").read_bytes()
    assert measured(rounds_of(2), []).rounds == []
    assert (tmp_path / "r.jsonl").read_bytes() == before
    assert len(measured(rounds_of(3), [1.0]).rounds) == 1


def test_a_precision_that_is_added_has_the_baseline_beside_it(measured, tmp_path):
    measured(rounds_of(2, ITEMS[:2]), [1.0, 1.0])
    # This session is twice as dear, which is no gain and no loss of int8.
    device = measured(rounds_of(2), [2.0, 2.0])
    assert device.rounds == [["fp32", "int8"]] * 2
    _, bf16, int8 = summarise(rounds_of(2), tmp_path / "r.jsonl")
    assert bf16.ratio.mean == pytest.approx(0.5) and int8.ratio.mean == pytest.approx(0.25)


def test_where_memory_is_short_each_part_of_a_round_has_the_baseline_beside_it(measured, tmp_path):
    rounds = replace(rounds_of(2), most_beside=2)
    # The second part of each round is twice as dear.
    device = measured(rounds, [1.0, 2.0, 1.0, 2.0])
    assert device.rounds == [["fp32", "bf16"], ["fp32", "int8"]] * 2
    fp32, bf16, int8 = summarise(rounds, tmp_path / "r.jsonl")
    assert bf16.ratio.mean == pytest.approx(0.5) and int8.ratio.mean == pytest.approx(0.25)
    assert (fp32.n_rounds, bf16.n_rounds) == (2, 2)
    assert measured(rounds, []).rounds == []


def test_a_baseline_that_fails_is_in_no_later_part(measured, tmp_path):
    rounds = replace(rounds_of(2), most_beside=2)
    failing = {"fp32": MeasureError("no memory")}
    device = measured(rounds, [1.0] * 3, failing)
    assert device.rounds == [["fp32", "bf16"], ["int8"], ["bf16", "int8"]]
    assert [v.ratio for v in summarise(rounds, tmp_path / "r.jsonl")] == [None, None]
    # Without a baseline nothing that is measured is measured again beside what is added.
    few, more = rounds_of(1, ITEMS[:2]), rounds_of(1)
    (tmp_path / "r.jsonl").unlink()
    measured(few, [1.0], failing)
    assert measured(more, [1.0], failing).rounds == [["int8"]]


def test_parts_that_were_measured_before_the_budget_ends_are_reported(
    measured, tmp_path, monkeypatch
):
    clock = iter([0.0, 0.0, 5.0, 5.0, 5.0])
    monkeypatch.setattr(rounds_module.time, "monotonic", lambda: next(clock))
    listener = Listener()
    measured(replace(rounds_of(1), most_beside=2), [1.0], budget_s=8.0, listener=listener)
    assert listener.rounds == [(0, 1, 2)]


def test_a_variant_that_fails_is_left_out_and_retried_where_that_is_said(measured, tmp_path):
    path, failing = tmp_path / "r.jsonl", {"int8": MeasureError("no kernel")}
    device = measured(rounds_of(2), [1.0, 1.0], failing)
    assert device.rounds == [["fp32", "bf16", "int8"], ["fp32", "bf16"]]
    assert failures_of(rounds_of(2), path) == {ITEMS[2]: "no kernel"}
    assert measured(rounds_of(2), []).rounds == []
    assert measured(rounds_of(2), [1.0, 1.0], retry_failed=True).rounds == [["fp32", "int8"]] * 2
    assert failures_of(rounds_of(2), path) == {}


def test_a_lost_sensor_is_no_failure_of_the_variant(measured, tmp_path):
    failing = {"int8": MeasureInterrupted("lost")}
    assert len(measured(rounds_of(2), [1.0, 1.0], failing).rounds) == 2
    assert failures_of(rounds_of(2), tmp_path / "r.jsonl") == {}
    assert measured(rounds_of(2), [1.0, 1.0]).rounds == [["fp32", "int8"]] * 2


def test_no_round_starts_after_the_budget(measured, tmp_path, monkeypatch):
    clock = iter([0.0, 1.0, 6.0, 6.0, 6.0])
    monkeypatch.setattr(rounds_module.time, "monotonic", lambda: next(clock))
    # The first round takes 5 s of 10, of which 4 are left.
    assert len(measured(rounds_of(3), [1.0] * 3, budget_s=10.0).rounds) == 1


def test_a_variant_that_the_budget_cuts_off_stays_pending(measured, tmp_path, monkeypatch):
    clock = iter([0.0, 1.0, 11.0, 11.0, 11.0])
    monkeypatch.setattr(rounds_module.time, "monotonic", lambda: next(clock))
    measured(rounds_of(1), [1.0], {"int8": MeasureTimeout("long")}, budget_s=10.0)
    assert failures_of(rounds_of(1), tmp_path / "r.jsonl") == {}


@pytest.mark.usefixtures("measured_eagerly")
def test_real_processes_take_turns_and_one_that_fails_stops_none(tmp_path):
    # Weights that are not there end its process.
    broken = make_job("serve", variant("fp32"), DIGITS, protocol=QUICK, weights=tmp_path / "none")
    good = make_job(
        "serve", variant("fp32"), DIGITS, protocol=QUICK, meter="estimate", origin="checkpoint x"
    )
    turns = []
    first, failed = measure_side_by_side(
        [good, broken], QUICK, "cpu", on_turn=lambda done, total: turns.append((done, total))
    )
    assert isinstance(first, EnergyRecord) and isinstance(failed, MeasureError)
    assert turns == [(i, 6) for i in range(6)]
    assert first.reading.n_repeats == 6 and first.origin == "checkpoint x"
    assert EnergyRecord.from_dict(first.to_dict()) == first
    assert "origin" not in made_record(variant("fp32"), DIGITS, 1.0).to_dict()
