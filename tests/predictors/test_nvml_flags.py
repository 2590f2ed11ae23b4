"""Disturbances of a window: throttling, foreign processes, sensors that disagree."""

import pytest
from fakes import FakeGpu
from nvml_fakes import make, measure

from predictors.measurement.windows import is_rejected
from predictors.meters.base import Window


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


UNSEEN = "processes_unseen"


@pytest.mark.parametrize(
    ("pids", "flags"),
    [((), (UNSEEN,)), ((70,), (UNSEEN,)), ((70, 71), ("foreign_process", UNSEEN))],
)
def test_in_a_container_that_does_not_list_us_nobody_is_taken_for_us(pids, flags):
    meter, driver = make(FakeGpu(pids=pids))
    assert measure(meter, driver, 1.0).flags == flags


def test_our_own_processes_are_not_foreign_however_many_wait_on_the_board():
    gpu = FakeGpu(pids=(1, 2, 3))
    meter, driver = make(gpu, own_pids=lambda: {1, 2, 3})
    assert measure(meter, driver, 1.0).flags == ()
    gpu.pids = (1, 2, 9)
    assert measure(meter, driver, 1.0).flags == ("foreign_process",)
    # By the host's numbers: as many as we are may be ours, one more is not.
    gpu.pids = (71, 72, 73)
    assert measure(meter, driver, 1.0).flags == (UNSEEN,)
    gpu.pids = (71, 72, 73, 74)
    assert measure(meter, driver, 1.0).flags == ("foreign_process", UNSEEN)


@pytest.mark.parametrize(
    ("pids", "use", "computes"),
    [
        ((1, 99), {1: 98, 99: 40}, True),
        ((1, 99), {1: 0, 99: 3}, True),
        ((1, 99), {1: 98, 99: 0}, False),
        ((1, 2), {1: 98, 2: 30}, False),
        # Unknown numbers: one process that computes is this one, a second is not.
        ((70, 71), {70: 98}, False),
        ((70, 71), {70: 98, 71: 20}, True),
        ((), {70: 98, 71: 20}, True),
        ((1, 99), None, False),
    ],
)
def test_another_process_that_computes_spoils_the_window(pids, use, computes):
    meter, driver = make(FakeGpu(pids=pids, use=use), own_pids=lambda: {1, 2})
    flags = measure(meter, driver, 1.0).flags
    assert ("foreign_compute" in flags) == computes
    assert is_rejected(Window(1.0, 1.0, flags=flags)) == computes


def test_who_computed_before_the_window_does_not_spoil_it():
    gpu = FakeGpu(pids=(1, 99), use={1: 50, 99: 50})
    meter, driver = make(gpu)
    meter.begin(lambda: driver.advance(0.003))
    gpu.use = {1: 98}
    driver.advance(0.5)
    assert meter.end(lambda: driver.advance(0.003)).flags == ("foreign_process",)


@pytest.mark.parametrize("listing_s", [0.002, 0.01, 0.03])
def test_listing_processes_takes_nothing_from_a_window(listing_s):
    # The board idles while the driver looks processes up, which belongs to no window.
    gpu = FakeGpu(power_w=300.0, idle_w=80.0, listing_s=listing_s)
    meter, driver = make(gpu)
    driver.watchers = [meter.poll]
    for _ in range(3):
        window = measure(meter, driver, 1.0, step_s=0.001)
        assert window.energy_j / window.duration_s == pytest.approx(300, rel=3e-4)


@pytest.mark.parametrize(("gain", "flags"), [(1.04, ()), (1.06, ("counter_differs_from_power",))])
def test_the_counter_is_checked_against_integrated_power_and_flagged_above_five_per_cent(
    gain, flags
):
    meter, driver = make(FakeGpu(counter_gain=gain))
    window = measure(meter, driver, 1.0)
    assert window.cross_check == pytest.approx(gain - 1, abs=0.003)
    assert window.flags == flags


@pytest.mark.parametrize(
    ("gpu", "flag"),
    [
        (FakeGpu(reasons=0x8), "hw_slowdown"),
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


def test_a_counter_alone_is_enough_and_the_missing_cross_check_is_flagged():
    meter, driver = make(FakeGpu(has_instant=False, has_usage=False))
    assert meter.source == "nvml-total-energy"
    window = measure(meter, driver, 1.0)
    assert window.flags == ("no_cross_check",) and window.cross_check is None
    assert window.energy_j / window.duration_s == pytest.approx(300, rel=0.005)


def test_processes_that_may_not_be_seen_are_flagged_and_not_taken_for_none():
    meter, driver = make(FakeGpu(forbidden=("processes",)))
    assert measure(meter, driver, 1.0).flags == ("processes_unseen",)


def test_a_foreign_process_that_leaves_before_the_end_is_flagged():
    gpu = FakeGpu(pids=(1, 99))
    meter, driver = make(gpu)
    meter.begin(lambda: driver.advance(0.003))
    gpu.pids = (1,)
    driver.advance(0.5)
    meter.sample()
    assert meter.end(lambda: driver.advance(0.003)).flags == ("foreign_process",)
