import threading
import time

import pytest

from predictors.meters.base import MeterError
from predictors.meters.estimate import EstimateMeter, watts_per_core
from predictors.meters.rapl import POLL_S, RaplMeter
from predictors.meters.select import choose_meter, parse_device, survey


def test_the_estimate_counts_busy_time_and_not_sleep():
    meter = EstimateMeter(10.0)
    meter.begin(lambda: None)
    time.sleep(0.2)
    idle = meter.end(lambda: None)
    meter.begin(lambda: None)
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    busy = meter.end(lambda: None)
    assert idle.energy_j < 0.5
    assert 2.0 <= busy.energy_j < 2.5


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "inf", "nan"])
def test_a_wrong_power_is_refused_by_name(text):
    with pytest.raises(ValueError, match="JOULENAS_CPU_WATTS_PER_CORE"):
        watts_per_core({"JOULENAS_CPU_WATTS_PER_CORE": text})


def make_rapl(root, *zones):
    for index, (name, energy_uj, range_uj) in enumerate(zones):
        folder = root / f"intel-rapl:{index}"
        folder.mkdir()
        (folder / "name").write_text(name)
        (folder / "energy_uj").write_text(str(energy_uj))
        (folder / "max_energy_range_uj").write_text(str(range_uj))

    def put(index, value):
        # As the kernel does: who reads meanwhile sees the old number or the new one.
        (root / "next").write_text(str(value))
        (root / "next").replace(root / f"intel-rapl:{index}" / "energy_uj")

    return put


def test_rapl_counts_over_a_wrap_and_keeps_dram_apart(tmp_path):
    put = make_rapl(tmp_path, ("package-0", 9_000_000, 10_000_000), ("dram", 0, 10_000_000))
    meter = RaplMeter(tmp_path)
    meter.begin(lambda: None)
    put(0, 1_000_000)
    put(1, 500_000)
    window = meter.end(lambda: None)
    assert window.energy_j == pytest.approx(2.0)
    assert window.dram_energy_j == pytest.approx(0.5)


def test_rapl_polls_so_that_no_wrap_is_missed(tmp_path):
    put = make_rapl(tmp_path, ("package-0", 0, 10_000_000))
    meter = RaplMeter(tmp_path, poll_s=0.01)
    seen = threading.Event()
    poll = meter.poll

    def noticed():
        poll()
        seen.set()

    meter.poll = noticed
    meter.begin(lambda: None)
    for value in (6_000_000, 2_000_000, 8_000_000):
        put(0, value)
        for _ in range(2):
            # Twice, since the first may have begun to read before the counter moved.
            seen.clear()
            assert seen.wait(20)
    assert meter.end(lambda: None).energy_j == pytest.approx(18.0)


def test_rapl_polls_often_enough_for_every_counter_there_is():
    assert POLL_S <= 30
    # The smallest range, 65.5 kJ, at three times what a package draws.
    assert 2 * POLL_S < 65_500 / 1200


def test_rapl_that_is_lost_half_way_is_an_error_and_never_a_number(tmp_path):
    make_rapl(tmp_path, ("package-0", 0, 10_000_000))
    meter = RaplMeter(tmp_path)
    meter.begin(lambda: None)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(MeterError, match="cannot be read"):
        meter.end(lambda: None)


def test_rapl_without_dram_says_none(tmp_path):
    make_rapl(tmp_path, ("package-0", 0, 10))
    meter = RaplMeter(tmp_path)
    meter.begin(lambda: None)
    assert meter.end(lambda: None).dram_energy_j is None


def test_rapl_says_what_to_do_where_it_is_absent_or_unreadable(tmp_path, monkeypatch):
    with pytest.raises(MeterError, match="virtual machines rarely have it"):
        RaplMeter(tmp_path)
    make_rapl(tmp_path, ("package-0", 0, 10))

    def refuse(self, *args, **kwargs):
        if self.name == "energy_uj":
            raise PermissionError
        return original(self, *args, **kwargs)

    original = type(tmp_path).read_text
    monkeypatch.setattr(type(tmp_path), "read_text", refuse)
    with pytest.raises(MeterError, match=r"run as root.*chmod a\+r .*intel-rapl:\*/energy_uj"):
        RaplMeter(tmp_path)


def test_every_meter_is_surveyed_and_the_estimate_always_works():
    found = {status.name: status for status in survey()}
    assert {"nvml", "rapl", "estimate"} <= found.keys()
    assert found["estimate"].is_available
    assert all(status.detail for status in found.values())


def test_meters_by_name():
    assert choose_meter("estimate", "cpu").name == "estimate"
    with pytest.raises(ValueError, match="estimate"):
        choose_meter("wattmeter", "cpu")


@pytest.mark.parametrize(
    ("name", "device"), [("nvml", "cpu"), ("rapl", "cuda:0"), ("estimate", "cuda:0")]
)
def test_a_meter_of_another_device_is_refused(name, device):
    with pytest.raises(ValueError, match=f"meter must be one of .*{device}, got '{name}'"):
        choose_meter(name, device)


@pytest.mark.parametrize("text", ["", "tpu", "cuda:x", "cuda:-1", "cuda:", "CPU", "cpu:0"])
def test_a_wrong_device_is_refused_by_name(text):
    with pytest.raises(ValueError, match="device must be cpu or cuda:N"):
        parse_device(text)


def test_a_device_has_one_name():
    assert [parse_device(d) for d in ("cpu", "cuda", "cuda:01")] == ["cpu", "cuda:0", "cuda:1"]
