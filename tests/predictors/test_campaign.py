import json
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakeClock, FakeMeter

from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.protocol import PROTOCOLS, Protocol, get_protocol
from predictors.measurement.records import EnergyRecord, append_records, read_records
from predictors.measurement.runner import MeasureError, MeasureTimeout, make_job, measure_fresh
from predictors.measurement.windows import WindowLoop, run_windows
from predictors.measurement.worker import make_record
from predictors.meters.base import EnergyReading, MeterError
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)
from search_spaces.workload import Workload

TINY = Architecture(8, (LayerSpec(AttentionSpec(2, 1, 4), FfnSpec(8)),), patch_size=4)
DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 16)
FAST = Protocol("fast", warmup_s=0.0, warmup_iterations=2, window_s=0.02, target_half_width=1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"min_repeats": 5},
        {"window_s": 0},
        {"max_repeats": 3},
        {"warmup_s": float("nan")},
        {"warmup_max_s": "30"},
        {"warmup_iterations": 2.5},
        {"max_rejected": -1},
        {"threads": 0},
        {"block_size": True},
        {"regime": "batch"},
    ],
)
def test_a_wrong_protocol_names_its_field(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Protocol.from_dict(FAST.to_dict() | change)


@pytest.mark.parametrize("data", [{}, [], {"x": 1}, FAST.to_dict() | {"x": 1}, {"name": "a"}])
def test_a_protocol_with_missing_or_unknown_keys_is_refused(data):
    with pytest.raises(ValueError, match="protocol (must|has unknown key x)"):
        Protocol.from_dict(data)


def test_every_knob_changes_the_hash():
    base = FAST.to_dict() | {"max_repeats": 50}
    other = {"regime": "latency", "name": "other"}
    hashes = {
        Protocol.from_dict(base | {name: other.get(name) or value + 20}).hash
        for name, value in base.items()
    }
    assert len(hashes | {Protocol.from_dict(base).hash}) == len(base) + 1


def test_protocols_are_named_by_hash():
    assert len({p.hash for p in PROTOCOLS.values()}) == len(PROTOCOLS)
    again = Protocol.from_dict(json.loads(json.dumps(FAST.to_dict())))
    assert again.hash == FAST.hash
    with pytest.raises(ValueError, match="screening"):
        get_protocol("slow")


def windows(meter, clock, protocol, cost_s=0.01):
    loop = WindowLoop(
        lambda: clock.advance(cost_s), meter, protocol, clock=clock, sleep=clock.advance
    )
    return run_windows(loop, protocol)


def test_joules_per_batch_are_power_times_the_time_of_a_batch():
    clock = FakeClock()
    found = windows(FakeMeter(clock, 50.0), clock, FAST)
    assert found.energies_j == pytest.approx([0.5] * len(found.windows))
    assert found.converged and len(found.windows) == 6


def test_repeats_go_on_until_the_interval_is_narrow_or_the_cap():
    clock = FakeClock()
    meter = FakeMeter(clock, 50.0)
    powers = iter([50.0, 80.0] * 50)

    class Noisy(FakeMeter):
        def begin(self, work):
            self.power_w = next(powers)
            super().begin(work)

    protocol = Protocol("p", 0.0, 1, 0.1, target_half_width=0.02, max_repeats=11)
    noisy = windows(Noisy(clock), clock, protocol)
    assert not noisy.converged and len(noisy.windows) == 11
    assert windows(meter, clock, protocol).converged


def test_throttled_windows_are_rejected_and_too_many_are_an_error():
    clock = FakeClock()
    meter = FakeMeter(clock)
    # The first window belongs to warm-up.
    meter.flags = [(), ("thermal_throttle",), (), ("power_brake",)]
    found = windows(meter, clock, FAST)
    assert found.n_rejected == 2 and len(found.windows) == 6
    meter.flags = [("thermal_throttle",)] * 9
    with pytest.raises(MeterError, match="throttled"):
        windows(meter, clock, FAST)


def test_warm_up_lasts_until_the_temperature_stands_still():
    clock = FakeClock()
    meter = FakeMeter(clock)
    protocol = Protocol("warm", 0.0, 1, 0.1, warmup_slope_c=1.0, warmup_max_s=60.0)
    for temperatures_c, warmup_s in (
        # The second that rises by one degree, or by none, is followed by others.
        ([40, 45, 46, 51, 51, 56, 60, 63, 65, 66, 67, 67, 67, 67, 67, 67, 67, 67], 14),
        # It stands still from the start: five seconds show it.
        ([60.0] * 30, 6),
        # Whole degrees that come and go are no rise.
        ([60, 61, 60, 61, 60, 61, 60, 61, 60, 61], 6),
    ):
        meter.temperatures_c = [float(c) for c in temperatures_c]
        started = clock()
        assert windows(meter, clock, protocol).flags == ()
        # Then six windows of a tenth.
        assert clock() - started == pytest.approx(warmup_s + 0.6, abs=1.2), temperatures_c
    meter.temperatures_c = [40.0 + 5 * i for i in range(100)]
    assert windows(meter, clock, protocol).flags == ("still_warming",)


def test_warm_up_without_a_thermometer_lasts_as_long_as_it_must():
    clock = FakeClock()
    protocol = Protocol("warm", 4.0, 1, 0.1)
    started = clock()
    windows(FakeMeter(clock), clock, protocol)
    assert 4.6 <= clock() - started <= 6.2


def test_screening_measures_idle_power_after_a_rest():
    # A board that draws more for a second and a half after what was run on it last.
    clock = FakeClock()

    class Lingering(FakeMeter):
        def end(self, work):
            opened_s = self._opened_s
            busy_s = max(0.0, min(clock(), 101.5) - opened_s)
            window = super().end(work)
            return replace(window, energy_j=window.energy_j + 100.0 * busy_s)

    screening = get_protocol("screening")
    found = windows(Lingering(clock, 80.0), clock, screening)
    assert found.idle_power_w == pytest.approx(80.0)


def test_windows_beside_another_that_computes_are_repeated_and_too_many_are_an_error():
    clock = FakeClock()
    meter = FakeMeter(clock)
    meter.flags = [(), ("foreign_compute", "foreign_process"), (), ("hw_slowdown",)]
    found = windows(meter, clock, FAST)
    assert found.n_rejected == 2 and len(found.windows) == 6
    assert found.flags == ("foreign_compute", "foreign_process", "hw_slowdown")
    meter.flags = [("foreign_compute",)] * 9
    with pytest.raises(MeterError, match="another process that computes.*end it or wait"):
        windows(meter, clock, FAST)


def test_a_limit_that_changes_during_a_measurement_is_flagged():
    clock = FakeClock()
    limits_w = iter([700.0] * 4 + [350.0] * 20)

    class Limited(FakeMeter):
        def end(self, work):
            return replace(super().end(work), power_limit_w=next(limits_w))

    assert windows(Limited(clock), clock, FAST).flags == ("limits_changed",)


def test_in_the_latency_regime_each_batch_is_awaited():
    clock = FakeClock()
    synced = []
    for regime in ("throughput", "latency"):
        protocol = Protocol("p", 0.0, 1, 0.1, regime=regime, chunk_s=0.05)
        calls = [0]

        def call(calls=calls):
            calls[0] += 1
            clock.advance(0.01)

        waits = [0]

        def sync(waits=waits):
            waits[0] += 1

        loop = WindowLoop(
            call, FakeMeter(clock), protocol, sync=sync, clock=clock, sleep=clock.advance
        )
        run_windows(loop, protocol)
        synced.append(calls[0] / waits[0])
    assert synced[0] > 3 and synced[1] == 1


def test_progress_says_the_interval_so_far():
    clock = FakeClock()
    loop = WindowLoop(
        lambda: clock.advance(0.01), FakeMeter(clock), FAST, clock=clock, sleep=clock.advance
    )
    heard = []
    run_windows(loop, FAST, lambda n, width: heard.append((n, width)))
    assert [n for n, _ in heard] == [1, 2, 3, 4, 5, 6]
    assert heard[4][1] == float("inf") and heard[5][1] < 1e-6


def test_idle_power_is_measured_without_work_and_never_for_estimates():
    clock = FakeClock()
    protocol = Protocol("idle", 0.0, 1, 0.1, idle_s=2.0)
    assert windows(FakeMeter(clock, 30.0), clock, protocol).idle_power_w == pytest.approx(30.0)
    meter = FakeMeter(clock, 30.0)
    meter.is_estimate = True
    assert windows(meter, clock, protocol).idle_power_w is None


@pytest.fixture(scope="module")
def record():
    return measure_fresh(TINY, DIGITS, protocol=FAST, meter="estimate")


def test_a_fresh_process_measures(record):
    reading = record.reading
    assert reading.is_estimate and reading.meter == "estimate"
    assert 1e-8 < reading.energy_j < 1e-2
    assert reading.low_j <= reading.energy_j <= reading.high_j
    assert reading.workload == "digits/b16" and reading.protocol_hash == FAST.hash
    assert record.mode in ("compile", "eager") and record.spent_energy_j > reading.energy_j
    assert record.seed == 0 and not record.has_real_inputs
    assert (record.compile_s > 0.1) == (record.mode == "compile")
    assert {"joulenas", "python", "torch", "torchao"} <= record.versions.keys()


@pytest.mark.parametrize(
    "phase, unit, n_units", [("prefill", "prefill token", 96), ("generate", "generated token", 4)]
)
def test_a_decoder_is_measured_per_token(phase, unit, n_units):
    decoder = Architecture(8, (LayerSpec(AttentionSpec(2, 1, 4), FfnSpec(8)),))
    workload = Workload("lm", "language_modelling", (24,), 16, 4, vocab_size=16, phase=phase)
    record = measure_fresh(decoder, workload, protocol=FAST, meter="estimate")
    reading = record.reading
    assert reading.unit == unit and reading.workload == f"lm@24/{phase}/b4"
    # Medians against means of few short windows.
    assert 0.4 < reading.power_w * reading.latency_s / n_units / reading.energy_j < 2.5
    assert EnergyRecord.from_dict(record.to_dict()) == record


def test_a_translation_is_measured_per_output_token(monkeypatch):
    # Op by op: that its two parts are compiled is shown elsewhere, and takes long.
    monkeypatch.setenv("CXX", "no-such-compiler")
    attention, ffn = AttentionSpec(2, 1, 4), FfnSpec(8)
    made = Architecture(
        8,
        (LayerSpec(attention, ffn),),
        decoder=DecoderSpec(8, (DecoderLayerSpec(attention, attention, ffn),)),
    )
    workload = Workload("mt", "translation", (6,), 17, 4, 16, target_length=5)
    record = measure_fresh(made, workload, protocol=FAST, meter="estimate")
    reading = record.reading
    assert reading.is_estimate and reading.unit == "output token"
    assert reading.workload == "mt@6-5/b4" and record.mode == "eager"
    # A batch is 4 translations of 5 tokens each; medians against means of few short windows.
    assert 0.4 < reading.power_w * reading.latency_s / 20 / reading.energy_j < 2.5
    assert EnergyRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_readings_from_before_units_and_drivers_are_of_samples_and_name_none(record):
    data = record.reading.to_dict()
    del data["unit"], data["driver"]
    assert EnergyReading.from_dict(data) == record.reading
    assert record.reading.unit == "sample" and record.reading.driver is None


def test_a_reading_names_the_driver_where_its_meter_does(record):
    clock = FakeClock()
    meter = FakeMeter(clock, 30.0)
    meter.driver_version = "580.0"
    names = ("architecture", "workload", "mode", "flags", "seed", "has_real_inputs")
    subject = SimpleNamespace(
        meter=meter,
        protocol=FAST,
        runtime="torch",
        versions={},
        **{name: getattr(record, name) for name in (*names, "compile_s", "origin")},
    )
    made = make_record(subject, windows(meter, clock, FAST), held_s=1.0)
    assert made.reading.driver == made.versions["driver"] == "580.0"
    assert EnergyRecord.from_dict(made.to_dict()) == made


def test_a_failed_measurement_says_the_cause_in_one_line(tmp_path):
    with pytest.raises(MeasureError, match="inputs must have shape") as error:
        np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
        measure_fresh(TINY, DIGITS, protocol=FAST, inputs=tmp_path / "x.npy", meter="estimate")
    assert "\n" not in str(error.value)


def test_a_measurement_ends_with_the_command_that_asked_for_it(tmp_path):
    lock = DeviceLock(tmp_path / "lock", "cpu")
    job = make_job(
        "measure",
        TINY,
        DIGITS,
        protocol=FAST,
        device="cpu",
        meter="estimate",
        lock_folder=tmp_path / "lock",
    )
    code = (
        "import json, sys\n"
        "from predictors.measurement.process import MeasureProcess\n"
        "with MeasureProcess(json.loads(sys.argv[1]), 60) as process:\n"
        "    print(process._process.pid, flush=True)\n"
        "    process.receive()\n"
    )
    with lock.exclusive():
        command = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(job)], stdout=subprocess.PIPE, text=True
        )
        worker = int(command.stdout.readline())
        time.sleep(0.5)
        command.kill()
        command.wait()
        # It waits for the lock, so it would not end by itself.
        until = time.monotonic() + 60
        while _is_alive(worker) and time.monotonic() < until:
            time.sleep(0.1)
        assert not _is_alive(worker)


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_measurement_that_hangs_is_ended(tmp_path):
    lock = DeviceLock(tmp_path, "cpu")
    with lock.exclusive(), pytest.raises(MeasureTimeout, match="longer than"):
        measure_fresh(TINY, DIGITS, protocol=FAST, lock_folder=tmp_path, timeout_s=6)


def test_records_survive_a_cut_off_line(record, tmp_path):
    path = tmp_path / "records.jsonl"
    append_records(path, [record])
    whole = path.read_bytes()
    for length in (1, 9, 40, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole + whole[:length])
        found = read_records(path)
        assert found.cut_off and found.records == (record,)
        append_records(path, [record])
        found = read_records(path)
        assert found.cut_off and found.records == (record, record)


@pytest.mark.parametrize(
    "text", ['{"schema": 9}', "[1]", '{"schema": 3, "x": 2}', "null", "some text", '{"name": "a']
)
def test_a_wrong_record_names_file_and_line(tmp_path, text):
    path = tmp_path / "records.jsonl"
    path.write_text("\n" + text + "\n")
    with pytest.raises(ValueError, match="line 2"):
        read_records(path)


@pytest.mark.parametrize(
    "change", [{"energy_j": -1.0}, {"low_j": 2.0}, {"n_repeats": 0}, {"latency_s": float("nan")}]
)
def test_impossible_readings_are_refused(record, change):
    with pytest.raises(ValueError):
        EnergyReading.from_dict(record.reading.to_dict() | change)
