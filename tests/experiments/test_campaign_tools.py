"""The campaign, its report and the comparison of meters, on a board whose joules are known."""

import importlib.metadata
import importlib.util
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import FakeClock, FakeGpu, FakeLab, FakeNvml, FakeZeusMonitor

from experiments import campaign_report, meter_agreement
from experiments.campaign import __main__ as campaign
from experiments.campaign import command, facts, needs, planned, steps
from nas.tasks.registry import get_task
from predictors.campaign.costs import ItemCosts
from predictors.campaign.pending import pending_items
from predictors.campaign.plan import PlanItem
from predictors.measurement.drift import correct_drift
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import append_records, read_records
from predictors.meters.nvml import NvmlMeter
from predictors.meters.zeus import ZeusMeter
from search_spaces.architecture.layer_kinds import compressed_layer_kinds
from search_spaces.cost.kernels import kernel_fault


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


SLICE_S = 480.0
BRIEF = get_protocol("brief")
COSTS = ItemCosts()
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


def run_campaign(lab, *arguments, quiet=True):
    """The command as a user gives it, on a fake board in place of the device and its processes."""
    meter = SimpleNamespace(
        name="nvml", source="nvml-total-energy", device="Fake GPU", close=lambda: None
    )

    def measure(architecture, workload, *, timeout_s, **others):
        return lab(PlanItem(architecture, workload), timeout_s)

    clock = SimpleNamespace(monotonic=lab.clock)
    with pytest.MonkeyPatch.context() as patch:
        if "--device" not in arguments:
            patch.setattr(command, "choose_meter", lambda name, device: meter)
        patch.setattr(steps, "measure_fresh", measure)
        patch.setattr(command, "time", clock)
        patch.setattr(steps, "time", clock)
        # Facts are asked of a true board, in a process of its own: here there is none.
        patch.setattr(steps, "_run", no_board)
        device = () if "--device" in arguments else ("--device", "cuda:0")
        return campaign.main([*device, *arguments, *(["--quiet"] if quiet else [])])


def no_board(command, limit_s):
    raise steps.StepError("NVML cannot start")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A whole campaign in slices on a fake board that drifts by a fifth, cut off in between."""
    folder = tmp_path_factory.mktemp("campaign")
    path = folder / "brief.jsonl"
    lab = FakeLab(BRIEF, drift=lambda s: 1 + 0.2 * s / 900)
    n_before = -1
    while (n := len(read_records(path).records) if path.exists() else 0) > n_before:
        n_before = n
        started_s = lab.clock()
        assert run_campaign(lab, "--n", "1", "--to", str(folder)) == 0
        assert lab.clock() - started_s <= SLICE_S
        if n_before == 0:
            # The first 8 minutes leave the references and many candidates.
            first = read_records(path).records
            assert len(first) >= 36 and sum(r.role == "reference" for r in first) >= 6
            # Killed in the middle of a line: what it held is measured once more.
            path.write_text(path.read_text()[:-99])
    assert lab.clock() - lab.start_s > 1.5 * SLICE_S
    plan = planned.make_plan("cuda:0", BRIEF, COSTS.seconds, n=1)
    assert not pending_items(plan, path)
    return path


def test_the_report_says_how_good_the_records_are(records, capsys, tmp_path):
    (found,) = campaign_report.report(read_records(records).records)
    plan = planned.make_plan("cuda:0", BRIEF, COSTS.seconds, n=1)
    assert found.n_architectures == len({(i.architecture, i.workload) for i in plan.items})
    assert found.tick_s == pytest.approx(0.1, rel=0.05)
    assert found.across_jobs < 0.01
    assert [d.is_applied for d in found.drift] == [True]
    assert set(found.tau_flops) <= {i.workload.key for i in plan.items}
    assert campaign_report.main([str(records), "--plot", str(tmp_path / "p.png")]) == 0
    out = capsys.readouterr().out
    assert "Fake GPU (nvml-total-energy)" in out and "applied" in out
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_figures_of_a_board_are_kept_beside_its_records(records, capsys):
    (found,) = json.loads((records.parent / "figures.json").read_text())
    assert found["n_references"] >= 6 and found["tick_s"] == pytest.approx(0.1, rel=0.05)
    # The board drifts by a fifth and more, which the reference shows.
    assert 0.02 < found["between_processes"] < 0.3
    assert campaign.main(["--check", str(records.parent)]) == 0
    assert "may be used" in capsys.readouterr().out


def test_records_that_lack_something_are_named(records, tmp_path, capsys):
    few = read_records(records).records[:3]
    odd = [
        replace(few[0], reading=replace(few[0].reading, is_estimate=True, host=None)),
        replace(few[1], session=""),
        few[2],
    ]
    append_records(tmp_path / "sent.jsonl", odd)
    assert campaign.main(["--check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    for word in ("estimate", "no host in 1 of 3", "no session in 1 of 3", "6 are needed"):
        assert word in out
    assert campaign.main(["--check", str(tmp_path), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)) == 1


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


def test_estimates_are_called_so(records):
    raw = [
        replace(r, reading=replace(r.reading, is_estimate=True))
        for r in read_records(records).records
    ]
    assert "an estimate" in campaign_report.render(campaign_report.report(raw)[0])
    assert correct_drift(raw)[0][0].reading.is_estimate


@pytest.mark.parametrize("name", ["p.docx", "no/p.png"])
def test_a_plot_that_cannot_be_drawn_is_one_line(records, tmp_path, capsys, name):
    assert campaign_report.main([str(records), "--plot", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1


def test_a_wrong_file_is_one_line(tmp_path, capsys):
    (tmp_path / "r.jsonl").write_text("")
    for name in ("none.jsonl", "r.jsonl"):
        assert campaign_report.main([str(tmp_path / name)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


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
