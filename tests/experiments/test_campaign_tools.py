"""The campaign's plan, its command, its facts and the comparison of meters, on a fake board."""

import importlib.metadata
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from campaign_fakes import BRIEF, COSTS, run_campaign
from fakes import FakeClock, FakeGpu, FakeLab, FakeNvml, FakeZeusMonitor

from experiments import meter_agreement
from experiments.campaign import __main__ as campaign
from experiments.campaign import facts, needs, planned, steps
from nas.tasks.registry import get_task
from predictors.campaign.costs import ItemCosts
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import append_records, read_records
from predictors.meters.nvml import NvmlMeter
from predictors.meters.zeus import ZeusMeter
from search_spaces.architecture.layer_kinds import compressed_layer_kinds
from search_spaces.cost.kernels import kernel_fault

GPU_REFERENCE = {
    "name": "encoder-128",
    "kind": "text_classification",
    "input_shape": (128,),
    "n_classes": 2,
    "batch_size": 32,
    "vocab_size": 8192,
}


def blocks(item):
    return item.architecture.blocks


def test_the_first_slice_needs_no_compiler_and_covers_kinds_and_phases():
    plan = planned.make_plan("cuda:0", BRIEF, COSTS.seconds)
    early = plan.items[:20]
    assert {i.workload.key for i in early} == {
        "encoder-128@128/b32",
        "decoder-256@256/prefill/b8",
        "decoder-256@256/generate/b8",
    }
    kinds = {(b.compression.precision, b.compression.sparsity) for i in early for b in blocks(i)}
    assert kinds == {("fp32", "dense"), ("bf16", "dense"), ("bf16", "2:4")}
    assert all(compressed_layer_kinds(i.architecture) == 0 for i in plan.items[:36])
    assert plan.reference.workload == early[0].workload.__class__(**GPU_REFERENCE)
    assert plan.n_references == 6


def test_later_items_have_few_kinds_and_come_by_what_they_pay_a_second():
    plan = planned.make_plan("cuda:0", BRIEF, COSTS.seconds)
    assert max(compressed_layer_kinds(i.architecture) for i in plan.items) <= 2
    assert all(kernel_fault(i.architecture, "cuda:0") is None for i in plan.items)
    precisions = {b.compression.precision for i in plan.items for b in blocks(i)}
    assert precisions >= {"fp32", "bf16", "int8", "fp8", "int8wo"}
    # Where a precision compiles ten times as long, it comes later.
    dear = ItemCosts(by_precision={"fp8": 400.0})
    other = planned.make_plan("cuda:0", BRIEF, dear.seconds)

    def mean_rank(of, precision):
        first = [blocks(item)[0].compression.precision for item in of.items]
        ranks = [rank for rank, name in enumerate(first) if name == precision]
        return sum(ranks) / len(ranks)

    assert mean_rank(other, "fp8") > mean_rank(plan, "fp8") + 10
    assert {plan.key(i) for i in plan.items} == {other.key(i) for i in other.items}


def test_the_plan_on_a_cpu_is_of_the_digits_as_the_task_has_them():
    assert get_task("digits").workload(128) == planned.CPU_WORKLOAD
    plan = planned.make_plan("cpu", get_protocol("quick"), COSTS.seconds, 5)
    assert {i.workload for i in plan.items} == {planned.CPU_WORKLOAD}


def test_records_of_a_device_have_a_place_of_their_own():
    assert planned.records_folder("NVIDIA H200").parts[-2:] == ("measurements", "nvidia-h200")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--device", "tpu"], "device"),
        (["--minutes", "0"], "--minutes"),
        (["--minutes", "nan"], "--minutes"),
        (["--n", "0"], "--n must be"),
        (["--n", "-1"], "--n must be"),
        (["--protocol", "brisk"], "protocol must be one of"),
        (["--to", "{tmp}/notes.txt"], "writable folder"),
        (["--to", "{tmp}/notes.txt/x"], "writable folder"),
        (["--to", "{tmp}/odd"], "line 1"),
        (["--check", "{tmp}/notes.txt"], "--check"),
        (["--check", "{tmp}/none"], "--check"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, word):
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "brief.jsonl").write_text("hello\n")
    lab = FakeLab(BRIEF)
    assert run_campaign(lab, *(a.format(tmp=tmp_path) for a in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and word in err, err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "odd"]
    assert not lab.measured


def test_facts_time_the_calls_that_a_driver_answers():
    clock = FakeClock()
    driver = FakeNvml(clock, FakeGpu(forbidden=("processes",)))
    times = facts.call_times(driver, driver.gpus[0], lambda: clock.advance(0.01), clock)
    assert times["energy"] == {"median_ms": 0.0, "most_ms": 0.0}
    assert "Insufficient Permissions" in times["processes"]


@pytest.mark.parametrize("has_counter", [True, False])
def test_a_cold_start_holds_what_the_board_reports(tmp_path, monkeypatch, has_counter):
    clock = FakeClock()
    driver = FakeNvml(clock, FakeGpu(has_counter=has_counter, power_w=200.0))
    monkeypatch.setattr(facts, "time", SimpleNamespace(perf_counter=clock, sleep=driver.advance))
    path = tmp_path / "cold.jsonl"
    path.write_text("what a run that was killed left\n")
    facts.cold_start(driver, driver.gpus[0], lambda: driver.advance(0.5), path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 50 and lines[0]["power_w"] == 200.0
    expected = pytest.approx(100.0, rel=0.1) if has_counter else None
    assert all(line["joules_per_batch"] == expected for line in lines)


def test_what_fails_of_the_facts_costs_no_other(tmp_path, monkeypatch):
    bench = steps.Bench("cuda:0", "nvml", "nvml-total-energy", "Fake GPU", BRIEF, tmp_path)
    killed = []

    def run(command, limit_s):
        if command[-1] == "-q":
            raise steps.StepError("nvidia-smi is forbidden")
        path = Path(command[command.index("--to") + 1])
        path.write_text("{}")
        if "--cold" in command and not killed:
            killed.append(path)
            raise steps.StepError("took longer")
        return ""

    monkeypatch.setattr(steps, "_run", run)
    monkeypatch.setattr(steps.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setenv("JOULENAS_LOCK_FOLDER", str(tmp_path / "locks"))
    plan = steps.plan_of(replace(bench, n=1))

    def step(name):
        every = steps.steps_of(
            bench, plan, None, retry_failed=False, progress=lambda n, width: None
        )
        return next((one for one in every if one.name == name), None)

    for name in ("facts", "cold"):
        with pytest.raises(steps.StepError):
            step(name).run(60.0)
    # The board's own facts are there; a start that was cut off is followed again.
    assert step("facts") is None and step("cold") is not None
    step("cold").run(60.0)
    assert step("cold") is None


def test_records_of_another_device_are_not_added_to(tmp_path, capsys):
    lab = FakeLab(BRIEF)
    plan = planned.make_plan("cuda:0", BRIEF, COSTS.seconds, n=1)
    other = lab(plan.items[0], None)
    other = replace(other, reading=replace(other.reading, device="Fake GPU 9000"))
    append_records(tmp_path / "brief.jsonl", [other])
    lab.measured.clear()
    assert run_campaign(lab, "--to", str(tmp_path), "--n", "1") == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "Fake GPU 9000" in err and "--to" in err
    assert not lab.measured and len(read_records(tmp_path / "brief.jsonl").records) == 1


def test_facts_without_a_board_are_one_line(tmp_path, capsys):
    for device in ("cuda:0", "cpu", "tpu"):
        assert facts.main(["--to", str(tmp_path / "f.json"), "--device", device]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_the_campaign_says_so_and_measures_nothing(tmp_path, capsys):
    assert campaign.main(["--device", "cuda:0", "--to", str(tmp_path / "r")]) == 2
    assert "NVML cannot start" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", ["scipy", "torchao"])
def test_what_is_missing_is_one_line(monkeypatch, capsys, lacking):
    found = importlib.util.find_spec

    def without(name, *others):
        return None if name == lacking else found(name, *others)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert campaign.main([]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and lacking in err and "PYTHON=" in err


def test_a_version_that_is_too_new_or_too_old_is_named(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.19.0")
    assert [line.split("(")[1] for line in needs.missing()] == ["found 0.19.0)"] * 2


def test_what_is_to_be_done_is_said_before_it_is(tmp_path, capsys):
    lab = FakeLab(BRIEF)
    folder = tmp_path / "r"
    assert run_campaign(lab, "--to", str(folder), "--plan", quiet=False) == 0
    out, err = capsys.readouterr()
    assert out == "" and not lab.measured and not folder.exists()
    assert "the reference in 6 fresh processes" in err and "about" in err
    assert run_campaign(lab, "--to", str(folder), "--plan", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in told["steps"]] == ["facts", "first", "cold", "rest"]
    code = run_campaign(lab, "--to", str(folder), "--minutes", "1", "--n", "1", "--json")
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["new_records"] == len(lab.measured) > 2
    assert found["steps"]["facts"] == "failed: NVML cannot start"
    assert found["steps"]["cold"] == "left for the next run"


def test_where_nothing_can_be_measured_it_says_why(tmp_path, capsys):
    lab = FakeLab(BRIEF)
    plan = planned.make_plan("cuda:0", BRIEF, COSTS.seconds, n=1)
    lab.fails = {item.architecture.hash for item in (*plan.items, plan.reference)}
    assert run_campaign(lab, "--to", str(tmp_path), "--n", "1") == 1
    assert "no kernel for this shape" in capsys.readouterr().err
    # The device was at fault: nothing is kept as failed.
    assert not (tmp_path / "brief.failures.jsonl").exists()


@pytest.mark.parametrize("gain", [1.0, 1.03])
def test_meters_that_differ_by_three_per_cent_are_told_apart(gain):
    clock = FakeClock()
    driver = FakeNvml(clock, FakeGpu(power_w=300.0))
    ours = NvmlMeter((0,), nvml=driver, clock=clock, background=False)
    zeus = ZeusMeter("cuda:0", monitor=FakeZeusMonitor(clock, 300.0 * gain), clock=clock)
    found = meter_agreement.agreement(
        ours, zeus, lambda: driver.advance(0.003), window_s=2.0, n_windows=6, clock=clock
    )
    assert found.ratio == pytest.approx(gain, abs=0.002)
    assert found.low <= found.ratio <= found.high


@pytest.mark.parametrize(
    "arguments",
    [
        ["nvml", "zeus"],
        ["nvml", "ruler"],
        ["estimate", "estimate", "--device", "cpu", "--windows", "3"],
        ["estimate", "estimate", "--device", "cpu", "--window-s", "nan"],
        ["estimate", "estimate", "--device", "tpu"],
    ],
    ids=str,
)
def test_meters_that_cannot_be_compared_are_one_line(capsys, arguments):
    assert meter_agreement.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
