import json
import resource
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import FakeClock, FakeMeter
from record_fakes import made_record
from search_fakes import WORKLOAD, make_trial, reading

from nas.analysis.account import render_account, render_spending
from nas.analysis.summary import summarise
from nas.core.retry import patience
from nas.core.units import format_joules
from nas.records.goals import Goals
from nas.searching.device_account import DeviceAccount, device_energy_j
from nas.tasks.base.metric import ACCURACY, BITS_PER_BYTE
from predictors.measurement.records import append_records
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec

MODEL = Architecture(8, (LayerSpec(AttentionSpec(2, 1, 4), FfnSpec(8)),), patch_size=4)


def trial(number, quality, energy_j, baseline=False, architecture=MODEL):
    return make_trial(
        number=number,
        state="complete",
        architecture=architecture,
        quality=quality,
        quality_se=0.01,
        reading=reading(energy_j),
        baseline=baseline,
        train_energy_j=30.0,
        measure_energy_j=10.0,
    )


class FakeRun:
    """What ``summarise`` asks of a run."""

    stop_reason = None
    meter = "fake"
    unit = "sample"

    def __init__(self, folder, *records):
        self.device_account_path = folder / "device.jsonl"
        self.calibration_path = folder / "calibration.jsonl"
        self.pruning_path = folder / "pruning.json"
        self._records = list(records)
        self.config = SimpleNamespace(
            trials=len(records),
            carbon_g_per_kwh=360.0,
            goals=Goals(),
            supernet=None,
            checkpoint=None,
            space=SimpleNamespace(parent=None),
            has_finalists=False,
            teacher=None,
        )

    def trials(self):
        return self._records

    def teacher(self):
        return None


def account(path, clock, meter, intervals):
    with DeviceAccount(path, meter, None) as kept:
        for number, seconds in enumerate(intervals):
            clock.advance(seconds)
            kept.on_change(None, trial(number, 0.9, 1.0))


def test_idle_is_what_the_device_drew_beside_training_and_measuring(tmp_path):
    run = FakeRun(tmp_path, trial(0, 0.9, 2.0, baseline=True), trial(1, 0.95, 1.0))
    assert summarise(run).idle_energy_j is None
    clock = FakeClock()
    meter = FakeMeter(clock, power_w=10.0)
    account(run.device_account_path, clock, meter, [3.0, 2.0])
    account(run.device_account_path, clock, FakeMeter(clock, 10.0), [5.0])
    found = summarise(run)
    assert found.idle_energy_j == pytest.approx(100.0 - 80.0)
    assert found.spent_energy_j == pytest.approx(100.0)
    assert found.carbon_g == pytest.approx(100.0 / 3.6e6 * 360)
    assert found.saving.inferences_to_break_even == pytest.approx(100.0)
    assert summarise(run, carbon_g_per_kwh=36.0).carbon_g == pytest.approx(found.carbon_g / 10)


def test_a_disk_that_is_full_for_a_while_leaves_no_half_line(tmp_path, monkeypatch):
    clock, path = FakeClock(), tmp_path / "device.jsonl"
    account(path, clock, FakeMeter(clock), [1.0])
    before_j = device_energy_j(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def room(_=None):
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr("nas.core.retry.time.sleep", room)
    try:
        with patience(wait_s=60.0):
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limits[1]))
            account(path, clock, FakeMeter(clock), [1.0])
    finally:
        room()
    assert device_energy_j(path) == pytest.approx(2 * before_j)


def test_a_lost_sensor_or_a_cut_off_line_makes_idle_unknown_and_never_wrong(tmp_path):
    clock = FakeClock()
    path = tmp_path / "device.jsonl"
    account(path, clock, FakeMeter(clock), [1.0])
    assert device_energy_j(path) == pytest.approx(50.0)
    whole = path.read_text()
    for cut in (b'{"energy_j": 5', b"\xff\xfe", b"\x00" * 50):
        path.write_bytes(whole.encode() + cut)
        assert device_energy_j(path) is None
    path.write_text(whole)

    class Dying(FakeMeter):
        def end(self, work):
            from predictors.meters.base import MeterError

            raise MeterError("GPU is lost")

    account(path, clock, Dying(clock), [1.0, 1.0])
    assert json.loads(path.read_text().splitlines()[-1]) == {"lost": "GPU is lost"}
    assert device_energy_j(path) is None


def test_estimates_of_another_process_are_not_taken_for_the_device(tmp_path):
    clock = FakeClock()
    meter = FakeMeter(clock)
    meter.is_estimate = True
    account(tmp_path / "device.jsonl", clock, meter, [1.0])
    assert device_energy_j(tmp_path / "device.jsonl") is None


def test_savings_are_named_against_any_complete_trial(tmp_path):
    run = FakeRun(tmp_path, *(trial(i, 0.9 + i / 100, 1.0 + i) for i in range(3)))
    assert summarise(run).baseline_trial is None and summarise(run).saving is None
    found = summarise(run, baseline=2)
    assert found.baseline_trial == 2 and found.saving is None
    cheap = FakeRun(tmp_path, trial(0, 0.95, 1.0), trial(1, 0.9, 3.0))
    saving = summarise(cheap, baseline=1).saving
    assert (saving.better_trial, saving.ratio) == (0, 3.0)
    assert saving.inferences_to_break_even == pytest.approx(80.0 / 2.0)
    with pytest.raises(ValueError, match="baseline"):
        summarise(run, baseline=9)


def test_of_several_baselines_savings_are_named_against_the_first_and_by_what_was_found(tmp_path):
    given = (trial(0, 0.9, 8.0, baseline=True), trial(1, 0.9, 1.0, baseline=True))
    found = summarise(FakeRun(tmp_path, *given, trial(2, 0.95, 4.0)))
    assert (found.saving.baseline_trial, found.saving.better_trial) == (0, 2)
    assert found.saving.ratio == pytest.approx(2.0)
    assert summarise(FakeRun(tmp_path, *given)).saving is None


def test_a_search_from_a_checkpoint_also_names_what_is_saved_near_its_quality(tmp_path):
    parent = replace(MODEL, layers=MODEL.layers * 2)
    run = FakeRun(
        tmp_path,
        trial(0, 0.9, 8.0, baseline=True, architecture=parent),
        trial(1, 0.895, 2.0),
        trial(2, 0.91, 4.0),
        trial(3, 0.88, 0.1),
        trial(4, 0.899, 5.0, architecture=parent.in_precision("int8")),
    )
    assert summarise(run).near_saving is None
    run.config.checkpoint, run.metric = object(), ACCURACY
    run.config.space.parent = parent
    found = summarise(run)
    assert (found.saving.better_trial, found.near_saving.better_trial) == (2, 1)
    assert found.quantised_saving.better_trial == 4
    assert found.near_saving.inferences_to_break_even == pytest.approx(200.0 / 6.0)
    shown = render_spending(found, ACCURACY)
    assert "within 0.01 of the baseline's accuracy, trial 1 has 4.0x fewer joules" in shown
    assert "the checkpoint itself (trial 4) has 1.6x fewer joules within 0.01 of" in shown
    # Of bits per byte, 2% more are near: 1.02 bits are, 1.03 are not.
    bits = [1.0, 1.019, 1.03]
    records = [trial(i, 2.0**-b, 8.0 / (1 + i), baseline=not i) for i, b in enumerate(bits)]
    run._records, run.metric = records, BITS_PER_BYTE
    found = summarise(run)
    assert found.saving is None and found.near_saving.better_trial == 1
    assert "within 2% more bits per byte, trial 1" in render_spending(found, BITS_PER_BYTE)


def test_a_carbon_intensity_is_above_0(tmp_path):
    run = FakeRun(tmp_path, trial(0, 0.9, 1.0))
    with pytest.raises(ValueError, match="carbon_g_per_kwh"):
        summarise(run, carbon_g_per_kwh=0.0)


def test_the_account_says_what_was_considered_pruned_and_calibrated(tmp_path):
    run = FakeRun(tmp_path, trial(0, 0.8, 2e-6), trial(1, 0.9, 3e-6))
    without = render_account(summarise(run))
    assert "considered" not in without
    assert "calibration" not in without
    counts = {"considered": 4000, "over_limit": 500, "dominated": 2500}
    (tmp_path / "pruning.json").write_text(json.dumps(counts))
    record = made_record(MODEL, WORKLOAD, 1e-6)
    append_records(tmp_path / "calibration.jsonl", [record, record])
    summary = summarise(run)
    # Each training took 30 J.
    assert summary.pruned_energy_j == 3000 * 30
    assert summary.calibration_energy_j == 2 * record.spent_energy_j
    text = render_account(summary)
    assert (
        "candidates: 4,000 considered, 3,000 pruned before training (75%: 2,500 dominated, 500 "
        "over a limit); training those would have cost 90 kJ (estimate)"
    ) in text
    assert "2 complete (2 measured)" in text
    assert f"calibration {format_joules(2 * record.spent_energy_j)}, idle" in text
