"""``nas predictor`` as a user meets it."""

import json
from dataclasses import replace

import pytest
from record_fakes import made_records

from nas.cli.main import main
from predictors.energy import learning_curve
from predictors.measurement.records import append_records, read_records

METRICS = {"n", "tau", "spearman", "mape", "p95", "coverage", "within_5", "within_10"}


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "r.jsonl"
    append_records(path, made_records(60, n_repeated=4))
    return path


def test_the_table_is_readable_and_says_what_it_cannot_tell(records, capsys):
    assert main(["predictor", "evaluate", str(records)]) == 0
    out, _ = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 100
    for word in ("random:", "by-job:", "by-family:", "extrapolation:", "Spearman", "FLOPs"):
        assert word in out
    assert "a family is one width (d_model) on one workload" in out
    assert "4 repeated" in out and "Spearman-Brown" in out
    assert "estimate" not in out


def test_estimates_and_refusals_are_called_what_they_are(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    found = made_records(24, n_sessions=1)
    append_records(path, [replace(r, reading=replace(r.reading, is_estimate=True)) for r in found])
    assert main(["predictor", "evaluate", str(path), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out.count("joules are estimates") == 1 and err == ""
    assert "by-job: unknown, the records hold one measuring session only" in out
    assert "no architecture was measured twice" in out
    assert max(map(len, out.splitlines())) <= 100


def test_too_few_records_are_told_split_by_split(tmp_path, capsys):
    append_records(tmp_path / "r.jsonl", made_records(9))
    assert main(["predictor", "evaluate", str(tmp_path / "r.jsonl")]) == 0
    out, _ = capsys.readouterr()
    assert out.count("unknown, a fold would train on") == 4 and "MAPE" in out
    assert max(map(len, out.splitlines())) <= 100


def test_json_holds_every_figure_and_a_double_counts_once(records, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(learning_curve, "SIZES", (10,))
    (tmp_path / "copy.jsonl").write_bytes(records.read_bytes())
    plot = tmp_path / "curve.png"
    command = ["predictor", "evaluate", str(records), str(tmp_path / "copy.jsonl")]
    assert main([*command, "--json", "--quiet", "--plot", str(plot)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"schema", "devices", "learning_curve", "drift"}
    (device,) = found["devices"]
    assert device["n_records"] == 64 and device["n_architectures"] == 60
    assert device["confidence"] == 0.9
    for split in device["splits"]:
        assert split["refusal"] is None
        assert split["metrics"].keys() == {"predictor", "flops", "params", "bytes", "latency"}
        assert all(metrics.keys() == METRICS for metrics in split["metrics"].values())
    assert device["ceiling"]["n_repeated"] == 4
    assert {p["predictor"] for p in found["learning_curve"]} == {
        "predictor", "flops", "params", "bytes", "latency"
    }  # fmt: skip
    assert plot.read_bytes().startswith(b"\x89PNG")


WRONG = [
    (["{tmp}/none.jsonl"], ["none.jsonl"]),
    (["{tmp}/notes.jsonl"], ["notes.jsonl", "line 1"]),
    (["{tmp}/empty.jsonl"], ["empty.jsonl", "got none"]),
    (["{tmp}"], ["must be a file"]),
    (["{tmp}/r.jsonl", "--seed", "-1"], ["seed", ">= 0"]),
    (["{tmp}/r.jsonl", "--plot", "{tmp}/c.txt"], [".png"]),
    (["{tmp}/r.jsonl", "--plot", "{tmp}/no/c.png"], ["writable"]),
    (["{tmp}/few.jsonl", "--plot", "{tmp}/c.png"], ["20 architectures", "hold 6"]),
    (["{tmp}/r.jsonl", "{tmp}/other.jsonl", "--plot", "{tmp}/c.png"], ["one device"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda v: " ".join(v)[:40])
def test_bad_input_is_one_line_and_writes_nothing(
    records, tmp_path, capsys, monkeypatch, arguments, words
):
    from predictors.energy import evaluation

    def evaluated(*_, **__):
        raise AssertionError("bad input is refused before anything slow")

    if "few" not in arguments[0]:
        monkeypatch.setattr(evaluation, "evaluate", evaluated)
    (tmp_path / "notes.jsonl").write_text("hello\n")
    (tmp_path / "empty.jsonl").write_text("")
    append_records(tmp_path / "few.jsonl", made_records(6))
    other = [
        replace(r, reading=replace(r.reading, device="Other")) for r in made_records(2, seed=1)
    ]
    append_records(tmp_path / "other.jsonl", other)
    before = sorted(tmp_path.iterdir())
    filled = [a.format(tmp=tmp_path) for a in arguments]
    assert main(["predictor", "evaluate", *filled]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1, err
    assert all(word in err for word in words), err
    assert sorted(tmp_path.iterdir()) == before


def test_fitted_saved_and_asked_it_predicts_what_was_measured(records, tmp_path, capsys):
    saved, found = tmp_path / "p.safetensors", made_records(60, n_repeated=4)
    assert main(["predictor", "fit", str(records), "--to", str(saved)]) == 0
    out = capsys.readouterr().out
    assert "measured records" in out and "for Fake" in out
    assert main(["predictor", "predict", str(saved), str(records), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["device"] == "Fake" and len(told["predictions"]) == len(found)
    for row, record in zip(told["predictions"], found, strict=True):
        assert row["hash"] == record.architecture.hash and row["in_range"]
        assert abs(row["energy_j"] / record.reading.energy_j - 1) < 0.25
        assert row["low_j"] < row["energy_j"] < row["high_j"]
    assert main(["predictor", "predict", str(saved), str(records)]) == 0
    assert "90% interval" in capsys.readouterr().out


def test_the_batch_size_of_records_is_that_of_the_option(records, tmp_path, capsys):
    saved = tmp_path / "p.safetensors"
    assert main(["predictor", "fit", str(records), "--to", str(saved)]) == 0
    capsys.readouterr()
    command = ["predictor", "predict", str(saved), str(records), "--batch-size", "7", "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)["predictions"]
    expected = [r.workload.with_batch_size(7).key for r in read_records(records).records]
    assert [row["workload"] for row in rows] == expected


def test_a_predictor_adapts_to_records_of_another_device(records, tmp_path, capsys):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert main(["predictor", "fit", str(records), "--to", str(source)]) == 0
    other = tmp_path / "other.jsonl"
    thrice = [
        replace(
            r,
            reading=replace(
                r.reading,
                device="Other",
                energy_j=3 * r.reading.energy_j,
                low_j=3 * r.reading.low_j,
                high_j=3 * r.reading.high_j,
            ),
        )
        for r in made_records(12)
    ]
    append_records(other, thrice)
    fit = ["predictor", "fit", str(other), "--to", str(target), "--adapt", str(source)]
    assert main([*fit, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.partition("{")[2].join(("{", "")))
    assert told["device"] == "Other" and "another device" in told["basis"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "{records}", "--to", "{folder}/p.bin"], "--to must be a .safetensors file"),
        (["fit", "{records}", "--to", "{folder}/p.safetensors", "--seed", "-1"], "seed must be"),
        (["fit", "{folder}/none.jsonl", "--to", "{folder}/p.safetensors"], "none.jsonl"),
        (["predict", "{records}", "{records}"], "safetensors file"),
        (["predict", "{saved}", "{folder}/none.json"], "none.json"),
        (["predict", "{saved}", "{records}", "--confidence", "2"], "confidence must be in"),
        (["predict", "{saved}", "{records}", "--batch-size", "0"], "--batch-size must be"),
        (
            ["predict", "{saved}", "{records}", "--for-device", "B"],
            "device must be 'B', got 'Fake'",
        ),
    ],
)
def test_bad_input_of_fit_and_predict_gets_one_line(records, tmp_path, capsys, arguments, words):
    saved = tmp_path / "saved.safetensors"
    assert main(["predictor", "fit", str(records), "--to", str(saved)]) == 0
    capsys.readouterr()
    names = {"records": records, "folder": tmp_path, "saved": saved}
    assert main(["predictor", *(a.format(**names) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1
    assert not (tmp_path / "p.safetensors").exists() and not (tmp_path / "p.bin").exists()
