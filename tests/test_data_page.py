"""What the page on data shows is true: its task files are such, its example runs as written."""

import csv
import json
import re

import numpy as np
import pytest
from test_readme import ROOT, blocks, output_of
from text_fakes import reviews, write_squad

from experiments import recipes
from nas.searching.study import check_fits
from nas.tasks.base.checks import check_data
from nas.tasks.registry import FILE_TASKS, get_task

PAGE = ROOT / "docs" / "data.md"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def task_of(folder, text):
    (folder / "task.yaml").write_text(text)
    return get_task(str(folder / "task.yaml"))


def test_the_example_runs_as_written(tmp_path):
    (example,) = blocks(PAGE, "python")
    *splits, quality = output_of(example, tmp_path, timeout=120).splitlines()
    samples = [int(re.search(r": (\d+) samples", line).group(1)) for line in splits]
    assert sum(samples) == 400 and samples[0] > 240 and min(samples) > 30
    # One word of each text decides, and it is always there.
    assert float(quality.split("%")[0]) > 90


def test_its_texts_are_a_task(tmp_path):
    text, *_ = blocks(PAGE, "yaml")
    with (tmp_path / "reviews.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("review", "verdict"), *reviews(200)])
    task = task_of(tmp_path, text)
    found = check_data(task)
    assert not found.errors and set(found.splits["train"]["classes"]) == {"pos", "neg"}
    workload = task.workload(128)
    check_fits(recipes.text("cpu").space.for_samples_of(workload), workload)


def test_its_questions_are_a_task(tmp_path):
    _, text, _, _ = blocks(PAGE, "yaml")
    write_squad(tmp_path / "notes.json", 100)
    task = task_of(tmp_path, text)
    assert not check_data(task).errors and task.metric.key == "f1"
    check_fits(recipes.question_answering("cpu").space, task.workload(32))


def test_its_passages_are_a_task(tmp_path):
    _, _, text, _ = blocks(PAGE, "yaml")
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(["To be", "or not", "to sleep"], 8)) for _ in range(2000)]
    (tmp_path / "plays.txt").write_text("\n".join(lines))
    task = task_of(tmp_path, text)
    assert not check_data(task).errors and task.metric.key == "bits_per_byte"
    assert task.workload(8).unit == "generated token"


def test_its_data_set_is_a_task(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    *_, text = blocks(PAGE, "yaml")
    texts, labels = zip(*reviews(150), strict=True)
    whole = datasets.Dataset.from_dict({"sentence": list(texts), "label": list(labels)})
    saved = {"train": whole.select(range(120)), "held_out": whole.select(range(120, 150))}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    task = task_of(tmp_path, text)
    assert not check_data(task).errors and len(task.split("test")) == 30


def test_it_names_every_kind_of_sample_and_its_recipe():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    rows = [re.findall(r"`([\w-]+)`", line) for line in lines]
    table = {row[0]: row[1:] for row in rows if row[0] in FILE_TASKS}
    assert table.keys() == FILE_TASKS.keys()
    for kind, named in table.items():
        # What has no recipe yet says so by naming none.
        if named:
            assert callable(getattr(recipes, named[-1].replace("-", "_"), None)), kind


def test_equal_texts_are_in_one_split_and_later_rows_move_none(tmp_path):
    text, *_ = blocks(PAGE, "yaml")
    pairs = reviews(200)

    def places(rows):
        with (tmp_path / "reviews.csv").open("w", newline="") as handle:
            csv.writer(handle).writerows([("review", "verdict"), *rows])
        task = task_of(tmp_path, text)
        sizes = {name: len(task.split(name)) for name in ("train", "validation", "test")}
        return sizes, check_data(task)

    before, _ = places(pairs)
    shouted = [(f"  {t.upper()} ", label) for t, label in pairs]
    order = np.random.default_rng(1).permutation(2 * len(pairs))
    twice, found = places([[*pairs, *shouted][i] for i in order])
    assert twice == {name: 2 * n for name, n in before.items()}
    assert not any("leak" in line for line in found.warnings)
    assert json.dumps(found.to_dict())
