import pytest
from fakes import FakeClock, FakeGpu, FakeNvml

from predictors.meters.base import MeterError
from predictors.meters.nvml import NvmlMeter


def make(*gpus, devices=(0,), **options):
    driver = FakeNvml(FakeClock(), *gpus)
    options.setdefault("own_pids", lambda: {1})
    return NvmlMeter(devices, nvml=driver, clock=driver.clock, background=False, **options), driver


def measure(meter, driver, seconds, step_s=0.003, watch=True):
    def work():
        driver.advance(step_s)

    meter.begin(work)
    passed = 0.0
    while passed < seconds:
        driver.advance(0.02)
        passed += 0.02
        if watch:
            meter.sample()
    return meter.end(work)


@pytest.mark.parametrize("tick_s", [0.02, 0.05, 0.1])
def test_aligned_windows_are_right_where_naive_ones_err(tick_s):
    meter, driver = make(FakeGpu(power_w=300.0, tick_s=tick_s))
    worst_aligned = worst_naive = 0.0
    for offset_s in (0.0, 0.013, 0.037, 0.071):
        driver.advance(offset_s)
        before, start_s = driver.gpus[0]._shown_mj, driver.clock()
        driver.advance(0.95)
        naive_w = (driver.gpus[0]._shown_mj - before) / 1e3 / (driver.clock() - start_s)
        worst_naive = max(worst_naive, abs(naive_w / 300 - 1))
        window = measure(meter, driver, 0.95, step_s=0.001)
        worst_aligned = max(worst_aligned, abs(window.energy_j / window.duration_s / 300 - 1))
    assert worst_aligned <= 0.002
    if tick_s == 0.1:
        assert worst_naive > 0.02


def test_several_gpus_are_summed_each_by_its_own_uuid_and_its_own_ticks():
    meter, driver = make(
        FakeGpu("GPU-a", 100.0, tick_s=0.1),
        FakeGpu("GPU-b", 250.0, tick_s=0.07),
        FakeGpu("GPU-c", 900.0),
        devices=("GPU-a", "GPU-b"),
    )
    window = measure(meter, driver, 2.0, step_s=0.001)
    assert window.energy_j / window.duration_s == pytest.approx(350, rel=0.002)


@pytest.mark.parametrize("tick_s", [0.02, 0.05, 0.1])
def test_the_counters_own_period_is_measured_under_load(tick_s):
    meter, driver = make(FakeGpu(tick_s=tick_s))
    assert meter.tick_s is None
    measure(meter, driver, 0.5, step_s=0.001)
    assert meter.tick_s == pytest.approx(tick_s, abs=0.0015)


def test_throttling_that_ends_before_the_window_is_flagged_and_its_reasons_are_kept():
    gpu = FakeGpu()
    meter, driver = make(gpu)
    meter.begin(lambda: driver.advance(0.003))
    gpu.reasons = 0x20
    driver.advance(0.02)
    meter.sample()
    gpu.reasons = 0x4
    driver.advance(0.5)
    window = meter.end(lambda: driver.advance(0.003))
    assert window.flags == ("thermal_throttle",)
    assert window.throttle_reasons == 0x24


@pytest.mark.parametrize(("pids", "flags"), [((70,), ()), ((70, 71), ("foreign_process",))])
def test_in_a_container_whose_process_numbers_differ_a_second_process_is_foreign(pids, flags):
    meter, driver = make(FakeGpu(pids=pids))
    assert measure(meter, driver, 1.0).flags == flags


@pytest.mark.parametrize(
    ("gpu", "source"),
    [
        (FakeGpu(), "nvml-total-energy"),
        (FakeGpu(has_counter=False), "nvml-instant-power"),
        (FakeGpu(has_counter=False, has_instant=False), "nvml-power-usage"),
    ],
)
def test_the_best_source_that_answers_is_used_and_said(gpu, source):
    meter, driver = make(gpu)
    assert meter.source == source
    window = measure(meter, driver, 1.0)
    assert window.energy_j / window.duration_s == pytest.approx(300, rel=0.005)


def test_a_gpu_that_reports_nothing_is_refused():
    with pytest.raises(MeterError, match="neither energy nor power"):
        make(FakeGpu(has_counter=False, has_instant=False, has_usage=False))


def test_mig_is_refused_with_a_sentence():
    with pytest.raises(MeterError, match="MIG"):
        make(FakeGpu(mig=True))


def test_an_absent_device_is_refused():
    with pytest.raises(MeterError, match="GPU 3"):
        make(FakeGpu(), devices=(3,))


@pytest.mark.parametrize(
    ("gpu", "flag"),
    [
        (FakeGpu(reasons=0x20), "thermal_throttle"),
        (FakeGpu(reasons=0x40), "thermal_throttle"),
        (FakeGpu(reasons=0x80), "power_brake"),
        (FakeGpu(pids=(1, 99)), "foreign_process"),
        (FakeGpu(counter_gain=1.1), "counter_differs_from_power"),
    ],
)
def test_what_went_wrong_is_flagged(gpu, flag):
    meter, driver = make(gpu)
    assert measure(meter, driver, 1.0).flags == (flag,)


def test_a_clean_window_has_no_flags_and_absent_sensors_are_none():
    meter, driver = make(FakeGpu(pids=(1,)))
    window = measure(meter, driver, 1.0)
    assert window.flags == ()
    assert window.power_limit_w is None
    assert (window.temperature_c, window.sm_clock_mhz) == (55, 1700)


@pytest.mark.parametrize("has_counter", [True, False])
def test_a_sensor_that_dies_half_way_is_an_error_and_never_a_number(has_counter):
    gpu = FakeGpu(has_counter=has_counter)
    meter, driver = make(gpu)
    meter.begin(lambda: driver.advance(0.003))
    driver.advance(0.5)
    gpu.dead = True
    with pytest.raises(MeterError, match="lost"):
        meter.end(lambda: driver.advance(0.003))


def test_a_counter_that_stands_still_is_an_error():
    meter, driver = make(FakeGpu(power_w=0.0))
    with pytest.raises(MeterError, match="did not move"):
        meter.begin(lambda: driver.advance(0.05))


def test_a_counter_that_restarts_is_an_error():
    gpu = FakeGpu()
    meter, driver = make(gpu)
    driver.advance(5.0)
    meter.begin(lambda: driver.advance(0.003))
    gpu._true_j = 0.0
    with pytest.raises(MeterError, match="backwards"):
        meter.end(lambda: driver.advance(0.003))
