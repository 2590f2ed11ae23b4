import numpy as np
import pytest

from nas.tasks.registry import get_task

TRAIN = "pos good good film\nneg bad bad film .\n\npos a good a\nneg\ta bad once\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "train.txt").write_text(TRAIN)
    (tmp_path / "dev.txt").write_text("neg Bad thing\npos\tgood good good good good\n")
    (tmp_path / "test.txt").write_text("pos unseen words only\n")
    (tmp_path / "task.yaml").write_text(
        "name: tiny\ntrain: train.txt\nvalidation: dev.txt\ntest: test.txt\nsequence_length: 4\n"
    )
    return tmp_path


def test_tokens_and_labels_come_from_the_training_split(files):
    task = get_task(str(files / "task.yaml"))
    # Seen twice or more: good 3, a 3, bad 3, film 2; ties go by the alphabet.
    vocabulary = {"a": 2, "bad": 3, "good": 4, "film": 5}
    workload = task.workload(8)
    assert (workload.name, workload.kind) == ("tiny", "text_classification")
    assert workload.input_shape == (4,) and workload.n_classes == 2
    assert workload.vocab_size == 2 + len(vocabulary)
    train = task.split("train")
    assert train.targets.tolist() == [1, 0, 1, 0]
    assert train.inputs.dtype == np.int64
    # 0 pads, 1 is a word seen once at most.
    assert train.inputs.tolist() == [[4, 4, 5, 0], [3, 3, 5, 1], [2, 4, 2, 0], [2, 3, 1, 0]]
    validation = task.split("validation")
    assert validation.inputs.tolist() == [[3, 1, 0, 0], [4, 4, 4, 4]]
    assert task.split("test").inputs.tolist() == [[1, 1, 1, 0]]


def test_what_validation_and_test_hold_changes_no_token(files):
    before = get_task(str(files / "task.yaml")).split("train").inputs
    (files / "dev.txt").write_text("pos unseen unseen unseen\n" * 9)
    (files / "test.txt").write_text("pos other other other\n" * 9)
    other = files / "again.yaml"
    other.write_text((files / "task.yaml").read_text().replace("tiny", "again"))
    again = get_task(str(other))
    assert np.array_equal(again.split("train").inputs, before)
    assert again.workload(1).vocab_size == 6


def test_bytes_need_no_vocabulary(files):
    text = (files / "task.yaml").read_text().replace("sequence_length: 4", "sequence_length: 6")
    (files / "bytes.yaml").write_text(text + "tokens: byte\n")
    task = get_task(str(files / "bytes.yaml"))
    assert task.workload(1).vocab_size == 258
    assert task.split("validation").inputs[0].tolist() == [b + 2 for b in b"Bad th"]


def test_the_vocabulary_is_capped_at_the_most_frequent(files):
    text = (files / "task.yaml").read_text() + "max_vocabulary: 4\n"
    (files / "small.yaml").write_text(text)
    task = get_task(str(files / "small.yaml"))
    assert task.workload(1).vocab_size == 4
    assert task.split("train").inputs[0].tolist() == [1, 1, 1, 0]


WRONG = [
    ("task.yaml", "name: [", ["YAML"]),
    ("task.yaml", "just text", ["mapping"]),
    ("task.yaml", "name: x\nkind: text_clasification\n", ["kind", "did you mean 'text_class"]),
    ("task.yaml", "name: x\nkind: [3]\n", ["kind", "[3]"]),
    ("task.yaml", "name: x\ntrain: a\nvalidation: b\ntest: c\nwidth: 3\n", ["width", "allowed"]),
    ("task.yaml", "name: x\nvalidation: b\ntest: c\n", ["data", "train"]),
    ("task.yaml", "name: x\ndata: a\ntest: c\n", ["data", "test"]),
    ("task.yaml", "name: x\ndata: {a: b}\n", ["data", "path"]),
    ("task.yaml", "name: x\ndata: a\ntext: label\n", ["two columns", "label"]),
    ("task.yaml", "name: x\ndata: a\nlabel: 3\n", ["label", "column", "3"]),
    ("task.yaml", "name: x\ndata: a\ntokens: bpe\nmax_vocabulary: 99\n", ["in 258..", "99"]),
    ("task.yaml", "name: x\ndata: a\nlowercase: often\n", ["lowercase", "often"]),
    ("task.yaml", "name: x\ndata: a\ntokens: bpe\ntokenizer: t.json\n", ["tokens", "both"]),
    ("task.yaml", "name: x\ntrain: a\nvalidation: b\ntest: 3\n", ["test", "path", "3"]),
    ("task.yaml", "name: x\ntrain: a\nvalidation: b\ntest: c\ntokens: letter\n", ["letter"]),
    ("task.yaml", "name: x\ntrain: a\nvalidation: b\ntest: c\nsequence_length: 0\n", ["in 1.."]),
    ("train.txt", "pos\n", ["train.txt:1", "label and a text"]),
    ("train.txt", "pos one class\n", ["two classes"]),
    ("dev.txt", "pos fine\nodd label here\n", ["dev.txt:2", "odd", "neg, pos"]),
    ("test.txt", "\n\n", ["test.txt", "has none"]),
]


@pytest.mark.parametrize(("name", "text", "words"), WRONG, ids=lambda v: str(v)[:30])
def test_a_wrong_file_is_one_clear_line(files, name, text, words):
    (files / name).write_text(text)
    with pytest.raises(ValueError) as caught:
        get_task(str(files / "task.yaml")).split("train")
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_missing_and_binary_files_are_named(files):
    with pytest.raises(ValueError, match="nowhere.yaml: must be readable"):
        get_task(str(files / "nowhere.yaml"))
    (files / "train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="train.txt must be UTF-8"):
        get_task(str(files / "task.yaml")).split("train")
    (files / "train.txt").unlink()
    with pytest.raises(ValueError, match="train.txt must be readable"):
        get_task(str(files / "task.yaml")).split("test")


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


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("word_letters: 0\n", ["word_letters", "in 1..", "0"]),
        ("word_letters: 4\ntokens: bpe\n", ["word_letters", "tokens: word", "bpe"]),
        ("word_letters: 4\ntokenizer: t.json\n", ["word_letters", "both"]),
        ("phrases: 7\n", ["phrases", "word_letters"]),
    ],
)
def test_a_wrong_option_is_one_clear_line(tmp_path, option, words):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.txt").write_text("pos a b\nneg c d\n")
    (tmp_path / "task.yaml").write_text(
        "name: t\ntrain: train.txt\nvalidation: dev.txt\ntest: test.txt\n" + option
    )
    with pytest.raises(ValueError) as caught:
        get_task(str(tmp_path / "task.yaml")).split("train")
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
