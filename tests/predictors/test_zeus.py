import pytest
from fakes import FakeClock, FakeZeusMonitor

from predictors.meters.base import MeterError
from predictors.meters.zeus import ZeusMeter


def make(device, part):
    clock = FakeClock()
    monitor = FakeZeusMonitor(clock, 50.0, part)
    return ZeusMeter(device, monitor=monitor, clock=clock), monitor, clock


@pytest.mark.parametrize(
    ("device", "part", "source"),
    [
        ("cuda:0", "gpu", "zeus-gpu"),
        ("cpu", "cpu", "zeus-cpu"),
        ("cpu", "apple", "zeus-soc"),
        ("cpu", "jetson", "zeus-soc"),
    ],
)
def test_each_kind_of_device_is_read_whole_and_said(device, part, source):
    meter, _, clock = make(device, part)
    assert meter.source == source and not meter.is_estimate
    meter.begin(lambda: None)
    clock.advance(2.0)
    assert meter.end(lambda: None).energy_j == pytest.approx(100.0)


def test_nothing_seen_is_an_error_and_never_zero_joules():
    meter, monitor, clock = make("cuda:0", "gpu")
    monitor.power_w = 0.0
    meter.begin(lambda: None)
    clock.advance(0.01)
    with pytest.raises(MeterError, match="longer than"):
        meter.end(lambda: None)


def test_a_lost_sensor_is_an_error():
    meter, monitor, clock = make("cuda:0", "gpu")
    meter.begin(lambda: None)
    monitor.dead = True
    with pytest.raises(MeterError, match="GPU is lost"):
        meter.end(lambda: None)


def test_a_machine_without_sensors_is_refused():
    with pytest.raises(MeterError, match="no CPU or chip"):
        make("cpu", "none")


def test_without_zeus_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zeus.monitor", None)
    with pytest.raises(MeterError, match=r"pip install 'joulenas\[zeus\]'"):
        ZeusMeter("cuda:0")
