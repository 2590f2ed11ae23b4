"""Summarisation: ROUGE equals rouge-score's, long documents warn, and a network learns."""

import json
import math
import re
import sys

import numpy as np
import pytest
from media_fakes import task_file
from pages import DOCS, blocks
from text_fakes import write_parallel, write_table

from experiments.made_data import documents, lead
from experiments.recipes import summarisation as recipe
from nas.core.files import write_json
from nas.exporting.artifact import load_artifact
from nas.searching.fitting import check_fits, for_task
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.base.checks import check_data, search_notes
from nas.tasks.registry import get_task
from nas.tasks.sequences.pair_objective import PairObjective
from nas.tasks.sequences.summary_score import METRICS, RougeScore
from nas.training.config import TrainingConfig
from nas.training.fit import Setting, fit
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

ATTENTION, FFN = AttentionSpec(2, 2, 16), FfnSpec(64)
SMALL = Architecture(
    32,
    (LayerSpec(ATTENTION, FFN),),
    decoder=DecoderSpec(32, (DecoderLayerSpec(ATTENTION, ATTENTION, FFN),)),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def summaries(folder, **options):
    made = {
        "name": "reports",
        "kind": "summarisation",
        "sequence_length": 96,
        "target_length": 12,
        "max_vocabulary": 400,
        **options,
    }
    return get_task(task_file(folder / "task.yaml", **made))


def test_every_form_of_documents_is_read_the_same(tmp_path):
    pairs = documents(60)
    given = {"lines": write_parallel(tmp_path, pairs)}
    for form in ("csv", "jsonl", "parquet"):
        given[form] = write_table(tmp_path / f"all.{form}", pairs, ("article", "summary")).name
    sides = {"source": "article", "target": "summary"}
    tasks = [
        summaries(tmp_path, data=data, **({} if form == "lines" else sides))
        for form, data in given.items()
    ]
    for task in tasks[1:]:
        for name in SPLITS:
            one, other = tasks[0].split(name), task.split(name)
            assert np.array_equal(one.inputs, other.inputs)
            assert np.array_equal(one.targets, other.targets)


def test_documents_that_are_cut_are_warned_of_with_their_share(tmp_path):
    write_table(tmp_path / "all.jsonl", documents(200), ("source", "target"))
    task = summaries(tmp_path, data="all.jsonl", sequence_length=60)
    (line,) = [line for line in search_notes(task) if "sequence_length" in line]
    share = float((task.split("train").inputs != 0).all(axis=1).mean())
    assert f"cut: {share:.0%} of the training sources fill sequence_length (60 tokens)" in line
    assert 0.05 < share < 0.95
    # A single one is worth a line: what is not read cannot be summarised.
    longest = ("the winners are the lions . " * 40, "lions win")
    write_table(tmp_path / "all.jsonl", [*documents(200), longest], ("source", "target"))
    # Shares this small leave the long one to the training split.
    shares = {"validation_share": 0.02, "test_share": 0.02}
    task = summaries(tmp_path, data="all.jsonl", sequence_length=200, **shares)
    assert any("(1% are cut)" in line or "(0% are cut)" in line for line in task.warnings())


def test_one_document_is_in_one_split_and_repeats_are_no_leak(tmp_path):
    pairs = documents(80)
    again = [(source.upper(), f"{target} again") for source, target in pairs]
    write_table(tmp_path / "all.csv", pairs + again, ("source", "target"))
    report = check_data(summaries(tmp_path, data="all.csv"))
    assert not report.errors and not any("leak" in line for line in report.warnings)
    # The same documents in files of their own are leaks.
    write_table(tmp_path / "held.csv", pairs[:30], ("source", "target"))
    report = check_data(summaries(tmp_path, train="all.csv", test="held.csv"))
    # Each of them is in train or in validation, which was held out of it.
    (in_train, in_validation) = (
        int(re.match(rf"leak: (\d+) of 30 test samples are in {name}", line)[1])
        for name in ("train", "validation")
        for line in report.warnings
        if line.startswith("leak") and name in line and "test samples" in line
    )
    assert in_train + in_validation == 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rouge_tokens": "german"}, "rouge_tokens must be one of english, words, characters"),
        ({"metric": "bleu"}, "metric must be rougeL or rouge1 or rouge2, got 'bleu'"),
        ({"target_length": 1}, "target_length must be an integer in 2.."),
        ({"beam_size": 0}, "beam_size must be an integer in 1.."),
        ({"summary": "x"}, "unknown key 'summary'"),
    ],
)
def test_a_wrong_task_file_is_named(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        summaries(tmp_path, **{"data": "all.csv"} | options)


def test_a_missing_package_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    with pytest.raises(ValueError, match=r"needs: pip install 'joulenas\[summaries\]'"):
        summaries(tmp_path, data="all.csv")


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_the_means_of_the_package(name):
    pairs = documents(30)
    right = [target for _, target in pairs]
    written = [lead(source) for source, _ in pairs]
    score = RougeScore(name, "english")
    figures = score.figures(written, right)
    theirs = rouge_scorer.RougeScorer([name], use_stemmer=True)
    expected = [theirs.score(r, w)[name].fmeasure for r, w in zip(right, written, strict=True)]
    assert score.share(figures.sum(axis=0)) == pytest.approx(np.mean(expected))
    assert score.share(figures) == pytest.approx(expected)
    assert score.share(score.figures(right, right).sum(axis=0)) == 1
    assert score.share(score.figures([""] * 30, right).sum(axis=0)) == 0


@pytest.mark.parametrize(
    ("tokens", "text", "reference", "expected"),
    [
        # Stems are the same word in English alone.
        ("english", "the lions WON games", "the lion won game", 1.0),
        ("words", "the lions WON games", "the lion won game", 0.5),
        # Letters that are not a to z: none is left for the English tokenization.
        ("english", "Кошка спит", "кошка спит", 0.0),
        ("words", "Кошка спит", "кошка спит", 1.0),
        ("words", "猫睡觉", "猫走路", 0.0),
        ("characters", "猫睡觉", "猫走路", 1 / 3),
    ],
)
def test_words_are_those_of_the_language(tokens, text, reference, expected):
    figures = RougeScore("rouge1", tokens).figures([text], [reference])
    assert figures[0, 0] == pytest.approx(expected)


def test_letters_that_english_drops_are_warned_of(tmp_path):
    pairs = [(f"{source} {i}", f"кошка номер {i}") for i, (source, _) in enumerate(documents(80))]
    write_table(tmp_path / "all.csv", pairs, ("source", "target"))
    (line,) = [x for x in summaries(tmp_path, data="all.csv").warnings() if "rouge" in x]
    assert "100% of the letters" in line and "rouge_tokens: words" in line
    other = summaries(tmp_path, data="all.csv", rouge_tokens="words")
    assert not any("rouge" in line for line in other.warnings())


def test_a_standard_error_is_how_scores_of_such_documents_spread():
    n, rng = 60, np.random.default_rng(0)
    pairs = documents(800)
    right, score = [target for _, target in pairs], RougeScore("rougeL", "english")
    objective = PairObjective(right, list, end=9, score=score)
    figures = score.figures([lead(source) for source, _ in pairs], right)
    scores, errors = [], []
    for _ in range(25):
        drawn = figures[rng.choice(len(pairs), n, replace=False)]
        scores.append(float(objective.quality(drawn.sum(axis=0))))
        errors.append(objective.standard_error(drawn))
    # Added right and wrong texts widen the error of scores that hardly differ.
    assert np.std(scores, ddof=1) < np.mean(errors) < 0.05
    assert objective.standard_error(figures[:1]) == math.inf


def test_the_task_of_the_page_is_one_and_fits_the_recipe(tmp_path):
    (text,) = blocks(DOCS / "summarisation.md", "yaml")
    write_table(tmp_path / "news.jsonl", documents(80), ("article", "highlights"))
    (tmp_path / "news.yaml").write_text(text)
    task = get_task(str(tmp_path / "news.yaml"))
    assert not check_data(task).errors and task.metric.key == "rougeL"
    space = for_task(recipe("cpu").space, task.workload(32))
    check_fits(space, task.workload(32))
    assert space.size() > 1000


def test_an_artifact_summarises_and_its_kind_is_checked(tmp_path):
    pairs = documents(900)
    write_table(tmp_path / "all.jsonl", pairs, ("source", "target"))
    task = summaries(tmp_path, data="all.jsonl", beam_size=2)
    workload = task.workload(32)
    assert (workload.key, workload.unit) == ("reports@96-12/beam2/b32", "output token")
    assert (workload.sample_name, workload.units_per_sample) == ("document", 12)
    config = TrainingConfig(epochs=1, batch_size=32, learning_rate=8e-3)
    fitted = fit(SMALL, Setting(task, workload, seed=0), config)
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_json(folder / ARCHITECTURE, SMALL.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    save_weights(fitted.model, folder / WEIGHTS)
    for name, text in artifact_files_of(task).items():
        (folder / name).write_text(text, encoding="utf-8")
    artifact = load_artifact(folder)
    sources = [source for source, _ in pairs[:5]]
    written = artifact.summarise(sources)
    # After an epoch words are those of summaries, if not the right ones.
    words = {word for _, target in pairs for word in target.split()}
    assert set(" ".join(written).split()) <= words and "beat" in " ".join(written)
    assert artifact.summarise(sources[0]) == written[0]
    with pytest.raises(ValueError, match="translate requires an artifact of translation"):
        artifact.translate("a report")
    description = json.loads((folder / WORKLOAD).read_text())
    assert description["kind"] == "summarisation"
