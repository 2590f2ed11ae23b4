"""What training costs: the device's own joules, shared, and unknown where they are lost."""

import pytest
from fakes import FakeClock, FakeMeter

from predictors.measurement import accounting
from predictors.measurement.accounting import EnergySpan
from predictors.meters.base import MeterError


def span(monkeypatch, meter, **options):
    def choose(name, device):
        assert name is None
        if meter is None:
            raise MeterError("no driver")
        return meter

    monkeypatch.setattr(accounting, "choose_meter", choose)
    return EnergySpan("cuda:0", **options)


def test_a_counter_is_shared_and_holds_nothing_of_the_host(monkeypatch):
    clock = FakeClock()
    with span(monkeypatch, FakeMeter(clock, 100.0), share=0.5) as found:
        clock.advance(4.0)
        # Work of the host, which a GPU's joules leave out.
        sum(range(2_000_000))
    assert found.energy_j == pytest.approx(200.0)


def test_an_estimate_is_of_this_process_and_not_shared(monkeypatch):
    clock = FakeClock()
    meter = FakeMeter(clock, 10.0)
    meter.is_estimate = True
    with span(monkeypatch, meter, share=0.5) as found:
        clock.advance(3.0)
    assert found.energy_j == pytest.approx(30.0)


@pytest.mark.parametrize("when", ["never there", "begin", "end"])
def test_what_cannot_be_read_is_unknown_and_training_goes_on(monkeypatch, when):
    class Dying(FakeMeter):
        def begin(self, work):
            if when == "begin":
                raise MeterError("GPU is lost")
            super().begin(work)

        def end(self, work):
            raise MeterError("GPU is lost")

    with span(monkeypatch, None if when == "never there" else Dying(FakeClock())) as found:
        trained = True
    assert trained and found.energy_j is None
