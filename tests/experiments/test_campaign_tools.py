"""The campaign, its report and the comparison of meters, on a board whose joules are known."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import FakeClock, FakeGpu, FakeLab, FakeNvml, FakeZeusMonitor

from experiments import campaign, campaign_report, meter_agreement
from predictors.campaign.drift import correct_drift
from predictors.campaign.plan import PlanItem
from predictors.campaign.protocol import get_protocol
from predictors.campaign.records import read_records
from predictors.campaign.pending import pending_items
from predictors.meters.nvml import NvmlMeter
from predictors.meters.zeus import ZeusMeter


def test_the_gpu_plan_covers_kinds_precisions_and_sparsities_early():
    plan = campaign.make_plan("cuda:0", ["fp32", "bf16", "int8", "fp8"], ["dense", "2:4"], n=20)
    early = plan.items[:30]
    assert {i.workload.kind for i in early} == {
        "image_classification",
        "text_classification",
        "language_modelling",
    }
    blocks = [b.compression for i in early for b in i.architecture.blocks]
    assert {b.precision for b in blocks} == {"fp32", "bf16", "int8", "fp8"}
    assert {b.sparsity for b in blocks} == {"dense", "2:4"}
    assert plan.protocol == get_protocol("screening") and plan.reference is not None
    only = campaign.make_plan("cuda:0", ["bf16"], ["dense"], n=5)
    assert {b.compression.precision for i in only.items for b in i.architecture.blocks} == {"bf16"}


def test_records_of_a_device_have_a_place_of_their_own():
    path = campaign.records_path("NVIDIA H200", "screening")
    assert path.parts[-3:] == ("measurements", "nvidia-h200", "screening.jsonl")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--device", "tpu"], "device"),
        (["--slice-s", "0"], "slice_s"),
        (["--slice-s", "nan"], "slice_s"),
        (["--n", "0"], "n must be"),
        (["--n", "-1"], "n must be"),
        (["--to", "{tmp}"], "writable"),
        (["--to", "{tmp}/notes.txt"], "line 1"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, word):
    (tmp_path / "notes.txt").write_text("hello\n")
    lab = FakeLab(get_protocol("screening"))
    assert run_campaign(lab, *(a.format(tmp=tmp_path) for a in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and word in err, err
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert not lab.measured


def test_without_a_gpu_the_campaign_says_so_and_measures_nothing(tmp_path, capsys):
    assert campaign.main(["--device", "cuda:0", "--to", str(tmp_path / "r.jsonl")]) == 2
    assert "NVML cannot start" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


SLICE_S = 480.0


def run_campaign(lab, *arguments):
    """The command as a user gives it, on a fake board in place of the device and its processes."""
    meter = SimpleNamespace(name="nvml", device="Fake GPU", close=lambda: None)

    def measure(architecture, workload, *, timeout_s, **others):
        return lab(PlanItem(architecture, workload), timeout_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign, "choose_meter", lambda name, device: meter)
        patch.setattr(campaign, "probe", lambda device, shapes, cache_dir: None)
        patch.setattr(campaign, "real_choices", lambda report: (["fp32", "bf16"], ["dense"]))
        patch.setattr(campaign, "measure_fresh", measure)
        patch.setattr(campaign, "time", SimpleNamespace(monotonic=lab.clock))
        return campaign.main(["--device", "cuda:0", "--quiet", *arguments])


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A whole campaign in slices on a fake board that drifts by a fifth, cut off in between."""
    path = tmp_path_factory.mktemp("campaign") / "r.jsonl"
    lab = FakeLab(get_protocol("screening"), drift=lambda s: 1 + 0.2 * s / 900)
    n_before = -1
    while (n := len(read_records(path).records) if path.exists() else 0) > n_before:
        n_before = n
        started_s = lab.clock()
        assert run_campaign(lab, "--n", "10", "--to", str(path)) == 0
        assert lab.clock() - started_s <= SLICE_S
        if n_before == 0:
            # Killed in the middle of a line: what it held is measured once more.
            path.write_text(path.read_text()[:-99])
    assert lab.clock() - lab.start_s > 1.5 * SLICE_S
    plan = campaign.make_plan("cuda:0", ["fp32", "bf16"], ["dense"], n=10)
    assert not pending_items(plan, path)
    return path


def test_the_report_says_how_good_the_records_are(records, capsys, tmp_path):
    (found,) = campaign_report.report(read_records(records).records)
    assert found.n_architectures == 30 and found.n_repeated == 3
    assert found.tick_s == pytest.approx(0.1, rel=0.05)
    assert found.idle_power_w == pytest.approx(FakeLab.IDLE_W, rel=0.25)
    assert found.across_jobs < 0.01 < found.across_jobs_raw
    assert [d.is_applied for d in found.drift] == [True]
    assert set(found.tau_flops) == {w.key for w in campaign.GPU_WORKLOADS.values()}
    assert campaign_report.main([str(records), "--plot", str(tmp_path / "p.png")]) == 0
    out = capsys.readouterr().out
    assert "Fake GPU (nvml-total-energy): 30 architectures" in out and "applied" in out
    assert (tmp_path / "p.png").stat().st_size > 10_000


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
