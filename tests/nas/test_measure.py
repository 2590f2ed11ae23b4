"""``nas measure`` as a user meets it: real measurements, by the CPU estimate."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from search_fakes import report

from nas.cli.main import main
from predictors.campaign.records import read_records
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec

SMALL = Architecture(8, (LayerSpec(AttentionSpec(2, 1, 4), FfnSpec(8)),), patch_size=4)
LARGE = Architecture(64, (LayerSpec(AttentionSpec(4, 4, 16), FfnSpec(256)),) * 2, patch_size=2)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "small.json").write_text(json.dumps(SMALL.to_dict()))
    (tmp_path / "large.json").write_text(json.dumps(LARGE.to_dict()))
    (tmp_path / "both.jsonl").write_text(
        "".join(json.dumps(a.to_dict()) + "\n" for a in (SMALL, LARGE))
    )
    return tmp_path


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
    assert "cut off" in capsys.readouterr().err


def test_comparing_says_which_takes_more_and_its_interval(files, capsys):
    command = ["measure", "--device", "cpu", "--meter", "estimate", "--quiet", "--json"]
    assert main([*command, "--compare", str(files / "large.json"), str(files / "small.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["low"] > 5
    assert found["n_pairs"] >= 6


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


WRONG = [
    ([], ["--space", "--compare"]),
    (["--space", "digits-tiny"], ["--sample"]),
    (["--space", "digits-tniy", "--sample", "2"], ["did you mean 'digits-tiny'"]),
    (["--space", "digits-tiny", "--sample", "0"], ["sample", "> 0"]),
    (["{tmp}/none.json"], ["none.json"]),
    (["{tmp}/bad.json"], ["bad.json"]),
    (["{tmp}/list.json"], ["list.json", "one or more"]),
    (["{tmp}/small.json", "--task", "digts"], ["did you mean 'digits'"]),
    (["{tmp}/small.json", "--protocol", "slow"], ["quick, screening, final"]),
    (["{tmp}/small.json", "--regime", "batch"], ["throughput, latency"]),
    (["{tmp}/small.json", "--meter", "ruler"], ["meter", "estimate"]),
    (["{tmp}/small.json", "--workload", "{tmp}/small.json"], ["workload", "keys"]),
    (["{tmp}/small.json", "--batch-size", "-1"], ["batch_size"]),
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
    (files / "list.json").write_text("[]")
    (files / "bad.jsonl").write_text('{"schema": 9}\n')
    (files / "odd.json").write_text(json.dumps(replace(SMALL, patch_size=3).to_dict()))
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    filled = [a.format(tmp=files) for a in arguments]
    assert main(["measure", "--device", "cpu", *filled]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1, err
    assert all(word in err for word in words), err
    assert sorted(files.iterdir()) == before
