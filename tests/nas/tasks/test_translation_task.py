"""Translation: pairs are read and kept apart, scores are sacrebleu's, translations are learnt."""

import json
import math

import numpy as np
import pytest
import sacrebleu
import torch
from media_fakes import task_file
from text_fakes import sentences, write_parallel, write_table

from nas.core.files import write_json
from nas.exporting.artifact import load_artifact
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.base.checks import check_data
from nas.tasks.base.problems import DataError
from nas.tasks.registry import get_task
from nas.tasks.sequences.pair_objective import PairObjective
from nas.tasks.sequences.translation_score import METRICS, CorpusScore
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

ATTENTION, FFN = AttentionSpec(2, 2, 16), FfnSpec(64)
SMALL = Architecture(
    32,
    (LayerSpec(ATTENTION, FFN),),
    decoder=DecoderSpec(32, (DecoderLayerSpec(ATTENTION, ATTENTION, FFN),)),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def translations(folder, **options):
    made = {
        "name": "tongue",
        "kind": "translation",
        "sequence_length": 20,
        "target_length": 20,
        "max_vocabulary": 300,
        **options,
    }
    return get_task(task_file(folder / "task.yaml", **made))


def texts(task, name):
    split, objective = task.split(name), task.objective
    tokens = np.where(split.targets[:, :-1] == objective._end, 0, split.targets[:, :-1])
    return objective._decode(tokens)


def test_every_form_of_pairs_says_the_same(tmp_path):
    pairs = sentences(60)
    given = {"lines": write_parallel(tmp_path, pairs)}
    for form in ("csv", "tsv", "jsonl", "parquet"):
        given[form] = write_table(tmp_path / f"all.{form}", pairs, ("en", "xx")).name
    made = [
        translations(tmp_path, data=data, **({} if form == "lines" else SIDES))
        for form, data in given.items()
    ]
    for task in made[1:]:
        for name in SPLITS:
            one, other = made[0].split(name), task.split(name)
            assert np.array_equal(one.inputs, other.inputs)
            assert np.array_equal(one.targets, other.targets)


SIDES = {"source": "en", "target": "xx"}


def test_tokens_are_those_of_both_languages_and_give_the_texts_back(tmp_path):
    pairs = sentences(80)
    task = translations(tmp_path, data=write_parallel(tmp_path, pairs))
    found = {name: texts(task, name) for name in SPLITS}
    assert sorted(sum(found.values(), [])) == sorted(target for _, target in pairs)
    workload = task.workload(8)
    assert workload.n_classes == workload.vocab_size + 1 <= 301
    ends = (task.split("train").targets[:, :-1] == workload.vocab_size).sum(axis=1)
    assert (ends == 1).all()


def test_one_source_is_in_one_split_however_it_is_written(tmp_path):
    pairs = sentences(50)
    again = [(source.upper(), target) for source, target in pairs]
    task = translations(tmp_path, data=write_parallel(tmp_path, pairs + again))
    found = check_data(task)
    assert not found.errors and not any("leak" in line for line in found.warnings)
    assert sum(len(task.split(name)) for name in SPLITS) == 100


def test_what_is_cut_is_warned_of(tmp_path):
    task = translations(tmp_path, data=write_parallel(tmp_path, sentences(60)), target_length=3)
    assert any("training targets fill target_length (3 tokens)" in w for w in task.warnings())
    # What is cut has no end, which is nothing to be learnt there.
    targets = task.split("train").targets[:, :-1]
    assert (targets != 0).all() and not (targets == task.workload(1).n_classes - 1).any()


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    write_parallel(tmp_path, sentences(5))
    (tmp_path / "train.en").write_text("a b\n\nc\n")
    (tmp_path / "train.xx").write_text("x\ny\nz\n")
    (tmp_path / "val.en").write_text("a\n")
    (tmp_path / "val.xx").write_bytes(b"\xff\n")
    (tmp_path / "test.en").write_text("a\nb\n")
    (tmp_path / "test.xx").write_text("x\n")
    given = {
        name: {"source": f"{file}.en", "target": f"{file}.xx"}
        for name, file in (("train", "train"), ("validation", "val"), ("test", "test"))
    }
    with pytest.raises(DataError) as error:
        translations(tmp_path, **given).about()
    lines = error.value.lines
    assert any("train.en:2 must have a text" in line for line in lines)
    assert any("val.xx must be UTF-8 text, got the byte 0xff in line 1" in x for x in lines)
    assert any("test.xx must have a line for each of" in x and "1 for 2" in x for x in lines)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"en": "a", "xx": None}], "row.jsonl:1 must have a target that is a text, got nothing"),
        ([{"en": 3, "xx": "b"}], "must have a source that is a text, got 3"),
        ([{"en": " ", "xx": "b"}], "must have a source, and it is empty"),
        ([{"en": "a"}], "must have 'xx'"),
        ([{"en": "a", "xx": "\ud800"}], "half of a character"),
        ([], "must have a row of a xx and a en or more"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, rows, words):
    path = tmp_path / "row.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=words):
        translations(tmp_path, data="row.jsonl", **SIDES).about()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beam_size": 0}, "beam_size must be an integer in 1.."),
        ({"target_length": 1}, "target_length must be an integer in 2.."),
        ({"max_vocabulary": 100}, "max_vocabulary must be an integer in 258.."),
        ({"metric": "f1"}, "metric must be bleu or chrf, got 'f1'"),
        ({"lowercase": 1}, "lowercase must be true or false"),
        ({"source": "a", "target": "a"}, "must be two columns"),
        ({"source": 4}, "source must be the name of a column"),
        ({"tokens": "word"}, "unknown key 'tokens'"),
        ({"data": "pairs.txt"}, "must be a table .* or given as .source: FILE"),
        ({"data": {"en": "a.en", "de": "a.de"}}, "must be given as .source: FILE, target: FILE."),
    ],
)
def test_a_wrong_task_file_is_named(tmp_path, options, words):
    (tmp_path / "pairs.txt").write_text("a b\n")
    (tmp_path / "a.en").write_text("a\n")
    (tmp_path / "a.de").write_text("b\n")
    with pytest.raises(ValueError, match=words):
        translations(tmp_path, **{"data": "pairs.txt"} | options).about()


def noisy(pairs, seed=0):
    """Right translations of which some lost words or have wrong ones."""
    rng = np.random.default_rng(seed)
    found = []
    for _, target in pairs:
        words = [w if rng.random() < 0.8 else "oj" for w in target.split()]
        found.append(" ".join(words[: len(words) - int(rng.integers(2))]))
    return found


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_those_that_sacrebleu_gives_for_the_corpus(name):
    pairs = sentences(40)
    right, given = [target for _, target in pairs], noisy(pairs)
    score = CorpusScore(name)
    figures = score.figures(given, right)
    whole = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}[name]
    for chosen in (slice(None), slice(7), slice(3, 30)):
        expected = whole(given[chosen], [right[chosen]]).score / 100
        assert score.share(figures[chosen].sum(axis=0)) == pytest.approx(expected, abs=1e-12)
        assert 0.1 < expected < 0.95
    assert score.share(score.figures(right, right).sum(axis=0)) == pytest.approx(1)
    assert score.share(figures).shape == (40,)


@pytest.mark.parametrize("name", METRICS)
def test_a_standard_error_is_how_scores_of_such_samples_spread(name):
    n, rng = 60, np.random.default_rng(0)
    pairs = sentences(1500)
    right, given = [target for _, target in pairs], noisy(pairs)
    objective = PairObjective(right, list, end=9, score=CorpusScore(name))
    figures = CorpusScore(name).figures(given, right)
    scores, errors = [], []
    for _ in range(25):
        chosen = figures[rng.choice(1500, n, replace=False)]
        scores.append(float(objective.quality(chosen.sum(axis=0))))
        errors.append(objective.standard_error(chosen))
    assert np.std(scores, ddof=1) == pytest.approx(np.mean(errors), rel=0.4)
    perfect = CorpusScore(name).figures(right[:n], right[:n])
    assert 0 < objective.standard_error(perfect) < 0.2
    assert objective.standard_error(perfect[:1]) == math.inf


def test_padding_is_not_learnt_and_targets_are_shown_as_far_as_the_longest():
    objective = PairObjective(["a"], list, end=4, score=CorpusScore("bleu"))
    targets = torch.tensor([[2, 3, 4, 0, 0, 0], [1, 4, 0, 0, 0, 1]])
    seen = []

    def model(inputs, shown):
        seen.append(shown)
        return torch.zeros(2, shown.shape[1], 5)

    outputs = objective.forced(model, torch.zeros(2, 3), targets)
    assert seen[0].tolist() == [[2, 3, 4], [1, 4, 0]]
    assert float(objective.loss(outputs, targets, 0.0)) == pytest.approx(math.log(5))
    outputs[1, 2] = torch.tensor([9.0, 0, 0, 0, -9])
    assert float(objective.loss(outputs, targets, 0.0)) == pytest.approx(math.log(5))


def test_translations_are_learnt_and_an_artifact_translates(tmp_path):
    pairs = sentences(900)
    # The network must have learnt words and their order: no test sentence was seen.
    task = translations(tmp_path, data=write_parallel(tmp_path, pairs), beam_size=2)
    workload = task.workload(32)
    assert (workload.key, workload.unit) == ("tongue@20-20/beam2/b32", "output token")
    config = TrainingConfig(
        epochs=24, batch_size=32, learning_rate=8e-3, label_smoothing=0.05, weight_decay=0.01
    )
    fitted = fit(SMALL, Setting(task, workload, seed=0), config)
    assert fitted.validation.value > 0.6
    assert 0 < fitted.validation.standard_error < 0.1
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_json(folder / ARCHITECTURE, SMALL.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    save_weights(fitted.model, folder / WEIGHTS)
    for name, text in artifact_files_of(task).items():
        (folder / name).write_text(text, encoding="utf-8")
    artifact = load_artifact(folder)
    chosen = [pair for pair in pairs if pair[1] in texts(task, "test")][:40]
    found = artifact.translate([source for source, _ in chosen])
    bleu = sacrebleu.corpus_bleu(found, [[target for _, target in chosen]]).score
    assert bleu > 60
    assert artifact.translate(chosen[0][0]) == found[0] and artifact.translate([]) == []
    with pytest.raises(ValueError, match="generate requires a decoder's artifact"):
        artifact.generate("the dog", 2)


def test_a_tokenizer_of_ones_own_is_shifted_by_the_padding(tmp_path):
    given = write_parallel(tmp_path, sentences(60))
    first = translations(tmp_path, data=given)
    (tmp_path / "own.json").write_text(artifact_files_of(first)["tokenizer.json"])
    options = {"data": given, "tokenizer": "own.json"}
    made = task_file(
        tmp_path / "own.yaml",
        name="own",
        kind="translation",
        sequence_length=20,
        target_length=20,
        **options,
    )
    task = get_task(made)
    assert task.about()["shift"] == 1
    assert task.workload(1).vocab_size == first.workload(1).vocab_size + 1
    assert texts(task, "test") == texts(first, "test")
    with pytest.raises(ValueError, match="must have tokenizer or lowercase, got both"):
        get_task(
            task_file(tmp_path / "x.yaml", name="x", kind="translation", lowercase=True, **options)
        )
