"""Texts without labels: read from any form, with a checkpoint's vectors as targets."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pages import DOCS, blocks
from parent_fakes import embedding_task, sentence_checkpoint, write_text_pairs
from run_fakes import check_schema
from text_fakes import reviews

from nas.cli.main import main
from nas.tasks.base.checks import check_data
from nas.tasks.embeddings.agreements import agreements_in
from nas.tasks.embeddings.objective import EmbeddingObjective
from nas.tasks.embeddings.task import EmbeddingOptions
from nas.tasks.registry import get_task
from nas.training.evaluate import evaluate
from search_spaces.pretrained import load_checkpoint

TEXTS = [text for text, _ in reviews(240)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("transformers")
    return sentence_checkpoint(tmp_path_factory.mktemp("checkpoints") / "minilm")


def with_checkpoint(checkpoint, **options):
    own = {"checkpoint": str(checkpoint), "tokenizer": str(checkpoint / "tokenizer.json")}
    return {**own, "padding_token": 0, "vocab_size": 97, **options}


def lines(folder):
    (folder / "t.txt").write_text("\n".join([*TEXTS, "", ""]))
    return {"data": "t.txt"}


def column(folder):
    (folder / "t.csv").write_text("n,sentence\n" + "".join(f"1,{text}\n" for text in TEXTS))
    return {"data": "t.csv", "text": "sentence"}


def objects(folder):
    (folder / "t.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    return {"data": "t.jsonl"}


def parquet(folder):
    pq.write_table(pa.table({"text": TEXTS}), folder / "t.parquet")
    return {"data": "t.parquet"}


def headless(folder):
    (folder / "t.tsv").write_text("".join(f"0\t{text}\n" for text in TEXTS))
    return {"data": "t.tsv", "columns": ["label", "text"]}


def three_files(folder):
    (folder / "data").mkdir()
    for name, part in (("train", TEXTS[:160]), ("dev", TEXTS[160:200]), ("test", TEXTS[200:])):
        (folder / "data" / f"{name}.txt").write_text("\n".join(part))
    return {"data": "data"}


@pytest.mark.parametrize("form", [lines, column, objects, parquet, headless, three_files])
def test_texts_are_read_from_every_form_and_checked(form, tmp_path, capsys):
    path = embedding_task(tmp_path, **form(tmp_path))
    task = get_task(path)
    sizes = [len(task.split(name)) for name in ("train", "validation", "test")]
    assert sum(sizes) == 240 and min(sizes) >= 24
    if form is three_files:
        assert sizes == [160, 40, 40]
    assert main(["check-data", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    check_schema(found, "check_data")
    assert found["errors"] == [] and found["splits"]["train"]["samples"] == sizes[0]


def test_without_a_checkpoint_there_are_no_targets(tmp_path, capsys):
    path = embedding_task(tmp_path)
    task = get_task(path)
    for ask in (lambda: task.workload(4), lambda: task.objective):
        with pytest.raises(ValueError, match="must have a checkpoint, .*nas search --from DIR"):
            ask()
    command = ["search", "quickstart", "--task", path, "--run", str(tmp_path / "run")]
    assert main([*command, "--quiet", "--workers", "0"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "must have a checkpoint" in last and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("pooling", "normalise"), [("mean", True), ("cls", False)])
def test_targets_are_the_vectors_of_the_checkpoint_as_it_pools(pooling, normalise, tmp_path):
    pytest.importorskip("transformers")
    folder = sentence_checkpoint(tmp_path / "own", pooling, normalise)
    task = get_task(embedding_task(tmp_path, **with_checkpoint(folder)))
    workload = task.workload(8)
    assert workload.kind == "text_embedding" and workload.n_classes == 24
    network = load_checkpoint(folder).with_length(12).build()
    for name in ("train", "validation"):
        split = task.split(name)
        with torch.no_grad():
            vectors = network(torch.from_numpy(np.array(split.inputs)))
            loss = task.objective.loss(vectors, torch.from_numpy(split.targets), 0.0)
        assert float(loss) == pytest.approx(0, abs=1e-5)
        is_unit = np.allclose(vectors.norm(dim=1), 1, atol=1e-4)
        assert is_unit == normalise
    found = evaluate(network, task.split("test"), batch_size=16, objective=task.objective)
    assert found.value == 1 and found.standard_error > 0
    # Another text's vector is no target.
    with torch.no_grad():
        wrong = task.objective.loss(vectors, torch.from_numpy(split.targets).roll(1, 0), 0.0)
    assert float(wrong) > 1e-3


def test_a_prefix_is_part_of_every_text(checkpoint, tmp_path):
    plain = get_task(embedding_task(tmp_path / "a", **with_checkpoint(checkpoint)))
    own = get_task(embedding_task(tmp_path / "b", **with_checkpoint(checkpoint, prefix="good ")))
    one, other = (task.split("train").inputs for task in (plain, own))
    good = load_words(checkpoint).index("good")
    assert (other[:, 1] == good).all() and (other[:, 2] == one[:, 1]).all()
    assert "prompt.json" not in plain.artifact_files()
    assert json.loads(own.artifact_files()["prompt.json"]) == {"prefix": "good "}


def load_words(checkpoint):
    data = json.loads((checkpoint / "tokenizer.json").read_text())
    return list(data["model"]["vocab"])


def test_pairs_are_judged_by_their_scores(checkpoint, tmp_path):
    names = ["one", "other", "alike"]
    for split, seed in (("validation", 5), ("test", 6)):
        write_text_pairs(tmp_path / f"{split}.csv", 30, seed, names)
    options = {"validation_pairs": "validation.csv", "test_pairs": "test.csv"}
    options |= {"pair_columns": names, "metric": "pairs"}
    task = get_task(embedding_task(tmp_path, **with_checkpoint(checkpoint, **options)))
    split = task.split("validation")
    n_texts = len(split) - 60
    assert (split.targets[:n_texts, 1:] == -1).all()
    assert split.targets[n_texts:, 1].tolist() == [i // 2 for i in range(60)]
    network = load_checkpoint(checkpoint).with_length(12).build()
    found = evaluate(network, split, batch_size=16, objective=task.objective)
    # Vectors of random weights follow the words that texts share, to some degree.
    assert 0.1 < found.value < 0.98 and 0 < found.standard_error < 0.3
    assert len(found.scores) == len(split) and np.isfinite(found.scores).all()
    agreements = task.agreements(network, split).scores
    values = {each.metric: each.value for each in agreements}
    assert list(values) == ["recall1", "recall5", "recall10", "spearman", "pairs"]
    assert values["recall10"] == 1 and values["pairs"] == pytest.approx(found.value)
    task.save_examples(network, "cpu", tmp_path)
    assert agreements_in(tmp_path) == agreements and agreements_in(tmp_path / "none") == ()


def test_texts_in_two_splits_and_in_pairs_are_leaks(tmp_path):
    for name, part in (
        ("train", TEXTS[:100]),
        ("validation", [TEXTS[0].upper(), *TEXTS[100:140]]),
        ("test", TEXTS[140:]),
    ):
        (tmp_path / f"{name}.txt").write_text("\n".join(part))
    rows = [f"{TEXTS[1]},own {i},{i}" for i in range(12)]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second,score", *rows]))
    names = {name: f"{name}.txt" for name in ("train", "validation", "test")}
    path = tmp_path / "task.yaml"
    options = {"validation_pairs": "pairs.csv", "test_pairs": "pairs.csv"}
    text = "".join(f"{key}: {value}\n" for key, value in (names | options).items())
    path.write_text(f"name: t\nkind: embeddings\nsequence_length: 12\n{text}")
    warnings = check_data(get_task(str(path))).warnings
    assert "leak: 2 of 65 validation samples are in train as well" in warnings
    assert any("validation.txt:1" in line and "train.txt:1" in line for line in warnings)
    # A text of several pairs is one text.
    assert not any(line.startswith("repeat") for line in warnings if "pairs" in line)


def test_a_moved_checkpoint_gives_the_same_arrays(checkpoint, tmp_path):
    import shutil

    task = get_task(embedding_task(tmp_path, **with_checkpoint(checkpoint)))
    other = shutil.copytree(checkpoint, tmp_path / "elsewhere")
    again = get_task(embedding_task(tmp_path, **with_checkpoint(other, metric="spearman")))
    assert task.cache.folder == again.cache.folder
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    changed = get_task(embedding_task(tmp_path, **with_checkpoint(other)))
    assert changed.cache.folder != task.cache.folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "recall7"}, "metric must be one of recall1, .*pairs, got 'recall7'"),
        ({"metric": "pairs"}, "metric pairs must have validation_pairs and test_pairs"),
        ({"validation_pairs": "p.csv"}, "must both be given or neither"),
        ({"pair_columns": ["a", "b"]}, "pair_columns must be the columns of two texts"),
        ({"prefix": 3}, "prefix must be a text"),
        ({"sequence_length": 0}, "sequence_length must be an integer in 1"),
        ({"text": ["a", "b"]}, "text must be the name of a column"),
        ({"columns": ["a", "b"]}, "columns must have 'text', got a, b"),
        ({"checkpoint": "x"}, "checkpoint must have its tokenizer and padding_token"),
        ({"tokenizer": "x.json"}, "tokenizer must have a checkpoint"),
        ({"label": "y"}, "unknown key 'label'"),
        ({"checkpoint": 3}, "checkpoint must be a path"),
    ],
)
def test_options_that_are_not_allowed_are_one_line(options, said, tmp_path, capsys):
    path = embedding_task(tmp_path, **options)
    with pytest.raises(ValueError, match=said) as caught:
        get_task(path)
    assert "\n" not in str(caught.value)
    assert main(["check-data", path]) == 2


def test_a_checkpoint_without_vectors_is_refused(tmp_path):
    pytest.importorskip("transformers")
    from parent_fakes import text_checkpoint

    folder = text_checkpoint(tmp_path / "masked", head="ForMaskedLM")
    task = get_task(embedding_task(tmp_path, **with_checkpoint(folder)))
    with pytest.raises(ValueError, match="must give vectors of texts, got one of masked"):
        task.split("train")


def test_the_loss_of_similarities_moves_vectors_together():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((32, 8)).astype(np.float32)
    objective = EmbeddingObjective(vectors, np.zeros(0), "recall1")
    targets = torch.full((32, 3), -1)
    targets[:, 0] = torch.arange(32)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0].astype(np.float32)
    turned = torch.from_numpy(vectors @ turn)
    exact = torch.from_numpy(vectors)
    # A turn keeps all similarities: only the cosines to the targets are lost.
    cosine = 1 - torch.nn.functional.cosine_similarity(turned, exact).mean()
    assert float(objective.loss(turned, targets, 0.0)) == pytest.approx(float(cosine), abs=1e-4)
    noisy = exact + 0.5 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(0))
    cosine = 1 - torch.nn.functional.cosine_similarity(noisy, exact).mean()
    assert float(objective.loss(noisy, targets, 0.0)) > float(cosine) + 0.01
    assert float(objective.loss(3 * exact, targets, 0.0)) == pytest.approx(0, abs=1e-5)
    assert np.isfinite(float(objective.loss(exact[:1], targets[:1], 0.0)))
    with pytest.raises(ValueError, match="metric must be one of"):
        EmbeddingObjective(vectors, np.zeros(0), "bleu")


def test_task_files_of_the_page_are_tasks(tmp_path):
    plain, paired = blocks(DOCS / "embeddings.md", "yaml")
    (tmp_path / "captions.txt").write_text("\n".join(TEXTS))
    (tmp_path / "headlines.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    )
    for name, seed in (("sts-dev", 5), ("sts-test", 6)):
        columns = ["sentence1", "sentence2", "score"]
        write_text_pairs(tmp_path / f"{name}.csv", 20, seed, columns)
    for number, text in enumerate((plain, paired)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        task = get_task(str(path))
        assert not check_data(task).errors
    assert task.metric.key == "pairs" and task.about()["pairs"]["test"] == 20


def test_options_have_defaults():
    options = EmbeddingOptions()
    assert options.sequence_length == 128 and options.metric == "recall10"
