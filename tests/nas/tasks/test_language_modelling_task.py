"""Texts of a user's as a language modelling task: samples, splits, leaks, what is refused."""

import math

import numpy as np
import pytest
import torch
from media_fakes import task_file
from text_fakes import tale
from tokenizers import Tokenizer, models, pre_tokenizers

from nas.core.files import write_json
from nas.exporting.artifact import load_artifact
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.base.checks import check_data
from nas.tasks.base.problems import DataError
from nas.tasks.registry import get_task
from nas.tasks.sequences.overlap import RUN, Pieces, covered
from nas.training.evaluate import evaluate
from nas.training.objective import objective_of
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build

ARCHITECTURE_16 = Architecture(16, (LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(32)),))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(folder, text=None, **options):
    if text is not None:
        (folder / "tale.txt").write_text(text)
        options = {"data": "tale.txt"} | options
    options = {"context_length": 16, "block_length": 256} | options
    return task_file(folder / "task.yaml", name="tale", kind="language_modelling", **options)


def carried_artifact(task, folder):
    """An untrained artifact of ``task`` in ``folder``."""
    workload = task.workload(2)
    folder.mkdir()
    write_json(folder / ARCHITECTURE, ARCHITECTURE_16.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    save_weights(build(ARCHITECTURE_16, workload, generator_seed=0), folder / WEIGHTS)
    for name, text in artifact_files_of(task).items():
        (folder / name).write_text(text, encoding="utf-8")
    return load_artifact(folder)


@pytest.mark.parametrize("options", [{}, {"tokens": "bpe", "max_vocabulary": 300}])
def test_targets_are_the_next_tokens_and_count_their_bytes(tmp_path, options):
    text = tale(700).replace("ant", "ämt").replace("bee", "蜂")
    task = get_task(make(tmp_path, text, **options))
    encoder = carried_artifact(task, tmp_path / "artifact").encoder
    n_bytes = 0
    for name in SPLITS:
        split = task.split(name)
        assert split.inputs.shape == split.targets.shape == (len(split), 16)
        assert np.array_equal(split.inputs[:, 1:], split.targets[:, :-1])
        joined = encoder.decode(split.targets.flatten().tolist())
        if name == "train":
            assert "蜂 bbeats" in joined
        n_bytes += int(split.sizes.sum())
        # Characters that a window cuts through are counted whole, on one side of the cut.
        n_guessed = sum(
            len(encoder.decode(row.tolist()).replace("\ufffd", "").encode())
            for row in split.targets
        )
        assert abs(int(split.sizes.sum()) - n_guessed) <= 4 * len(split)
    assert 0.8 * len(text.encode()) < n_bytes < len(text.encode())


def test_a_guess_at_random_takes_the_bits_of_the_vocabulary(tmp_path):
    task = get_task(make(tmp_path, tale(400)))
    workload, split = task.workload(4), task.split("validation")
    assert workload.vocab_size == workload.n_classes == 258
    found = evaluate(
        lambda batch: torch.zeros(*batch.shape, 258),
        split,
        batch_size=4,
        objective=objective_of(task, workload),
    )
    assert task.metric.score(found.value) == pytest.approx(math.log2(258), abs=1e-5)


def test_both_phases_are_two_workloads_over_the_same_arrays(tmp_path):
    tasks = [get_task(make(tmp_path, tale(400), phase=p)) for p in ("prefill", "generate")]
    keys = [task.workload(8).key for task in tasks]
    assert keys == ["tale@16/prefill/b8", "tale@16/generate/b8"]
    assert [task.workload(8).unit for task in tasks] == ["prefill token", "generated token"]
    assert len(list((tmp_path / "cache" / "joulenas" / "tasks").iterdir())) == 1


def test_text_that_is_added_moves_no_block_but_the_last(tmp_path):
    def samples(text):
        task = get_task(make(tmp_path, text))
        return [{row.tobytes() for row in task.split(name).inputs} for name in SPLITS]

    before, after = samples(tale(600)), samples(tale(600) + tale(100, seed=1))
    for old, new in zip(before, after, strict=True):
        # Those of one block, which the added text made longer.
        assert len(old - new) <= 2 * 256 // 16 and len(new) > len(old) // 2
    assert sum(map(len, after)) > sum(map(len, before))


def test_held_out_blocks_of_the_same_text_are_said_to_be_such(tmp_path):
    found = check_data(get_task(make(tmp_path, tale(600))))
    assert any("neighbours: held-out blocks are passages" in line for line in found.warnings)
    for name in SPLITS:
        (tmp_path / f"{name}.txt").write_text(tale(300, seed=len(name)))
    given = {name: f"{name}.txt" for name in SPLITS}
    found = check_data(get_task(make(tmp_path, **given)))
    assert not found.errors and not any("neighbours" in line for line in found.warnings)


def test_what_stands_in_two_splits_is_found_wherever_it_begins(tmp_path):
    shared = tale(12, seed=9)
    for seed, name in enumerate(SPLITS):
        (tmp_path / f"{name}.txt").write_text(tale(300, seed=seed))
    with (tmp_path / "train.txt").open("a") as file:
        file.write(f"xyz {shared}")
    with (tmp_path / "test.txt").open("a") as file:
        file.write(shared)
    found = check_data(get_task(make(tmp_path, **{name: f"{name}.txt" for name in SPLITS})))
    n = found.splits["test"]["also_in_train"]
    # All of its samples, but those at its ends.
    assert abs(n - len(shared) // 16) <= 2 * RUN // 16 + 2
    assert found.splits["validation"]["also_in_train"] == 0
    (leak,) = [line for line in found.warnings if "test.txt, line" in line]
    assert "test.txt, line 301 is " in leak and "train.txt, line 301" in leak


def test_runs_are_found_from_their_length_on_and_no_shorter():
    rng = np.random.default_rng(0)
    mine, theirs = (rng.integers(256, size=3000, dtype=np.uint8) for _ in range(2))
    for start in (0, 700, 1373):
        for length, is_found in ((2 * RUN - 1, True), (RUN - 1, False)):
            text = mine.copy()
            text[500 : 500 + length] = theirs[start : start + length]
            at, which = (pieces := Pieces.of([theirs.tobytes()])).runs(text.tobytes())
            assert bool(len(at)) == is_found
            if is_found:
                first = int(pieces.starts[which[0]])
                assert first - start == at[0] - 500
                assert covered(at, len(text)).sum() == RUN


@pytest.mark.parametrize(
    "options, match",
    [
        ({"phase": "decode"}, "phase must be one of prefill, generate or left out, got 'decode'"),
        ({"tokens": "word"}, "tokens must be one of byte, bpe, got 'word'"),
        ({"context_length": 1}, "context_length must be an integer in 2..16777216, got 1"),
        ({"context_length": True}, "context_length must be an integer in 2..16777216, got True"),
        ({"block_length": 3}, "block_length must be an integer in 64..16777216, got 3"),
        ({"tokens": "bpe", "max_vocabulary": 9}, "max_vocabulary must be an integer in 258.."),
        ({"tokenizer": "t.json", "tokens": "bpe"}, "must have tokenizer or tokens, got both"),
        ({"label": "x"}, "has unknown key 'label'"),
        ({"train": "tale.txt"}, "must have data .of all splits. or train, one of them"),
        ({"validation": {"a": "tale.txt"}}, "validation must be a path, got"),
    ],
)
def test_what_a_task_file_may_not_say_is_named(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        get_task(make(tmp_path, tale(300), **options))


def test_all_files_that_cannot_be_read_are_said_at_once(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"fine\nnot so \xff fine\n")
    (tmp_path / "test.txt").write_text(" \n")
    path = make(tmp_path, train="train.txt", validation="gone.txt", test="test.txt")
    found = check_data(get_task(path))
    assert found.n_errors == 3
    assert "train.txt must be UTF-8 text, got the byte 0xff in line 2" in found.errors[0]
    assert "gone.txt must be readable" in found.errors[1]
    assert "test.txt must have text, and has none" in found.errors[2]


def test_a_split_that_has_no_whole_context_is_an_error(tmp_path):
    with pytest.raises(DataError, match="must have a passage of more than context_length"):
        get_task(make(tmp_path, tale(200), context_length=4000)).split("train")
    with pytest.raises(DataError, match="the train split must have text, and has none"):
        get_task(make(tmp_path, "one short line\n")).split("train")


def test_a_folder_of_texts_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "books").mkdir()
    for i in range(3):
        (tmp_path / "books" / f"{i}.txt").write_text(tale(200, seed=i))
    task = get_task(make(tmp_path, data="books"))
    assert sum(task.about()["bytes"].values()) == sum(len(tale(200, seed=i)) for i in range(3))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="must hold files ending in .txt"):
        get_task(make(tmp_path, data="empty")).split("train")


def test_a_tokenizer_of_ones_own_must_give_texts_back(tmp_path):
    (tmp_path / "tale.txt").write_text(tale(300))
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "ant": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "words.json"))
    path = make(tmp_path, data="tale.txt", tokenizer="words.json")
    with pytest.raises(DataError, match="the tokenizer must give texts back as they were"):
        get_task(path).split("train")
    learnt = get_task(make(tmp_path, data="tale.txt", tokens="bpe", max_vocabulary=300))
    (tmp_path / "own.json").write_text(artifact_files_of(learnt)["tokenizer.json"])
    own = get_task(make(tmp_path, data="tale.txt", tokenizer="own.json"))
    assert np.array_equal(own.split("test").targets, learnt.split("test").targets)
    assert own.workload(1) == learnt.workload(1)


def test_an_artifact_carries_the_tokenizer_and_writes_on(tmp_path):
    task = get_task(make(tmp_path, tale(300), phase="generate"))
    artifact = carried_artifact(task, tmp_path / "artifact")
    found = artifact.generate("ant ", 6, temperature=0)
    assert found.startswith("ant ") and found == artifact.generate("ant ", 6, temperature=0)
    # Of a prompt beyond the context its end is read.
    long = artifact.generate("bee bee bee bee ant ant ant ", 6, temperature=0)
    new = artifact.generate(" ant ant ant "[-10:], 6, temperature=0)
    assert long[-6:] == new[-6:]
    drawn = {artifact.generate("ant ", 6, temperature=2.0, seed=seed) for seed in range(4)}
    assert len(drawn) > 1
    several = artifact.generate(["ant ", "bee "], 6, temperature=2.0)
    assert several == [artifact.generate(text, 6, temperature=2.0) for text in ("ant ", "bee ")]
    assert artifact.generate([], 6) == []
    with pytest.raises(ValueError, match="n_tokens must be from 1 to 15, got 16"):
        artifact.generate("ant ", 16)
    with pytest.raises(ValueError, match="prompt_BT must have a token"):
        artifact.generate("", 3)
    with pytest.raises(ValueError, match="classify requires the artifact of a classifier"):
        artifact.classify(["ant"])
