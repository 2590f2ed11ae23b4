"""The campaign, its report and the comparison of meters, on a board whose joules are known."""

from dataclasses import replace

import pytest
from fakes import FakeClock, FakeGpu, FakeLab, FakeNvml, FakeZeusMonitor

from experiments import campaign, campaign_report, meter_agreement
from predictors.campaign.drift import correct_drift
from predictors.campaign.protocol import get_protocol
from predictors.campaign.records import read_records
from predictors.campaign.slices import run_slice
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


def test_without_a_gpu_the_campaign_says_so_and_measures_nothing(tmp_path, capsys):
    assert campaign.main(["--device", "cuda:0", "--to", str(tmp_path / "r.jsonl")]) == 2
    assert "NVML cannot start" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A whole campaign in two slices on a fake board that drifts by a fifth."""
    path = tmp_path_factory.mktemp("campaign") / "r.jsonl"
    plan = campaign.make_plan("cuda:0", ["fp32", "bf16"], ["dense"], n=10)
    lab = FakeLab(plan.protocol, drift=lambda s: 1 + 0.2 * s / 900)
    for _ in range(2):
        run_slice(plan, path, lab, clock=lab.clock, budget_s=480.0)
    assert run_slice(plan, path, lab, clock=lab.clock).done == len(plan.items)
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


def test_a_meter_that_is_not_there_is_one_line(capsys):
    assert meter_agreement.main(["nvml", "zeus"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
