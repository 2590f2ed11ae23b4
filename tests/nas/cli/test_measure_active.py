"""``nas measure --active`` on a device of known joules."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from record_fakes import DIGITS, made_record, true_j
from search_fakes import report

from nas.cli.main import main
from predictors.campaign import active
from predictors.campaign.active import ActiveTarget, Bench, measure_actively
from predictors.campaign.plan import plan_items
from predictors.measurement import runner
from predictors.measurement.process import MeasureError
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import append_records, read_records
from predictors.meters.select import choose_meter
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.compression import probing
from search_spaces.space.presets import get_space


class Device:
    """Measures at once, by a formula with 1% noise; named as the CPU's estimate meter names it."""

    def __init__(self, monkeypatch):
        self.asked, self.fails = [], set()
        meter = choose_meter("estimate", "cpu")
        self.name, self.source = meter.device, meter.source
        self.rng = np.random.default_rng(0)
        monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real", bf16="real"))
        monkeypatch.setattr(runner, "measure_fresh", self)

    def record(self, architecture, workload, protocol):
        energy_j = true_j(architecture, workload) * float(np.exp(self.rng.normal(0, 0.01)))
        return made_record(
            architecture,
            workload,
            energy_j,
            device=self.name,
            source=self.source,
            protocol=protocol,
        )

    def __call__(self, architecture, workload, *, protocol, **others):
        self.asked.append(architecture)
        if architecture.hash in self.fails:
            raise MeasureError("out of memory")
        return self.record(architecture, workload, protocol)


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(active, "_POOL", 200)
    return Device(monkeypatch)


def command(path, n, *more):
    return [
        *("measure", "--space", "digits-tiny", "--active", str(n), "--device", "cpu"),
        *("--meter", "estimate", "--to", str(path), *more),
    ]


def candidates(path):
    return [r for r in read_records(path).records if r.role == "candidate"]


def test_it_fills_the_space_then_narrows_the_intervals_and_resumes(device, tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    assert main(command(path, 30)) == 0
    out, err = capsys.readouterr()
    assert len({r.architecture.hash for r in candidates(path)}) == 30
    said = re.findall(r"active: (\d+) of 30 measured(; the next \d+ fill the space)?", err)
    assert [int(n) for n, _ in said] == [0, 8, 10, 18, 26]
    assert [bool(fills) for _, fills in said] == [True, True, False, False, False]
    widths = [float(w) for w in re.findall(r"near the front ±([\d.]+)%", err)]
    expected = [float(w) for w in re.findall(r"about ±([\d.]+)% \(estimate\)", err)]
    assert len(widths) == 3 and all(e < w for e, w in zip(expected, widths, strict=True))
    assert "active: 30 of 30 measured" in out and "90% intervals" in out
    # Reading the records is resuming: nothing is measured again, and more goes on from there.
    n_asked, before = len(device.asked), path.read_bytes()
    assert main(command(path, 30, "--json", "--quiet")) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert len(device.asked) == n_asked and path.read_bytes() == before and err == ""
    assert found["active"]["measured"] == 30 == len(found["measured"])
    assert found["active"]["batches"] == [] and found["missing"] == 0
    assert 0 < found["active"]["width_near_front"] < widths[0] / 100
    assert main(command(path, 34, "--json", "--quiet")) == 0
    (batch,) = json.loads(capsys.readouterr().out)["active"]["batches"]
    assert batch["n_measured"] == 30 and batch["n_chosen"] == 4
    assert len({r.architecture.hash for r in candidates(path)}) == 34


def test_what_is_measured_depends_on_the_records_and_not_on_chance(device, tmp_path, capsys):
    chosen = []
    for name in ("a.jsonl", "b.jsonl"):
        device.rng = np.random.default_rng(0)
        assert main(command(tmp_path / name, 18, "--quiet")) == 0
        chosen.append([r.architecture.hash for r in candidates(tmp_path / name)])
    assert chosen[0] == chosen[1]


def test_records_that_are_there_count_and_those_of_others_do_not(device, tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    assert main(command(path, 12, "--quiet")) == 0
    records = candidates(path)
    protocol = get_protocol("quick")
    other_path = tmp_path / "other.jsonl"
    workload = records[0].workload
    append_records(
        other_path,
        [
            *records[:4],
            # Another batch size, another device, and no member of the space.
            device.record(records[4].architecture, workload.with_batch_size(7), protocol),
            made_record(records[5].architecture, workload, 1e-5, device="Other"),
        ],
    )
    capsys.readouterr()
    assert main(command(other_path, 6, "--json", "--quiet")) == 0
    found = json.loads(capsys.readouterr().out)
    (batch,) = found["active"]["batches"]
    assert batch["n_measured"] == 4 and batch["n_chosen"] == 2
    assert found["active"]["measured"] == 6


FEW = (
    "{name: few, d_model: [8, 16], depth: [1, 2, 3], n_heads: [1], n_kv_heads: [1], "
    "ffn_ratio: [1, 2]}"
)


def few(tmp_path, n, *more):
    """A command over a space that runs out before ``n``, so that all of it is asked for."""
    (tmp_path / "few.yaml").write_text(FEW)
    asked = command(tmp_path / "r.jsonl", n, *more)
    asked[asked.index("digits-tiny")] = str(tmp_path / "few.yaml")
    return asked


def test_what_fails_is_left_out_said_and_tried_once_more_when_asked(device, tmp_path, capsys):
    bad = Architecture(8, (LayerSpec(AttentionSpec(1, 1, 8), FfnSpec(8)),))
    device.fails = {bad.hash}
    assert main(few(tmp_path, 500, "--json", "--quiet")) == 1
    found = json.loads(capsys.readouterr().out)
    n = found["active"]["measured"]
    assert found["active"]["exhausted"] and found["missing"] == 0
    assert [f["cause"] for f in found["failed"]] == ["out of memory"]
    assert main(few(tmp_path, 500, "--quiet")) == 1 and device.asked.count(bad) == 1
    assert "failed: " in capsys.readouterr().out
    assert main(few(tmp_path, 500, "--quiet", "--retry-failed")) == 1
    assert device.asked.count(bad) == 2
    device.fails = set()
    capsys.readouterr()
    assert main(few(tmp_path, 500, "--quiet", "--retry-failed", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["active"]["measured"] == n + 1


def test_a_space_that_runs_out_is_said(device, tmp_path, capsys):
    assert main(few(tmp_path, 500)) == 0
    out, _ = capsys.readouterr()
    n = len({r.architecture.hash for r in candidates(tmp_path / "r.jsonl")})
    assert f"active: {n} of 500 measured, and no other candidate of the space is left" in out
    assert 10 < n < 500


def test_a_budget_that_is_over_ends_it(device, tmp_path):
    protocol, workload = get_protocol("quick"), DIGITS
    on = Bench("cpu", "m", device.source, device.name, protocol)
    bench = ActiveTarget(get_space("digits-tiny"), workload, on)
    path, at, given = tmp_path / "r.jsonl", [0.0], []

    def measure(items, left_s):
        given.append(left_s)
        naming = plan_items((), protocol=protocol, device="cpu")
        for item in items:
            at[0] += 10.0
            record = device.record(item.architecture, item.workload, protocol)
            append_records(path, [replace(record, item=naming.key(item))])

    def run(measure, budget_s):
        return measure_actively(
            bench, path, 40, measure, budget_s=budget_s, retry_failed=False,
            say=lambda text: None, clock=lambda: at[0],
        )  # fmt: skip

    assert run(measure, 95.0).n_measured == 10 and given == [95.0, 15.0]
    # A batch that ends nothing in the time that is left is the last one.
    assert run(lambda items, left_s: given.append(left_s), 1e9).n_measured == 10
    assert len(given) == 3


WRONG = [
    (["--active", "5"], ["--space", "--active"]),
    (["--space", "digits-tiny", "--active", "5", "--sample", "3"], ["one of", "--active"]),
    (["--space", "digits-tiny", "--active", "0"], ["active", "> 0"]),
    (["--space", "digits-tiny", "--active", "5", "--batch-size", "auto"], ["--active", "auto"]),
    (["--space", "digits-tniy", "--active", "5"], ["did you mean 'digits-tiny'"]),
    (["--space", "digits-tiny", "--active", "5", "--to", "{tmp}"], ["records", "file"]),
    (["--space", "{tmp}/odd.yaml", "--active", "5"], ["odd", "found none"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda v: " ".join(v)[:40])
def test_bad_input_is_one_line_and_writes_nothing(
    device, tmp_path, capsys, monkeypatch, arguments, words
):
    (tmp_path / "odd.yaml").write_text(
        "{name: odd, d_model: [8], depth: [1], n_heads: [1], n_kv_heads: [1], ffn_ratio: [1], "
        "patch_size: [3]}"
    )
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    filled = [a.format(tmp=tmp_path) for a in arguments]
    assert main(["measure", "--device", "cpu", "--meter", "estimate", *filled]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1, err
    assert all(word in err for word in words), err
    assert sorted(tmp_path.iterdir()) == before and device.asked == []
