"""The example of docs/joule.md, run as written and found through its entry point."""

import re
import time
from pathlib import Path

import pytest

from predictors.meters import select
from predictors.meters.base import Meter, MeterError
from predictors.meters.select import choose_meter, survey

DOCS = Path(__file__).parent.parent.parent / "docs" / "joule.md"


def plug():
    """A plug of 100 W that steps each 20 ms."""
    started = time.perf_counter()
    return lambda: 2.0 * int((time.perf_counter() - started) / 0.02)


@pytest.fixture
def wall_meter():
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names = {}
    exec(compile(code, str(DOCS), "exec"), names)
    return names["WallMeter"]


def test_the_documented_meter_is_one_and_counts(wall_meter):
    meter = wall_meter(plug(), "cpu")
    assert isinstance(meter, Meter)
    with pytest.raises(MeterError):
        meter.end(lambda: None)
    meter.begin(lambda: None)
    time.sleep(0.2)
    window = meter.end(lambda: None)
    assert window.energy_j / window.duration_s == pytest.approx(100.0, rel=0.15)
    meter.close()
    meter.close()


def test_a_registered_meter_is_found_by_name(wall_meter, monkeypatch):
    class Entry:
        name = "wall"

        @staticmethod
        def load():
            return lambda device: wall_meter(plug(), device)

    monkeypatch.setattr(select, "entry_points", lambda group: [Entry])
    assert choose_meter("wall", "cpu").source == "wall-plug"
    assert any(s.name == "wall" and s.is_available for s in survey("cpu"))
    with pytest.raises(ValueError, match="wall"):
        choose_meter("ruler", "cpu")
