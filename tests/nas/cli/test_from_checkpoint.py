"""``--from`` of ``nas predictor predict`` and ``nas plot``, and the benchmark of precisions."""

import json

import pytest
from pretrained_fakes import causal, saved
from record_fakes import made_records

from experiments.benchmarks.compression import checkpoint_joules
from nas.cli.main import main
from nas.core.estimate import Estimate
from nas.measuring.measure import CheckpointEnergy, Row
from predictors.measurement.records import append_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    network = causal("llama", num_hidden_layers=2)
    return saved(network, tmp_path_factory.mktemp("checkpoints") / "small-llama")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = tmp_path_factory.mktemp("predictor") / "p.safetensors"
    append_records(path.with_suffix(".jsonl"), made_records(24))
    assert main(["predictor", "fit", str(path.with_suffix(".jsonl")), "--to", str(path)]) == 0
    return path


def test_a_checkpoint_is_predicted_in_each_precision_and_phase(folder, predictor, capsys):
    command = ["predictor", "predict", str(predictor), "--from", str(folder), "--json"]
    names = ["--precision", "fp32", "--precision", "bf16", "--sequence-length", "16"]
    capsys.readouterr()
    assert main([*command, *names]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)["predictions"]
    assert [row["workload"] for row in rows] == [
        f"small-llama@16/{phase}/b1" for phase in ("prefill", "prefill", "generate", "generate")
    ]
    assert [row["architecture"].split()[-1] for row in rows] == ["fp32", "bf16"] * 2
    assert not any(row["in_range"] for row in rows)
    assert "note: batches have 1 sample" in err
    assert main([*command, "--phase", "generate", "--batch-size", "4"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["predictions"]
    assert row["workload"] == "small-llama@64/generate/b4" and row["energy_j"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "name architecture files or --from DIR"),
        (["{files}", "--from", "{folder}"], "name architecture files or --from DIR"),
        (["{files}", "--precision", "bf16"], "--precision requires --from"),
        (["{files}", "--phase", "generate"], "--phase requires --from"),
        (["--from", "{folder}", "--precision", "int5"], "int5"),
        (["--from", "{folder}", "--batch-size", "0"], "--batch-size"),
        (["--from", "{folder}/none"], "none"),
    ],
    ids=lambda value: " ".join(value),
)
def test_predictions_of_something_else_are_refused(options, said, folder, predictor, capsys):
    files = predictor.with_suffix(".jsonl")
    words = [word.format(files=files, folder=folder) for word in options]
    capsys.readouterr()
    assert main(["predictor", "predict", str(predictor), *words]) == 2
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()[-1:]
    assert said in line and out == ""


def test_the_architecture_of_a_checkpoint_is_drawn(folder, tmp_path, capsys):
    to = tmp_path / "llama.svg"
    assert main(["plot", "--from", str(folder), "--to", str(to), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drawn"] == {"architecture": str(to)}
    assert "small-llama" in to.read_text()
    assert main(["plot", "--from", str(folder), "--to", str(tmp_path / "pictures")]) == 0
    assert (tmp_path / "pictures" / "architecture.png").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "either a run or --from DIR must be given"),
        (["a-run", "--from", "{folder}"], "either a run or --from DIR must be given"),
        (["--from", "{folder}", "--what", "front"], "leave out --what front"),
        (["--from", "{folder}", "--trial", "3"], "--trial applies to a run"),
        (["--from", "{folder}", "--storage", "sqlite:///x.db"], "--storage applies to a run"),
    ],
    ids=lambda value: " ".join(value),
)
def test_pictures_of_something_else_are_refused(options, said, folder, tmp_path, capsys):
    words = [word.format(folder=folder) for word in options]
    assert main(["plot", *words, "--to", str(tmp_path / "x.png")]) == 2
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()
    assert said in line and out == "" and not (tmp_path / "x.png").exists()


def energy_of(*rows, failed=()):
    return CheckpointEnergy("c", "Fake", "estimate", True, "r.jsonl", rows, dict(failed), 0, ())


def row_of(precision, ratio):
    energy = Estimate(2e-3, 1e-3, 4e-3, "measured")
    return Row(precision, None, "m@128/b1", "sample", energy, ratio, 0.1, 5e6, 3, ())


def test_the_table_of_the_benchmark_has_every_figure():
    rows = (row_of("fp32", None), row_of("int8", Estimate(0.5, 0.4, 0.6, "measured")))
    table = checkpoint_joules.table_of("minilm", energy_of(*rows, failed=[("bf16", "slow")]))
    text = table.text()
    assert "2.000 mJ [1.000, 4.000]" in text and "0.50 [0.40, 0.60]" in text
    assert "m@128/b1; bf16 failed: slow" in text and "5.0 MB" in text


def test_the_benchmark_names_what_is_to_be_fetched_first(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint_joules, "CHECKPOINTS", tmp_path)
    with pytest.raises(SystemExit, match="make checkpoints"):
        checkpoint_joules.folder_of("minilm")
    monkeypatch.setattr(
        checkpoint_joules,
        "SMOLLM2",
        checkpoint_joules.SMOLLM2
        | {"hidden_size": 18, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 32},
    )
    made = checkpoint_joules.folder_of("smollm2-shape")
    assert json.loads((made / "config.json").read_text())["num_attention_heads"] == 9
