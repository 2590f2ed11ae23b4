"""Text tasks of tables: splits by content, tokenizers, what is kept, what nas check-data says."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from run_fakes import check_schema
from text_fakes import reviews, write_table, write_task

import nas.tasks.text.classification as text_module
from nas.cli.main import main
from nas.tasks.base import SPLITS
from nas.tasks.base.cache import cache_folder
from nas.tasks.registry import get_task
from nas.tasks.text.tokenize import TextEncoder, learn_tokenizer

PAIRS = reviews(400)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rows(task, name):
    return {row.tobytes() for row in task.split(name).inputs}


@pytest.fixture
def task(tmp_path):
    write_table(tmp_path / "all.csv", PAIRS)
    return get_task(write_task(tmp_path / "t.yaml", data="all.csv", sequence_length=12))


def test_one_file_is_divided_by_its_texts(tmp_path, task):
    sizes = {name: len(task.split(name)) for name in SPLITS}
    assert sum(sizes.values()) == 400 and 230 < sizes["train"] < 320
    assert 35 < sizes["validation"] < 85 and 35 < sizes["test"] < 85
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not rows(task, one) & rows(task, other)
    # A copy that differs in case and spaces goes where the text is, and nothing else moves.
    more = [*PAIRS, *((f" {text.upper()}  ", label) for text, label in PAIRS), *reviews(9, seed=5)]
    write_table(tmp_path / "all.csv", more)
    again = get_task(str(tmp_path / "t.yaml")).about()
    assert not any(again["repeats"]["also_in_train"].values())
    assert all(again["samples"][name] >= 2 * sizes[name] for name in SPLITS)
    assert all(again["repeats"]["twice"][name] >= sizes[name] for name in SPLITS)


def test_shares_are_those_asked_for(tmp_path):
    write_table(tmp_path / "all.jsonl", reviews(1500))
    options = {"data": "all.jsonl", "validation_share": 0.3, "test_share": 0.05}
    about = get_task(write_task(tmp_path / "t.yaml", **options)).about()
    assert 360 < about["samples"]["validation"] < 540 and 40 < about["samples"]["test"] < 115


@pytest.mark.parametrize("tokens", ["word", "byte", "bpe"])
def test_tokens_are_the_same_in_another_process_and_from_the_file(tmp_path, tokens):
    write_table(tmp_path / "all.csv", PAIRS)
    options = {"sequence_length": 12, "tokens": tokens, "max_vocabulary": 300}
    task = get_task(write_task(tmp_path / "t.yaml", data="all.csv", **options))
    carried = task.artifact_files()
    code = "import sys; from nas.tasks.registry import get_task as g; "
    code += "print(g(sys.argv[1]).artifact_files())"
    other = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "other")}
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "t.yaml")],
        env=other, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == str(carried)
    encoder = TextEncoder.from_json(carried["tokenizer.json"], 12, shift=0, where="it")
    train = task.split("train")
    assert train.inputs.max() < task.workload(1).vocab_size
    texts = [text for text, _ in PAIRS]
    known = {row.tobytes() for row in encoder.encode(texts)}
    assert rows(task, "train") < known and rows(task, "test") < known


def test_pairs_shorten_texts_and_leave_no_byte_unknown():
    texts = [text for text, _ in PAIRS]
    least, more = (
        learn_tokenizer("bpe", texts, 64, max_vocabulary=n, lowercase=False) for n in (258, 330)
    )
    assert least.vocab_size == 258 and 258 < more.vocab_size <= 330
    used = [(encoder.encode(texts) != 0).sum() for encoder in (least, more)]
    assert used[1] < used[0] / 2
    strange = more.encode(["日本 ü \x00 < padding > [UNK]"])[0]
    assert 1 not in strange and (strange[strange != 0] >= 2).all()


def test_a_tokenizer_of_ones_own_never_gives_the_padding_token(tmp_path):
    write_table(tmp_path / "all.csv", PAIRS)
    words = {word: i for i, word in enumerate(["film", "good", "bad", "?"])}
    tokenizer = {
        "version": "1.0",
        **dict.fromkeys(
            ("truncation", "padding", "normalizer", "post_processor", "decoder"), None
        ),
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "?"},
    }
    (tmp_path / "own.json").write_text(json.dumps(tokenizer))
    options = {"data": "all.csv", "tokenizer": "own.json", "sequence_length": 4}
    task = get_task(write_task(tmp_path / "t.yaml", **options))
    assert task.workload(1).vocab_size == 5
    assert task.about()["shift"] == 1
    inputs = np.concatenate([task.split(name).inputs for name in SPLITS])
    assert set(np.unique(inputs)) == {0, 1, 2, 3, 4}
    assert (inputs[:, 0] != 0).all()
    for content in ("{}", "[" * 5000, json.dumps(tokenizer | {"model": {"type": "None"}})):
        (tmp_path / "own.json").write_text(content)
        with pytest.raises(ValueError, match=r"own.json must be a tokenizer.json: .+"):
            get_task(str(tmp_path / "t.yaml")).split("train")


READ = """
import sys, nas.tasks.text.classification as text
from nas.tasks.registry import get_task
if sys.argv[2] == "map":
    def never(*a, **k): raise AssertionError("read again")
    text.read_rows = text.learn_tokenizer = never
split = get_task(sys.argv[1]).split("train")
print(type(split.inputs.base).__name__, split.inputs.sum(), split.targets.sum())
"""


def read(path, how, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-c", READ, str(path), how], stdout=subprocess.PIPE, text=True, **kwargs
    )


def test_what_one_process_has_read_the_next_one_maps(tmp_path, task):
    before = task.split("train")
    process = read(tmp_path / "t.yaml", "map")
    kind, *sums = process.communicate(timeout=60)[0].split()
    assert process.returncode == 0 and kind == "mmap"
    assert sums == [str(before.inputs.sum()), str(before.targets.sum())]
    # The same bytes under another time are the same data; other bytes are not.
    os.utime(tmp_path / "all.csv", (1, 1))
    process = read(tmp_path / "t.yaml", "map")
    process.communicate(timeout=60)
    assert process.returncode == 0
    with (tmp_path / "all.csv").open("a") as handle:
        handle.write("401,one more film,pos\n")
    process = read(tmp_path / "t.yaml", "map", stderr=subprocess.DEVNULL)
    process.communicate(timeout=60)
    assert process.returncode != 0


def test_processes_that_begin_together_agree_and_a_killed_one_leaves_nothing(tmp_path, task):
    killed = read(tmp_path / "t.yaml", "read")
    deadline = time.monotonic() + 30
    folder = cache_folder()
    while not (folder.is_dir() and list(folder.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.001)
    killed.kill()
    killed.communicate()
    processes = [read(tmp_path / "t.yaml", "read") for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert len(set(outputs)) == 1 and outputs[0]
    whole = [path for path in folder.iterdir() if not path.name.startswith(".")]
    assert len(whole) == 1
    # What the killed one had begun is swept by whoever makes something a day later.
    for path in folder.glob(".*"):
        os.utime(path, (1, 1))
    (folder / ".old-making-x").mkdir()
    os.utime(folder / ".old-making-x", (1, 1))
    get_task(write_task(tmp_path / "u.yaml", data="all.csv", tokens="byte")).split("train")
    assert not list(folder.glob(".*"))


def check(capsys, path, code):
    assert main(["check-data", str(path), "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    check_schema(found, "check_data")
    return found


def test_all_problems_are_said_at_once(tmp_path, capsys):
    (tmp_path / "train.csv").write_text("text,label\nfine film,pos\nbad,neg\nshort\n,pos\n")
    (tmp_path / "dev.jsonl").write_text('{"text": "a", "label": "odd"}\n{"text": 3}\nno\n')
    (tmp_path / "test.txt").write_bytes(b"pos fine\nneg \xff\n")
    options = {"train": "train.csv", "validation": "dev.jsonl", "test": "test.txt"}
    found = check(capsys, write_task(tmp_path / "t.yaml", **options), 2)
    ends = [line.rpartition("/")[2] for line in found["errors"]]
    assert ends == [
        "train.csv:4 must have 2 columns, got 1",
        "train.csv:5 must have a text, and it is empty",
        "dev.jsonl:2 must have 'label', got text",
        "dev.jsonl:3 must be a JSON object: Expecting value: line 1 column 1 (char 0)",
        "test.txt must be UTF-8 text, got the byte 0xff in line 2",
        "dev.jsonl:1 must have a label of the training split (neg, pos), got 'odd'",
    ]
    assert found["n_errors"] == 6 and found["splits"] == {}
    assert main(["check-data", str(tmp_path / "t.yaml")]) == 2
    assert capsys.readouterr().out.endswith("reviews: 6 errors, 0 warnings\n")
    # Any other command says the first of them in one line.
    with pytest.raises(ValueError, match=r"train.csv:4 must .* \(and 5 more\)"):
        get_task(str(tmp_path / "t.yaml")).workload(1)


def test_every_missing_file_is_said(tmp_path, capsys):
    options = {"train": "a.csv", "validation": "b.csv", "test": "c.csv"}
    found = check(capsys, write_task(tmp_path / "t.yaml", **options), 2)
    assert [line.partition(" must")[0][-5:] for line in found["errors"]] == [
        "a.csv",
        "b.csv",
        "c.csv",
    ]


def test_a_task_file_that_is_none_and_one_class_are_errors(tmp_path, capsys):
    found = check(capsys, write_task(tmp_path / "t.yaml", colour=3), 2)
    assert "unknown key 'colour'" in found["errors"][0]
    write_table(tmp_path / "one.csv", [(text, "pos") for text, _ in PAIRS])
    found = check(capsys, write_task(tmp_path / "t.yaml", data="one.csv"), 2)
    (error,) = found["errors"]
    assert error.startswith("the training split (") and "one.csv" in error
    assert error.endswith(") must have two classes or more, got pos")


def test_what_is_unusual_is_a_warning(tmp_path, capsys):
    train = [*PAIRS[:300], PAIRS[0], (PAIRS[1][0], "odd")]
    write_table(tmp_path / "train.csv", train)
    write_table(tmp_path / "dev.csv", [*PAIRS[300:340], *PAIRS[2:5]])
    write_table(tmp_path / "test.csv", [*(p for p in PAIRS[340:] if p[1] == "pos"), PAIRS[300]])
    options = {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}
    found = check(capsys, write_task(tmp_path / "t.yaml", **options, sequence_length=4), 0)
    said = "\n".join(found["warnings"])
    for line in (
        "leak: 3 of 43 validation samples are in train as well",
        "dev.csv:42 is ",
        "samples are in validation as well",
        "repeat: 2 of 302 train samples repeat another",
        "contradictory: 1 samples have two labels",
        "rare: too few train samples of 'odd' (1)",
        "rare: too few validation samples of 'odd' (0)",
        "few: with 43 validation samples a quality of 90% has a standard error of 4.6%",
        "cut: ",
    ):
        assert line in said, said
    split = found["splits"]["validation"]
    assert split["also_in_train"] == 3 and split["samples"] == 43
    assert sum(split["classes"].values()) == 43
    share = max(split["classes"].values()) / 43
    assert split["majority_share"] == share and 0.05 < split["majority_share_se"] < 0.09


def test_any_task_can_be_checked(capsys):
    found = check(capsys, "digits", 0)
    assert found["splits"]["train"]["samples"] == 1077
    assert found["splits"]["train"]["classes"]["0"] == 107
    assert found["splits"]["test"]["also_in_train"] == 0


def test_reading_goes_through_the_doors_that_the_mapping_test_closes(tmp_path, task, monkeypatch):
    # If they were not called here, closing them there would show nothing.
    called = []
    for name in ("read_rows", "learn_tokenizer"):
        real = getattr(text_module, name)
        monkeypatch.setattr(
            text_module, name, lambda *a, _n=name, _r=real, **k: called.append(_n) or _r(*a, **k)
        )
    task.split("train")
    assert called == ["read_rows", "learn_tokenizer"]
