"""``nas measure`` as a user meets it: real measurements, by the CPU estimate."""

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from search_fakes import report

from nas.cli.main import main
from nas.tasks.registry import get_task
from predictors.measurement import compare
from predictors.measurement.process import MeasureProcess
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import EnergyRecord, append_records, read_records
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.workload import Workload

SMALL = Architecture(8, (LayerSpec(AttentionSpec(2, 1, 4), FfnSpec(8)),), patch_size=4)
LARGE = Architecture(64, (LayerSpec(AttentionSpec(4, 4, 16), FfnSpec(256)),) * 2, patch_size=2)
WIDE = Architecture(24, (LayerSpec(AttentionSpec(4, 4, 6), FfnSpec(96)),), patch_size=2)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "small.json").write_text(json.dumps(SMALL.to_dict()))
    (tmp_path / "large.json").write_text(json.dumps(LARGE.to_dict()))
    (tmp_path / "both.jsonl").write_text(
        "".join(json.dumps(a.to_dict()) + "\n" for a in (SMALL, LARGE))
    )
    return tmp_path


@pytest.mark.usefixtures("all_measured_by_forks")
def test_a_file_of_architectures_is_measured_once_and_with_a_reference(files, capsys):
    command = ["measure", str(files / "both.jsonl"), "--device", "cpu", "--meter", "estimate"]
    command += ["--to", str(files / "r.jsonl"), "--json"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["missing"] == 0 and found["drift"][0]["n_references"] == 2
    measured = {
        Architecture.from_dict(r["architecture"]).hash: r["reading"] for r in found["measured"]
    }
    assert measured[SMALL.hash]["energy_j"] < measured[LARGE.hash]["energy_j"] / 5
    assert all(reading["is_estimate"] for reading in measured.values())
    assert "done 2/2" in err
    before = (files / "r.jsonl").read_bytes()
    assert main([*command, "--quiet"]) == 0
    again, err = capsys.readouterr()
    assert json.loads(again) == found and err == ""
    assert (files / "r.jsonl").read_bytes() == before
    # A line cut off by a kill is said, and what it held is measured again.
    records = read_records(files / "r.jsonl").records
    lost = next(i for i, r in enumerate(records) if r.architecture == SMALL)
    lines = before.decode().splitlines(keepends=True)
    (files / "r.jsonl").write_text("".join(lines[:lost] + lines[lost + 1 :]) + lines[lost][:99])
    assert main(["measure", str(files / "small.json"), *command[2:-1]]) == 0
    assert "truncated" in capsys.readouterr().err


class OnePair:
    """Stands for ``MeasureProcess``: the first pair is real, later ones answer as it did."""

    def __init__(self):
        self.answers = {}

    @contextmanager
    def __call__(self, job, timeout_s):
        name = str(job["architecture"])
        if name in self.answers:
            answers = iter(self.answers[name])
            yield SimpleNamespace(send=lambda message: None, receive=lambda: next(answers))
            return
        kept = self.answers[name] = []

        def receive():
            kept.append(process.receive())
            return kept[-1]

        with MeasureProcess(job, timeout_s) as process:
            yield SimpleNamespace(send=process.send, receive=receive)


@pytest.mark.usefixtures("all_measured_by_forks")
def test_comparing_says_which_takes_more_and_its_interval(files, capsys, monkeypatch):
    monkeypatch.setattr(compare, "MeasureProcess", OnePair())
    command = ["measure", "--device", "cpu", "--meter", "estimate", "--json"]
    assert main([*command, "--compare", str(files / "large.json"), str(files / "small.json")]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "pair 6 of 9 at most | ratio ±" in err
    assert found["ratio"]["high"] >= found["ratio"]["mean"] >= found["ratio"]["low"] > 5
    assert found["n_pairs"] == 6


@pytest.mark.usefixtures("measured_eagerly")
def test_it_runs_where_ray_and_optuna_are_not_installed(files):
    code = (
        "import sys; sys.modules['ray'] = sys.modules['optuna'] = None\n"
        "from nas.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "measure", str(files / "small.json"), "--device", "cpu"]
        + ["--to", str(files / "r.jsonl"), "--meter", "estimate"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "energy per sample (estimate)" in done.stdout


def counted(monkeypatch, power_w=5.0):
    """Measure at once on a device of known joules: a fixed cost a batch and one a sample."""
    from predictors.measurement import runner
    from predictors.measurement.process import MeasureError

    asked = []

    def measure(architecture, workload, *, protocol, device, meter, **others):
        asked.append((architecture, workload, protocol))
        if architecture == WIDE and workload.batch_size > 16:
            raise MeasureError("out of memory")
        per_sample_j = 1e-6 * (architecture.d_model + 40 / workload.batch_size)
        return made_record(architecture, workload, protocol, per_sample_j)

    monkeypatch.setattr(runner, "measure_fresh", measure)
    return asked


def made_record(architecture, workload, protocol, energy_j):
    reading = EnergyReading(
        energy_j=energy_j,
        low_j=energy_j,
        high_j=energy_j,
        n_repeats=6,
        converged=True,
        meter="fake",
        source="fake",
        is_estimate=False,
        device="Fake",
        workload=workload.key,
        batch_size=workload.batch_size,
        latency_s=1e-3,
        power_w=5.0,
        duration_s=1.0,
        protocol_hash=protocol.hash,
    )
    return EnergyRecord(
        architecture=architecture,
        workload=workload,
        reading=reading,
        repeats_j=(energy_j,) * 6,
        job="j",
        mode="compile",
        date="2026-11-24T00:00:00.000+00:00",
        versions={},
        protocol=protocol.to_dict(),
        spent_energy_j=1.0,
    )


def test_the_batch_size_is_raised_until_it_no_longer_pays(files, capsys, monkeypatch):
    asked = counted(monkeypatch)
    command = ["measure", str(files / "both.jsonl"), "--device", "cpu", "--meter", "estimate"]
    command += ["--batch-size", "auto", "--to", str(files / "r.jsonl"), "--json", "--quiet"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    sizes = {
        Architecture.from_dict(r["architecture"]).hash: r["reading"]["batch_size"]
        for r in found["measured"]
    }
    # 8 + 40 / b joules fall by 5% and more up to 64; 64 + 40 / b do up to 8.
    assert sizes == {SMALL.hash: 64, LARGE.hash: 8}
    assert found["failed"] == [] and found["missing"] == 0
    n = len(asked)
    assert main(command) == 0 and len(asked) == n
    assert json.loads(capsys.readouterr().out) == found


def test_memory_that_ends_ends_the_search_of_a_batch_size(files, capsys, monkeypatch):
    counted(monkeypatch)
    (files / "wide.json").write_text(json.dumps(WIDE.to_dict()))
    from predictors.measurement import batching

    monkeypatch.setattr(batching, "LEAST_GAIN", 1e-3)
    command = ["measure", str(files / "wide.json"), "--device", "cpu", "--meter", "estimate"]
    command += ["--batch-size", "auto", "--to", str(files / "r.jsonl"), "--json", "--quiet"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [r["reading"]["batch_size"] for r in found["measured"]] == [16]


def test_what_failed_is_said_each_time_and_is_no_success(files, capsys, monkeypatch):
    counted(monkeypatch)
    (files / "wide.json").write_text(json.dumps(WIDE.to_dict()))
    command = ["measure", str(files / "both.jsonl"), str(files / "wide.json"), "--device", "cpu"]
    command += ["--meter", "estimate", "--to", str(files / "r.jsonl"), "--quiet"]
    for _ in range(2):
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert "failed: d24 L1" in out and "out of memory" in out and err == ""
    assert main([*command, "--json"]) == 1
    (failed,) = json.loads(capsys.readouterr().out)["failed"]
    assert failed["cause"] == "out of memory" and failed["workload"] == "digits/b128"


def test_records_are_measured_again_as_they_were(files, capsys, monkeypatch):
    asked = counted(monkeypatch)
    text = Workload("text", "language_modelling", (32,), 100, 4, vocab_size=100)
    flat = replace(SMALL, patch_size=1)
    protocol = replace(get_protocol("screening"), regime="latency")
    records = [
        made_record(flat, text, protocol, 1e-6),
        replace(made_record(flat, text.with_batch_size(8), protocol, 1e-6), role="reference"),
        made_record(SMALL, get_task("digits").workload(2), protocol, 1e-6),
    ]
    append_records(files / "r.jsonl", records)
    with (files / "r.jsonl").open("a") as handle:
        handle.write('{"architecture": {"sch')
    command = ["measure", str(files / "r.jsonl"), "--device", "cpu", "--meter", "estimate"]
    assert main([*command, "--to", str(files / "again.jsonl")]) == 0
    out, err = capsys.readouterr()
    assert "truncated" in err and "text@32/b4" in out and "digits/b2" in out
    again = [r for r in read_records(files / "again.jsonl").records if r.role == "candidate"]
    assert {(r.architecture, r.workload) for r in again} == {
        (flat, text),
        (SMALL, get_task("digits").workload(2)),
    }
    assert {p for _, _, p in asked} == {protocol}
    asked.clear()
    command += ["--protocol", "quick", "--batch-size", "16", "--to", str(files / "third.jsonl")]
    assert main(command) == 0
    assert {(w.batch_size, p.name) for _, w, p in asked[1:-1]} == {(16, "quick")}


def test_one_request_at_a_time_is_the_usual_of_the_latency_regime(files, capsys, monkeypatch):
    asked = counted(monkeypatch)
    command = ["measure", str(files / "small.json"), "--device", "cpu", "--meter", "estimate"]
    command += ["--to", str(files / "r.jsonl"), "--quiet", "--regime", "latency"]
    assert main(command) == 0
    assert [w.batch_size for _, w, _ in asked] == [1]


def test_fewer_members_than_asked_for_are_said(files, capsys, monkeypatch):
    from search_spaces.compression import probing

    counted(monkeypatch)
    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real"))
    (files / "few.yaml").write_text(
        "{name: few, d_model: [8], depth: [1, 2], n_heads: [1], n_kv_heads: [1], ffn_ratio: [1]}"
    )
    command = ["measure", "--space", str(files / "few.yaml"), "--sample", "9", "--device", "cpu"]
    command += ["--meter", "estimate", "--to", str(files / "r.jsonl"), "--batch-size", "16"]
    assert main(command) == 0
    assert "has 2 architectures that fit, --sample is 9" in capsys.readouterr().err


WRONG = [
    ([], ["--space", "--compare"]),
    (["--space", "digits-tiny"], ["--sample"]),
    (["--space", "digits-tniy", "--sample", "2"], ["did you mean 'digits-tiny'"]),
    (["--space", "digits-tiny", "--sample", "0"], ["sample", "> 0"]),
    (["{tmp}/none.json"], ["none.json"]),
    (["{tmp}/bad.json"], ["bad.json"]),
    (["{tmp}/list.json"], ["list.json", "one or more"]),
    (["{tmp}/small.json", "--task", "digts"], ["did you mean 'digits'"]),
    (["{tmp}/small.json", "--protocol", "slow"], ["quick, screening, brief, final"]),
    (["{tmp}/small.json", "--regime", "batch"], ["throughput, latency"]),
    (["{tmp}/small.json", "--meter", "ruler"], ["meter", "estimate"]),
    (["{tmp}/small.json", "--workload", "{tmp}/small.json"], ["workload", "keys"]),
    (["{tmp}/small.json", "--batch-size", "-1"], ["batch_size"]),
    (["{tmp}/small.json", "--batch-size", "1.5"], ["batch_size", "auto"]),
    (["{tmp}/small.json", "--batch-size", "auto", "--regime", "latency"], ["throughput"]),
    (["{tmp}/small.json", "--batch-size", "auto", "--retry-failed"], ["--retry-failed"]),
    (["--compare", "{tmp}/small.json", "{tmp}/small.json", "--to", "x"], ["leave out --to"]),
    (["--compare", "{tmp}/small.json", "{tmp}/small.json", "--budget-s", "9"], ["--budget-s"]),
    (["{tmp}/small.json", "--device", "tpu"], ["cpu or cuda:N"]),
    (["{tmp}/small.json", "--device", "cuda:x"], ["cpu or cuda:N"]),
    (["{tmp}/small.json", "--meter", "nvml"], ["rapl", "estimate", "for cpu"]),
    (["{tmp}/small.json", "--to", "{tmp}/notes.txt"], ["notes.txt", "line 1"]),
    (["{tmp}/small.json", "--budget-s", "nan"], ["--budget-s"]),
    (["{tmp}/small.json", "--to", "{tmp}"], ["records", "file"]),
    (["{tmp}/small.json", "--to", "{tmp}/no/r.jsonl"], ["writable"]),
    (["{tmp}/small.json", "--to", "{tmp}/bad.jsonl"], ["line 1"]),
    (["{tmp}/odd.json"], ["patch_size", "divide"]),
    (["--compare", "{tmp}/small.json", "{tmp}/both.jsonl"], ["one architecture"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda v: " ".join(v)[:40])
def test_bad_input_is_one_line_and_writes_nothing(files, capsys, monkeypatch, arguments, words):
    from search_spaces.compression import probing

    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real"))
    (files / "bad.json").write_text("{")
    (files / "notes.txt").write_text("hello\n")
    (files / "list.json").write_text("[]")
    (files / "bad.jsonl").write_text('{"schema": 9}\n')
    (files / "odd.json").write_text(json.dumps(replace(SMALL, patch_size=3).to_dict()))
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    filled = [a.format(tmp=files) for a in arguments]
    line = ["measure", *([] if "--device" in filled else ["--device", "cpu"]), *filled]
    try:
        code = main(line)
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and len(err.splitlines()) == 1, err
    assert all(word in err for word in words), err
    assert sorted(files.iterdir()) == before
