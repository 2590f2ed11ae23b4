"""Every meter passes the same suite: a fixture per meter, known joules where time is fake."""

import os

import pytest
from fakes import FakeClock, FakeGpu, FakeMeter, FakeNvml, FakeZeusMonitor

from predictors.meters.base import Meter, MeterError, Window
from predictors.meters.estimate import EstimateMeter
from predictors.meters.nvml import NvmlMeter
from predictors.meters.nvml_processes import Processes
from predictors.meters.rapl import RaplMeter
from predictors.meters.replay import RecordingMeter, ReplayMeter
from predictors.meters.zeus import ZeusMeter


class Bench:
    """A meter, and how to let its device draw 50 W for some seconds."""

    def __init__(self, meter, run):
        self.meter, self.run = meter, run


def fake(tmp_path):
    clock = FakeClock()
    return Bench(FakeMeter(clock), clock.advance)


def estimate(tmp_path):
    clock = FakeClock()
    # Two busy cores of 25 W.
    meter = EstimateMeter(25.0, cpu_clock=lambda: 2 * clock(), wall_clock=clock)
    return Bench(meter, clock.advance)


def nvml(tmp_path):
    driver = FakeNvml(FakeClock(), FakeGpu(power_w=50.0))
    meter = NvmlMeter((0,), nvml=driver, clock=driver.clock, background=False)
    return Bench(meter, driver.advance)


def rapl(tmp_path):
    clock = FakeClock()
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("1000000000")
    (zone / "energy_uj").write_text("999000000")

    def run(seconds):
        clock.advance(seconds)
        now = int((zone / "energy_uj").read_text()) + round(50e6 * seconds)
        (zone / "energy_uj").write_text(str(now % 1_000_000_000))

    return Bench(RaplMeter(tmp_path, wall_clock=clock), run)


def replay(tmp_path):
    clock = FakeClock()
    recorder = RecordingMeter(FakeMeter(clock), tmp_path / "log.jsonl")
    for seconds in (2.0, 3.0):
        recorder.begin(lambda: None)
        clock.advance(seconds)
        recorder.end(lambda: None)
    return Bench(ReplayMeter(tmp_path / "log.jsonl"), lambda seconds: None)


def zeus(tmp_path):
    clock = FakeClock()
    return Bench(ZeusMeter("cuda:0", monitor=FakeZeusMonitor(clock), clock=clock), clock.advance)


@pytest.fixture(params=[fake, estimate, nvml, rapl, replay, zeus], ids=lambda make: make.__name__)
def bench(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.meter.close()


def work_of(bench):
    return lambda: bench.run(0.01)


def test_it_is_a_meter_that_names_itself(bench):
    assert isinstance(bench.meter, Meter)
    assert bench.meter.name and bench.meter.source and bench.meter.device
    assert isinstance(bench.meter.is_estimate, bool)


def test_joules_are_power_times_time(bench):
    for seconds in (2.0, 3.0):
        bench.meter.begin(work_of(bench))
        bench.run(seconds)
        window = bench.meter.end(work_of(bench))
        assert isinstance(window, Window)
        assert window.energy_j / window.duration_s == pytest.approx(50.0, rel=0.002)
        assert window.duration_s == pytest.approx(seconds, abs=0.11)


def test_a_window_is_opened_once_and_closed_once(bench):
    with pytest.raises(MeterError):
        bench.meter.end(work_of(bench))
    bench.meter.begin(work_of(bench))
    with pytest.raises(MeterError):
        bench.meter.begin(work_of(bench))


def test_it_closes_twice(bench):
    bench.meter.close()
    bench.meter.close()


def test_absent_sensors_are_none_and_never_zero(bench):
    bench.meter.begin(work_of(bench))
    bench.run(1.0)
    window = bench.meter.end(work_of(bench))
    for sensor in ("temperature_c", "sm_clock_mhz", "power_limit_w"):
        assert getattr(window, sensor) is None or getattr(window, sensor) > 0


def test_own_process_id_is_that_of_this_process():
    # What the foreign-process flag of the GPU meter rests on.
    assert os.getpid() in Processes(None, {}).own_pids()
