"""Datasets in the forms of Hugging Face's library, from disk: nothing here has a network."""

import os
import subprocess
import sys

import numpy as np
import pytest
from media_fakes import png
from text_fakes import reviews, write_table, write_task

datasets = pytest.importorskip("datasets")

from nas.cli.main import main  # noqa: E402
from nas.tasks import hf  # noqa: E402
from nas.tasks.base import SPLITS  # noqa: E402
from nas.tasks.registry import get_task  # noqa: E402
from nas.tasks.vision.picture_reader import PictureOptions, PictureReader  # noqa: E402

PAIRS = reviews(300)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    hf._load.cache_clear()


def table(pairs):
    labels = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"sentence": datasets.Value("string"), "sentiment": labels})
    columns = {"sentence": [t for t, _ in pairs], "sentiment": [c == "pos" for _, c in pairs]}
    return datasets.Dataset.from_dict(columns, features=features)


def hub(tmp_path, **options):
    return get_task(write_task(tmp_path / "t.yaml", kind="hf", **options))


def test_a_saved_dataset_gives_what_a_table_gives(tmp_path):
    saved = datasets.DatasetDict({"train": table(PAIRS[:250]), "dev": table(PAIRS[250:])})
    saved.save_to_disk(tmp_path / "saved")
    options = {"sequence_length": 10, "tokens": "bpe", "max_vocabulary": 300}
    task = hub(
        tmp_path,
        dataset="saved",
        splits={"train": "train", "validation": "dev"},
        text="sentence",
        label="sentiment",
        **options,
    )
    about = task.about()
    assert about["classes"] == ["neg", "pos"] and about["samples"]["validation"] == 50
    assert about["samples"]["train"] + about["samples"]["test"] == 250
    assert '"labels": ["neg", "pos"]' in task.artifact_files()["labels.json"]
    write_table(tmp_path / "train.csv", PAIRS[:250])
    write_table(tmp_path / "dev.csv", PAIRS[250:])
    same = {"train": "train.csv", "validation": "dev.csv", **options}
    other = get_task(write_task(tmp_path / "other.yaml", **same))
    for name in SPLITS:
        assert np.array_equal(task.split(name).inputs, other.split(name).inputs)
        assert np.array_equal(task.split(name).targets, other.split(name).targets)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_folders_and_files_of_tables(tmp_path, ending):
    (tmp_path / "folder").mkdir()
    path = write_table(tmp_path / "folder" / f"train.{ending}", PAIRS)
    tasks = [hub(tmp_path, dataset=str(where)) for where in ("folder", path)]
    first, second = (task.split("train") for task in tasks)
    assert np.array_equal(first.inputs, second.inputs) and len(first) > 150
    assert tasks[0].about()["classes"] == ["neg", "pos"]


def test_pictures_of_a_dataset(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [png(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)) for _ in range(60)]
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    columns = {"img": [{"bytes": raw, "path": None} for raw in pictures], "label": [0, 1, 2] * 20}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "saved")
    task = hub(tmp_path, dataset="saved", image="img", size=4, channels=1)
    assert task.workload(4).input_shape == (1, 4, 4)
    assert sum(len(task.split(name)) for name in SPLITS) == 60
    assert task.about()["classes"] == ["a", "b", "c"]


def test_folders_of_pictures_and_rows_that_name_other_files(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for i in range(30):
            raw = png(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
            (tmp_path / "all" / name / f"{i}.png").write_bytes(raw)
    task = hub(tmp_path, dataset="all", image="image")
    assert sum(len(task.split(name)) for name in SPLITS) == 60
    (tmp_path / "secret.png").write_bytes(raw)
    rows = [{"image": {"bytes": None, "path": str(tmp_path / "secret.png")}}]
    with pytest.raises(ValueError, match="or name a file of the dataset"):
        reader = PictureReader(PictureOptions())
        hf._picture(rows, 0, hf.HubDataset("all", tmp_path / "all"), reader)
    rows = [{"image": {"bytes": None, "path": str(tmp_path / "all" / "b" / "29.png")}}]
    found = hf._picture(rows, 0, hf.HubDataset("all", tmp_path / "all"), reader)
    assert found.shape == (3, 4, 4)


def test_what_is_wrong_is_named_with_split_and_row(tmp_path, capsys):
    columns = {"text": ["fine", None, "", "dull"], "label": [0, 1, 1, -1]}
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "saved")
    path = write_task(tmp_path / "t.yaml", kind="hf", dataset="saved")
    assert main(["check-data", path]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "error: saved, train row 1, must have a text, got nothing (null)",
        "error: saved, train row 2, must have a text, and it is empty",
        "error: saved, train row 3, must have a label that is a whole number or a text, got "
        "nothing (null)",
    ]


WRONG = [
    ({"dataset": "./none"}, r"none must exist, and does not"),
    ({"dataset": "none.csv"}, r"none.csv must exist"),
    ({"dataset": 3}, r"dataset must be a name, got 3"),
    ({"dataset": "saved", "revision": "main"}, r"revision must be left out"),
    ({"dataset": "saved", "text": "words"}, r"saved, train, must have a column 'words', got"),
    ({"dataset": "saved", "text": "text", "image": "text"}, r"text or image, got both"),
    ({"dataset": "saved", "splits": {"dev": "train"}}, r"splits must say, for some of"),
    ({"dataset": "saved", "splits": {"train": "all"}}, r"train must be one of train, got 'all'"),
    ({"dataset": "saved", "splits": {"test": "train"}}, r"which of train is the training split"),
    ({"dataset": "saved", "splits": {"train": ["a"]}}, r"train must be one of train, got \['a'\]"),
    ({"dataset": "saved", "size": 3}, r"unknown key 'size'"),
    ({"dataset": "scripts"}, r"must be one that can be read"),
    ({"dataset": "pickles"}, r"must be one that can be read"),
    ({"dataset": "archives"}, r"must consist of arrow, csv, .* files, got webdataset"),
    ({"dataset": "odd.pkl"}, r"must be a folder or end in"),
    ({"dataset": "broken"}, r"must be one that can be read"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda v: str(v)[:40])
def test_what_cannot_be_had_is_one_line(tmp_path, options, message):
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(tmp_path / "saved")
    for name, file in (
        ("scripts", "scripts.py"),
        ("pickles", "train.pkl"),
        ("archives", "train.tar"),
        ("broken", "train.parquet"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("raise SystemExit('this ran')")
    (tmp_path / "odd.pkl").write_text("x")
    with pytest.raises(ValueError, match=message) as caught:
        hub(tmp_path, **options).split("train")
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_out_of_reach_is_said(tmp_path):
    path = write_task(tmp_path / "t.yaml", kind="hf", dataset="some-one/some-thing")
    command = [sys.executable, "-m", "nas", "check-data", path]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 2, found.stderr
    assert "'some-one/some-thing' must be on this machine or within reach" in found.stdout


def test_without_the_library_the_pip_line_is_named(tmp_path, monkeypatch):
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'joulenas\[hf\]'"):
        hub(tmp_path, dataset="saved")
