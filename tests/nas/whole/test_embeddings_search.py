"""A true search around a sentence encoder: distilled, judged by neighbours, exported, loaded."""

import json

import numpy as np
import pytest
import torch
from pages import DOCS, blocks
from parent_fakes import embedding_task, sentence_checkpoint, write_text_pairs
from record_fakes import FormulaMeasure
from search_fakes import report
from text_fakes import reviews

import nas
from nas.cli.main import main
from nas.exporting.artifact import load_artifact
from nas.records.config import CHECKPOINT
from nas.reporting.data import page_data
from nas.store.run_file import load
from nas.tasks.embeddings.agreements import agreements_in
from search_spaces.compression import probing


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def quick(monkeypatch):
    """Nothing is probed or compiled: a network's joules follow from its size."""
    monkeypatch.setattr("nas.searching.in_process.LocalMeasure", FormulaMeasure)
    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real", bf16="real"))


def test_a_search_has_the_checkpoint_as_trial_0_and_distils_its_vectors(tmp_path, monkeypatch):
    quick(monkeypatch)
    checkpoint = sentence_checkpoint(tmp_path / "minilm")
    (tmp_path / "own.yaml").write_text("depth: [2]\nattention_rank: [null]\nffn_rank: [null]\n")
    run = nas.search(
        checkpoint=checkpoint,
        task=embedding_task(tmp_path, prefix="good "),
        to=tmp_path / "run",
        cuts={
            "trials": 4,
            "finalists": 1,
            "epochs": 3,
            "space": tmp_path / "own.yaml",
            "fields": {"meter": "estimate", "seed": 1},
        },
        workers=0,
    )
    records = run.records()
    assert [r.state for r in records] == ["complete"] * 5, [r.reason for r in records]
    assert run.config.teacher == CHECKPOINT and run.config.training.distill is None
    first = records[0]
    assert first.quality == 1 and first.architecture == run.config.space.parent
    assert run.teacher().train_energy_j is None and not run.teacher().tabulated
    assert {r.start for r in records} == {"teacher"}
    # Cut networks agree with the checkpoint far more than by chance, 10 of 36 or so.
    assert all(0.35 < r.quality < 1 for r in records[1:])
    assert run.metric.name == "recall@10"
    metrics = [each.metric for each in agreements_in(run.trial_folder(1))]
    assert metrics == ["recall1", "recall5", "recall10", "spearman"]
    card = dict(next(t["card"] for t in page_data(run)["trials"] if t["trial"] == 1))
    assert "(validation)" in card["Spearman correlation"] and "recall@1" in card
    # The run needs neither the checkpoint nor the user's task file.
    done = nas.resume(run.folder, trials=5, workers=0)
    assert sum(r.finalist_of is None for r in done.records()) == 5


@pytest.mark.thorough
def test_the_whole_way_from_one_command_to_stock_classes(tmp_path, capsys):
    import transformers

    checkpoint = sentence_checkpoint(tmp_path / "minilm")
    for split, seed in (("validation", 5), ("test", 6)):
        write_text_pairs(tmp_path / f"{split}.csv", 30, seed)
    pairs = {"validation_pairs": "validation.csv", "test_pairs": "test.csv"}
    task = embedding_task(tmp_path, prefix="good ", metric="spearman", **pairs)
    folder = tmp_path / "run"
    command = ["search", "--from", str(checkpoint), "--task", task, "--run", str(folder)]
    command += ["--workers", "0", "--meter", "estimate", "--loadable", "--epochs", "2"]
    assert main([*command, "--trials", "3", "--finalists", "1"]) == 0
    said = capsys.readouterr()
    assert "expected here" in said.err
    assert main(["front", str(folder)]) == 0
    table = capsys.readouterr().out
    assert "Spearman correlation" in table and "per sample (estimate)" in table
    run = load(folder)
    best = min((m for m in run.front()), key=lambda m: m.energy_j)
    assert main(["explain", str(folder), str(best.trial)]) == 0
    assert main(["report", str(folder), "--to", str(tmp_path / "page.html")]) == 0
    assert "Spearman correlation of pairs" in (tmp_path / "page.html").read_text()
    model = tmp_path / "model"
    command = ["export", str(folder), "--trial", str(best.trial), "--to", str(model)]
    command += ["--format", "huggingface", "--format", "onnx", "--joule-tolerance", "5"]
    assert main(command) == 0
    card = json.loads((model / "card.json").read_text())
    assert card["formats"]["huggingface"]["load_verification"]["stock_class"] == "BertModel"
    assert "artifact.embed(" in (model / "README.md").read_text()
    stored = model / "huggingface"
    assert "SentenceTransformer(" in (stored / "README.md").read_text()
    texts = [text for text, _ in reviews(40, seed=9)]
    artifact = load_artifact(model)
    vectors = artifact.embed(texts)
    assert vectors.shape == (40, 24) and artifact.embed(texts[0]).shape == (24,)
    assert np.abs(artifact.embed(texts[0]) - vectors[0]).max() < 1e-5
    assert artifact.embed([]).shape == (0, 24)
    reader = transformers.AutoTokenizer.from_pretrained(stored)
    network = transformers.AutoModel.from_pretrained(stored).float().eval()
    given = reader([f"good {t}" for t in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        stream_BTD = network(**given).last_hidden_state
    keep_BT1 = given["attention_mask"][..., None]
    pooled = (stream_BTD * keep_BT1).sum(1) / keep_BT1.sum(1)
    found = torch.nn.functional.normalize(pooled).numpy()
    assert np.abs(found - vectors).max() < 1e-2
    with pytest.raises(ValueError, match="classify requires the artifact of a classifier"):
        artifact.classify(texts)
    capsys.readouterr()
    shown, _ = blocks(DOCS / "embeddings.md", "python")
    exec(shown.replace("path/to/this/folder", str(model)), {})
    assert capsys.readouterr().out == "(2, 24)\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "recall7"}, "metric must be one of"),
        ({"sequence_length": 65}, "sequence_length must be at most 64"),
        ({"validation_pairs": "no.csv", "test_pairs": "no.csv"}, "no.csv must be readable"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    options, said, tmp_path, monkeypatch, capsys
):
    quick(monkeypatch)
    checkpoint = sentence_checkpoint(tmp_path / "minilm")
    task, folder = embedding_task(tmp_path, **options), tmp_path / "run"
    command = ["search", "--from", str(checkpoint), "--task", task, "--run", str(folder)]
    assert main([*command, "--quiet", "--workers", "0"]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1] and not folder.exists()


def test_a_classifier_gives_no_vectors(tmp_path, capsys):
    from parent_fakes import text_checkpoint

    checkpoint = text_checkpoint(tmp_path / "bert", head="ForSequenceClassification")
    command = ["search", "--from", str(checkpoint), "--task", embedding_task(tmp_path)]
    assert main([*command, "--run", str(tmp_path / "run"), "--quiet", "--workers", "0"]) == 2
    assert "whose outputs are no vectors of texts" in capsys.readouterr().err.splitlines()[-1]
