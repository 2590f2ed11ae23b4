import numpy as np
import pytest
import torch

from nas.tasks.base import Split
from nas.tasks.registry import get_task
from nas.tasks.text.phrases import FOLDS, make_phrases
from nas.training.config import TrainingConfig
from nas.training.loop import train
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build
from search_spaces.workload import Workload

ARCHITECTURE = Architecture(8, (LayerSpec(AttentionSpec(1, 1, 8), FfnSpec(8)),))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def reviews(n=80, seed=0):
    """Texts of six words that say nothing and one that says the class."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 2
    things = ["plot", "cast", "film", "end", "score", "Light"]
    texts = []
    for one in classes:
        words = [*rng.choice(things, 6), ["dull", "warm"][one]]
        texts.append(" ".join(rng.permutation(words)))
    return texts, classes


def test_whole_texts_come_first_and_phrases_are_stretches_of_them():
    texts, classes = reviews()
    made = make_phrases(texts, classes, 7, lowercase=True)
    n = len(texts)
    lower = [text.lower() for text in texts]
    # Three of ten rows are whole texts.
    assert len(made.texts) == len(made.shares) == 10 * n
    assert made.texts[:n] == made.texts[8 * n : 9 * n] == made.texts[9 * n :] == lower
    assert np.array_equal(made.shares[:n], made.shares[9 * n :])
    for row, phrase in enumerate(made.texts[n : 8 * n]):
        own = lower[row // 7]
        if row % 7 >= 2:
            assert f" {phrase} " in f" {own} "
        else:
            words = phrase.split()
            first = max(k for k in range(8) if f" {' '.join(words[:k])} " in f" {own} " or k == 0)
            rest = " ".join(words[first:])
            assert not rest or any(f" {rest} " in f" {text} " for text in lower)
    assert made.shares.dtype == np.float32
    np.testing.assert_allclose(made.shares.sum(axis=1), 1, rtol=1e-5)
    assert make_phrases(texts, classes, 7, lowercase=True).texts == made.texts
    assert "Light" in " ".join(make_phrases(texts, classes, 1, lowercase=False).texts)


def test_a_phrase_has_the_share_of_what_its_words_say():
    texts, classes = reviews()
    made = make_phrases(texts, classes, 7, lowercase=True)
    warm = np.array(["warm" in text and "dull" not in text for text in made.texts])
    dull = np.array(["dull" in text and "warm" not in text for text in made.texts])
    neither = np.array(["dull" not in text and "warm" not in text for text in made.texts])
    assert made.shares[warm, 1].min() > 0.6 and made.shares[dull, 1].max() < 0.4
    assert abs(made.shares[neither, 1].mean() - 0.5) < 0.2


def test_models_that_saw_a_text_are_not_believed_where_there_is_nothing_to_learn():
    rng = np.random.default_rng(1)
    texts = [f"only{i} word{i}" for i in range(100)]
    classes = rng.permutation(np.arange(100) % 2)
    made = make_phrases(texts, classes, 3, lowercase=True)
    phrases = made.shares[100:400, 1]
    # Those that saw the texts know every label by heart; weighed by the others it is worth little.
    assert np.abs(phrases - 0.5).mean() < 0.2


def test_classes_may_be_three():
    texts, classes = reviews(90)
    classes = np.arange(90) % 3
    texts = [
        f"{text} {('one', 'two', 'three')[c]}" for text, c in zip(texts, classes, strict=True)
    ]
    made = make_phrases(texts, classes, 2, lowercase=True)
    assert made.shares.shape[1] == 3
    assert (made.shares[:90].argmax(axis=1) == classes).mean() > 0.9


def test_too_few_texts_of_a_class_are_refused():
    texts, classes = reviews(2 * FOLDS)
    make_phrases(texts, classes, 1, lowercase=True)
    with pytest.raises(ValueError, match=f"{FOLDS} training texts of each .* got {FOLDS - 1}"):
        make_phrases(texts[:-1], classes[:-1], 1, lowercase=True)


def write_task(folder, more=""):
    for name, n, seed in (("train", 80, 0), ("dev", 20, 1), ("test", 20, 2)):
        texts, classes = reviews(n, seed)
        rows = [f"{('neg', 'pos')[c]} {text}\n" for c, text in zip(classes, texts, strict=True)]
        (folder / f"{name}.txt").write_text("".join(rows))
    (folder / "task.yaml").write_text(
        "name: tiny\ntrain: train.txt\nvalidation: dev.txt\ntest: test.txt\nsequence_length: 8\n"
        + more
    )
    return get_task(str(folder / "task.yaml"))


def test_a_task_trains_on_phrases_and_is_judged_by_whole_texts(tmp_path):
    plain = write_task(tmp_path)
    plain_train = plain.split("train")
    task = write_task(tmp_path, "phrases: 7\n")
    found = task.split("train")
    assert plain_train.shares is None and len(found) == 10 * len(plain_train)
    assert np.array_equal(found.inputs[:80], plain_train.inputs)
    assert np.array_equal(found.targets, found.shares.argmax(axis=1))
    for name in ("validation", "test"):
        assert task.split(name).shares is None
        assert np.array_equal(task.split(name).inputs, plain.split(name).inputs)
    # The vocabulary is that of the texts as they are: a word seen once there stays unknown.
    assert task.workload(8) == plain.workload(8)
    assert task.about()["samples"]["train"] == 80


def test_networks_train_towards_shares_and_not_towards_the_likeliest_class():
    inputs = np.full((256, 4), 5)
    inputs[:128] = 6
    shares = np.tile(np.float32([0.3, 0.7]), (256, 1))
    shares[:128] = [0.8, 0.2]
    split = Split(inputs, shares.argmax(axis=1), shares=shares)
    workload = Workload("tiny", "text_classification", (4,), 2, 8, vocab_size=8)
    model = train(
        build(ARCHITECTURE, workload, generator_seed=0),
        split,
        TrainingConfig(epochs=30, learning_rate=1e-2, label_smoothing=0.0),
        seed=0,
    )
    with torch.no_grad():
        found = model(torch.tensor([[6] * 4, [5] * 4])).softmax(dim=-1)[:, 1]
    assert found.tolist() == pytest.approx([0.2, 0.7], abs=0.03)


def test_shares_line_up_with_targets():
    with pytest.raises(ValueError, match="shares must be of shape"):
        Split(
            np.zeros((3, 2), np.int64), np.zeros(3, np.int64), shares=np.ones((2, 2), np.float32)
        )


def test_words_may_be_told_apart_by_their_first_letters(tmp_path):
    (tmp_path / "train.txt").write_text("pos wonderful film\nneg awful wonder films\n" * 2)
    for name in ("dev", "test"):
        (tmp_path / f"{name}.txt").write_text("pos WONDERLAND film.\nneg aw wond\n")
    (tmp_path / "task.yaml").write_text(
        "name: t\ntrain: train.txt\nvalidation: dev.txt\ntest: test.txt\nsequence_length: 3\n"
        "word_letters: 4\n"
    )
    task = get_task(str(tmp_path / "task.yaml"))
    # By count, then by the alphabet: film, wond, awfu.
    assert task.workload(1).vocab_size == 5
    assert task.split("train").inputs[:2].tolist() == [[3, 2, 0], [4, 3, 2]]
    # "film." begins like "film"; "aw" is another word than "awfu".
    assert task.split("validation").inputs.tolist() == [[3, 2, 0], [1, 3, 0]]


WRONG = [
    ("phrases: -1\n", ["phrases", "in 0..", "-1"]),
    ("phrases: yes\n", ["phrases", "True"]),
    ("word_letters: 0\n", ["word_letters", "in 1..", "0"]),
    ("word_letters: 4\ntokens: bpe\n", ["word_letters", "tokens: word", "bpe"]),
    ("word_letters: 4\ntokenizer: t.json\n", ["word_letters", "both"]),
]


@pytest.mark.parametrize(("more", "words"), WRONG)
def test_a_wrong_option_is_one_clear_line(tmp_path, more, words):
    with pytest.raises(ValueError) as caught:
        write_task(tmp_path, more).split("train")
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_too_few_texts_are_named_by_their_file(tmp_path):
    task = write_task(tmp_path, "phrases: 3\n")
    (tmp_path / "train.txt").write_text("pos a b\nneg c d\n")
    with pytest.raises(ValueError, match="train.txt.*phrases must have 10") as caught:
        task.split("train")
    assert "\n" not in str(caught.value)
