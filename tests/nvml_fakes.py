"""Meters of fake NVIDIA boards."""

from fakes import FakeClock, FakeNvml

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
