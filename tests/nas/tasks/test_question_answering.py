"""Questions in SQuAD's format: read, learnt and judged as SQuAD does."""

import json
from operator import attrgetter

import numpy as np
import pytest
import torch
from media_fakes import task_file
from text_fakes import write_squad

from nas.tasks.base import SPLITS
from nas.tasks.base.cache import CachedTexts
from nas.tasks.base.checks import check_data
from nas.tasks.base.problems import DataError, Problems
from nas.tasks.registry import get_task
from nas.tasks.sequences.spans import SpanExtraction, answer_span, normalised, overlap, words_of
from nas.tasks.sequences.squad import Question, question_of, read_squad
from nas.training.config import TrainingConfig
from nas.training.fit import Setting, fit
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec

READ = "nas.tasks.sequences.question_answering.read_squad"
LAYER = LayerSpec(AttentionSpec(2, 2, 16), FfnSpec(64))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def questions(folder, **options):
    options = {
        "name": "notes",
        "kind": "question_answering",
        "data": "notes.json",
        "sequence_length": 24,
        **options,
    }
    options = {key: value for key, value in options.items() if value is not None}
    return get_task(task_file(folder / "task.yaml", **options))


@pytest.mark.parametrize("metric", ["f1", "exact_match"])
def test_answers_are_learnt(tmp_path, metric):
    write_squad(tmp_path / "notes.json", 200)
    task = questions(tmp_path, metric=metric)
    workload = task.workload(32)
    assert workload.kind == "question_answering" and workload.input_shape == (24,)
    assert task.metric.key == metric and task.about()["beyond_reach"] == dict.fromkeys(SPLITS, 0)
    config = TrainingConfig(epochs=8, batch_size=32, learning_rate=5e-3)
    fitted = fit(Architecture(32, (LAYER,)), Setting(task, workload, seed=0), config)
    # The best of the three answers for every question would be right for a third.
    assert fitted.validation.value > 0.8
    assert 0 < fitted.validation.standard_error < 0.1


def test_questions_on_one_paragraph_stay_together(tmp_path):
    write_squad(tmp_path / "notes.json", 60)
    task = questions(tmp_path)
    sizes = {name: len(task.split(name)) for name in SPLITS}
    assert sum(sizes.values()) == 180 and all(n % 3 == 0 and n > 0 for n in sizes.values())
    numbers = np.concatenate([task.split(name).targets[:, 4] for name in SPLITS])
    assert sorted(numbers) == list(range(180))


def test_what_repeats_is_told_by_whole_paragraphs(tmp_path):
    write_squad(tmp_path / "notes.json", 200)
    # Of the same words but for a number, which no vocabulary holds: no leak.
    assert not any("leak" in line for line in check_data(questions(tmp_path)).warnings)
    write_squad(tmp_path / "later.json", 30, seed=1)
    data = json.loads((tmp_path / "later.json").read_text())
    old = json.loads((tmp_path / "notes.json").read_text())
    data["data"][0]["paragraphs"].append(old["data"][0]["paragraphs"][5])
    (tmp_path / "later.json").write_text(json.dumps(data))
    named = {"data": None, "train": "notes.json", "test": "later.json"}
    found = check_data(questions(tmp_path, **named))
    held_out = found.splits["validation"].get("also_in_train")
    assert held_out == 0 and found.splits["test"]["also_in_train"] in (0, 3)
    assert found.splits["test"]["also_in_train"] + found.splits["test"]["also_in_validation"] == 3
    leaks = [line for line in found.warnings if line.startswith("leak: ")]
    assert "later.json: data[0].paragraphs[30].qas[0] is" in leaks[1]
    assert "notes.json: data[0].paragraphs[5].qas[0]" in leaks[1]


def test_answers_beyond_reach_are_warned_of(tmp_path):
    write_squad(tmp_path / "notes.json", 60)
    found = check_data(questions(tmp_path, sequence_length=12))
    assert any(line.startswith("cut: ") and "12 words" in line for line in found.warnings)


def test_targets_are_words_of_the_paragraph(tmp_path):
    write_squad(tmp_path / "notes.json", 60)
    split = questions(tmp_path).split("train")
    objective = questions(tmp_path).objective
    for row in split.targets:
        start, end, first, stop, number = row
        question = objective._question(number)
        spans = words_of(question.context)
        a, b = spans[start - first][0], spans[end - first][1]
        assert first <= start <= end < stop and question.context[a:b] == question.answers[0]
        # Scores that are right give the answer, whatever other words are said to be.
        scores = np.full((2, 24), 5.0)
        scores[0, start], scores[1, end] = 9, 9
        assert objective.answer(scores, first, stop, question) == question.answers[0]


def test_what_one_process_has_read_the_next_one_maps(tmp_path, monkeypatch):
    path = write_squad(tmp_path / "notes.json", 60)
    first = questions(tmp_path)
    splits = {name: first.split(name) for name in SPLITS}
    asked = read_squad(path, Problems())
    with monkeypatch.context() as patch:
        patch.setattr(READ, lambda *_: pytest.fail("read again"))
        again = questions(tmp_path, metric="exact_match", max_answer_words=3)
        for name, split in splits.items():
            assert np.array_equal(again.split(name).inputs, split.inputs)
            assert np.array_equal(again.split(name).targets, split.targets)
            assert isinstance(again.split(name).inputs, np.memmap)
        assert again.about() == first.about()
        found = CachedTexts(again.cache, "questions")
        key = attrgetter("place")
        assert sorted(map(question_of, found), key=key) == sorted(asked, key=key)
        assert list(found[2:5]) == [found[2], found[3], found[4]] and found[-1] == found[179]
        with pytest.raises(IndexError):
            found[180]
    # A file that has changed is read again, and so is one that is to be read otherwise.
    assert questions(tmp_path, sequence_length=20).split("train").inputs.shape[1] == 20
    write_squad(path, 50)
    assert sum(questions(tmp_path).about()["samples"].values()) == 150


def test_answers_beyond_reach_are_not_learnt_and_count_as_wrong(tmp_path):
    write_squad(tmp_path / "notes.json", 80)
    task = questions(tmp_path, sequence_length=12)
    split = task.split("train")
    beyond = split.targets[:, 0] < 0
    assert 0 < beyond.sum() < len(split) and task.about()["beyond_reach"]["train"] == beyond.sum()
    outputs = torch.zeros(len(split), 2, 12, requires_grad=True)
    loss = task.objective.loss(outputs, torch.from_numpy(split.targets), 0.1)
    loss.backward()
    assert torch.isfinite(loss) and float(outputs.grad[beyond].abs().sum()) == 0
    figures = task.objective.figures(outputs.detach(), split.targets, None)
    assert figures[beyond, 1].sum() == 0
    nothing = task.objective.loss(outputs[beyond], torch.from_numpy(split.targets[beyond]), 0.0)
    assert float(nothing) == 0


def test_squad_measures():
    assert normalised("The  Old, (Rome)!") == "old rome"
    assert overlap("in old Rome", "the old Rome") == pytest.approx(2 * 2 / 5)
    assert overlap("", "the") == 1.0 and overlap("x", "the") == 0.0
    question = Question("", "?", "It was in old Rome.", ("old Rome", "Rome"), (10, 18))
    objective = SpanExtraction([question].__getitem__, max_words=2, metric="f1")
    outputs = torch.zeros(1, 2, 9)
    # The best span by its scores is too long, the next is `old Rome`.
    outputs[0, 0, 3], outputs[0, 1, 7] = 9, 5
    outputs[0, 0, 6] = 8
    figures = objective.figures(outputs, np.array([[6, 7, 3, 9, 0]]), None)
    assert figures.tolist() == [[1.0, 1.0, 1.0]]
    assert answer_span(words_of(question.context), 10, 18) == (3, 4)
    assert answer_span(words_of(question.context)[:4], 10, 18) is None


def broken(change):
    """A file of one good question and one that ``change`` breaks."""

    def write(folder):
        write_squad(folder / "notes.json", 2)
        data = json.loads((folder / "notes.json").read_text())
        change(data["data"][0]["paragraphs"][1])
        (folder / "notes.json").write_text(json.dumps(data))

    return write


def text(content):
    return lambda folder: (folder / "notes.json").write_bytes(content)


PLACE = r"notes.json: data\[0\].paragraphs\[1\]"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda _: None, "notes.json must be readable"),
        (text(b""), "notes.json must have 1 to"),
        (text(b"{"), "notes.json must be JSON"),
        (text(b"\xff"), "notes.json must be UTF-8 text, got the byte 0xff in line 1"),
        (text(b"[]"), "notes.json must be an object with a list `data`"),
        (text(b'{"data": []}'), "notes.json must hold questions"),
        (text(b'{"data": [3]}'), r"data\[0\] must have a list `paragraphs`"),
        (broken(lambda p: p.pop("context")), PLACE + " must have a text `context`"),
        (broken(lambda p: p["qas"][1].pop("question")), PLACE + r".qas\[1\] must have a text"),
        (broken(lambda p: p["qas"][1].update(answers=[])), r"qas\[1\] must have a list `answers`"),
        (broken(lambda p: p["qas"][1].update(is_impossible=True)), r"SQuAD 2.0"),
        (
            broken(lambda p: p["qas"][1]["answers"][0].update(answer_start=1)),
            r"qas\[1\] must have the answer '.*' at character 1 of its context",
        ),
        (
            broken(lambda p: p["qas"][1]["answers"][0].update(answer_start="x")),
            r"must have answers with a `text` and a number",
        ),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, write, message):
    write(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        questions(tmp_path).workload(1)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    def several(paragraph):
        paragraph["qas"][0].pop("question")
        paragraph["qas"][2].pop("answers")

    broken(several)(tmp_path)
    with pytest.raises(DataError) as caught:
        questions(tmp_path).workload(1)
    assert len(caught.value.lines) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_length": 3}, "sequence_length must be an integer in 4..16777216"),
        ({"metric": "bleu"}, "metric must be f1 or exact_match"),
        ({"max_answer_words": 0}, "max_answer_words must be an integer in 1..16777216"),
        ({"stride": 3}, "unknown key 'stride'"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        questions(tmp_path, **options)
