"""The example of docs/meters.md, run as written and found by its entry point."""

import re
import time
from pathlib import Path

import pytest

from predictors.meters import select
from predictors.meters.base import Meter, MeterError
from predictors.meters.select import choose_meter, survey

PAGE = (Path(__file__).parents[2] / "docs" / "meters.md").read_text()
METER, _ = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


class Plug:
    """A counter's file of a device of 100 W that steps each 20 ms while it is read."""

    def __init__(self):
        self._started = time.perf_counter()
        self.parent, self.name = Path("hwmon3"), "energy1_input"

    def read_text(self):
        return str(2_000_000 * int((time.perf_counter() - self._started) / 0.02))


@pytest.fixture
def example(monkeypatch):
    names = {}
    exec(compile(METER, "meters.md", "exec"), names)
    monkeypatch.setitem(names, "Path", lambda counter: counter)
    return names


def test_the_documented_meter_is_one_and_counts(example):
    meter = example["HwmonMeter"](Plug())
    assert isinstance(meter, Meter)
    meter.begin(lambda: None)
    time.sleep(0.2)
    window = meter.end(lambda: None)
    assert window.energy_j / window.duration_s == pytest.approx(100.0, rel=0.15)
    meter.close()


def test_a_counter_that_stands_still_falls_or_is_gone_gives_no_figure(tmp_path):
    names = {}
    exec(compile(METER, "meters.md", "exec"), names)
    counter, now = tmp_path / "energy1_input", [0.0]
    with pytest.raises(MeterError, match="cannot be read"):
        names["HwmonMeter"](counter)

    def moved(to):
        counter.write_text(str(to))
        now[0] += 1.0

    counter.write_text("5000000")
    meter = names["HwmonMeter"](counter, clock=lambda: now[0])
    with pytest.raises(MeterError, match="does not move"):
        meter.begin(lambda: moved(5_000_000))
    meter.begin(lambda: moved(6_000_000))
    with pytest.raises(MeterError, match="fell from"):
        meter.end(lambda: moved(1_000_000))


def test_a_registered_meter_is_found_by_name_and_chosen_by_name_alone(example, monkeypatch):
    class Entry:
        name = "hwmon"

        @staticmethod
        def load():
            return example["make_meter"]

    monkeypatch.setattr(select, "entry_points", lambda group: [Entry])
    monkeypatch.delenv("HWMON_ENERGY", raising=False)
    with pytest.raises(MeterError, match="HWMON_ENERGY"):
        choose_meter("hwmon", "cpu")
    monkeypatch.setitem(example, "os", type("Os", (), {"environ": {"HWMON_ENERGY": Plug()}}))
    assert choose_meter("hwmon", "cpu").source == "hwmon-energy"
    assert any(s.name == "hwmon" and s.is_available for s in survey("cpu"))
    assert choose_meter(None, "cpu").name != "hwmon"
    with pytest.raises(ValueError, match="hwmon"):
        choose_meter("ruler", "cpu")


def test_a_plugin_that_is_no_meter_is_refused_in_one_line(monkeypatch):
    class Bare:
        name = source = device = "bare"

    class Entry:
        name, value = "bare", "package:make"

        def load(self):
            return lambda device: Bare()

    monkeypatch.setattr(select, "entry_points", lambda group: [Entry()])
    with pytest.raises(
        MeterError, match=r"bare \(package:make\) must derive from .*Meter"
    ) as caught:
        choose_meter("bare", "cpu")
    assert "\n" not in str(caught.value)
