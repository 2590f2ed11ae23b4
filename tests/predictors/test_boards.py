"""Settings of boards: read, kept with every record, never changed."""

import json
from dataclasses import replace

import pytest
from fakes import FakeClock, FakeGpu, FakeLab, FakeNvml
from record_fakes import DIGITS, made_record, made_records

from predictors.campaign.plan import PlanItem, plan_items
from predictors.campaign.slices import run_slice
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import EnergyRecord, read_records
from predictors.meters.board import Board, describe_limits
from predictors.meters.nvml import NvmlMeter

SET = dict(power_limit_w=500.0, default_power_limit_w=700.0, ecc=True, persistence=False)


def items(n):
    records = made_records(n)
    return [PlanItem(record.architecture, DIGITS) for record in records]


def test_each_record_names_board_host_driver_and_settings(tmp_path):
    lab = FakeLab(get_protocol("quick"))
    for name, value in SET.items():
        setattr(lab.gpu, name, value)
    lab.gpu.clock_limits_mhz = {1: 1410}
    plan = plan_items(items(2), protocol=lab.protocol, device="cuda:0")
    run_slice(plan, tmp_path / "a.jsonl", lab, clock=lab.clock)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(lines) >= 3
    for line in lines:
        reading = json.loads(line)["reading"]
        board = reading["board"]
        assert board["uuid"] == "GPU-0" and reading["host"] and reading["driver"] == "580.0"
        assert {name: board[name] for name in SET} == SET
        assert (board["sm_clock_limit_mhz"], board["memory_clock_mhz"]) == (1410, 2600)
        assert board["mig"] is None and board["memory_clock_limit_mhz"] is None
    records = read_records(tmp_path / "a.jsonl").records
    assert [EnergyRecord.from_dict(json.loads(line)) for line in lines] == list(records)


def test_a_candidate_names_the_reference_measured_last_before_it(tmp_path):
    lab = FakeLab(replace(get_protocol("quick"), block_size=2))
    plan = plan_items(items(4), protocol=lab.protocol, device="cuda:0")
    run_slice(plan, tmp_path / "a.jsonl", lab, clock=lab.clock)
    last = ""
    for record in read_records(tmp_path / "a.jsonl").records:
        assert record.reference == last and record.session
        last = record.job if record.role == "reference" else last
    assert last


class RefusingNvml(FakeNvml):
    """A driver through which nothing may be set."""

    def __getattr__(self, name):
        if name.startswith("nvml") and ("Set" in name or "Reset" in name):
            raise AssertionError(f"{name} would change the board")
        raise AttributeError(name)


def test_settings_are_read_through_a_driver_that_lets_nothing_be_set():
    driver = RefusingNvml(FakeClock(), FakeGpu(**SET))
    meter = NvmlMeter((0,), nvml=driver, clock=driver.clock, background=False)
    assert meter.read_board() == Board("GPU-0", memory_clock_mhz=2600, **SET)


@pytest.mark.parametrize(
    ("board", "words"),
    [
        (Board("GPU-0"), ""),
        (Board("GPU-0", power_limit_w=350.0), "350 W"),
        (
            Board("GPU-0", 350.0, 700.0, 1410, 2600, 2600, False),
            "350 W, SM clock 1410 MHz, memory clock 2600 MHz, ECC off",
        ),
    ],
)
def test_limits_are_told_in_words(board, words):
    assert describe_limits(board.limits) == words


@pytest.mark.parametrize("board", ["GPU-0", {}, {"uuid": "a", "watts": 1}, {"uuid": 7}])
def test_a_record_with_a_board_that_is_none_is_refused(board):
    data = made_record(made_records(1)[0].architecture, DIGITS, 1.0).to_dict()
    data["reading"] = data["reading"] | {"board": board}
    with pytest.raises(ValueError, match="board (must|has unknown key watts)|uuid must be str"):
        EnergyRecord.from_dict(data)
