"""Bad data of every kind: a fault is one line that names file and place; all are said at once."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media_fakes import png, task_file, write_pictures, write_scenes, write_tones
from parent_fakes import write_text_pairs
from text_fakes import reviews, sentences, tale, write_parallel, write_squad, write_table

from experiments.benchmarks.training.drawn_shapes import write_shapes
from experiments.made_data import documents, write_melodies
from nas.cli.main import main
from nas.tasks.registry import FILE_TASKS, get_task

LATIN = "caf\u00e9".encode("latin-1")
NOT_UTF8 = "UTF-8"


def table(folder, ending="csv", rows=60):
    write_table(folder / f"all.{ending}", reviews(rows))
    return {"kind": "text_classification", "data": f"all.{ending}", "sequence_length": 12}


def texts_without_column(folder):
    return table(folder) | {"label": "verdict"}, ["all.csv", "verdict", "text, label"]


def texts_with_another_label(folder):
    options = table(folder, "jsonl")
    with (folder / "all.jsonl").open("a") as file:
        file.write('{"text": "warm", "label": [1]}\n')
    return options, ["all.jsonl:61", "label"]


def texts_of_nothing(folder):
    options = table(folder)
    (folder / "all.csv").write_text("")
    return options, ["all.csv", "must have a row .* and has none"]


def texts_in_latin(folder):
    options = table(folder)
    with (folder / "all.csv").open("ab") as file:
        file.write(b"61," + LATIN + b",pos\n")
    return options, ["all.csv", NOT_UTF8, "line 62"]


def texts_of_one_class(folder):
    write_table(folder / "all.csv", [(text, "pos") for text, _ in reviews(60)])
    return {"kind": "text_classification", "data": "all.csv"}, [
        "all.csv",
        "two classes or more, got pos",
    ]


def texts_that_are_nan(folder):
    columns = {"text": [1.0, float("nan")], "label": ["pos", "neg"]}
    pq.write_table(pa.table(columns), folder / "all.parquet")
    return {"kind": "text_classification", "data": "all.parquet"}, ["all.parquet", "text"]


def labels_that_are_nan(folder):
    options = table(folder, "jsonl")
    with (folder / "all.jsonl").open("a") as file:
        file.write('{"text": "warm", "label": NaN}\n')
    return options, ["all.jsonl:61", "label"]


def pictures(folder):
    write_pictures(folder / "all", 12)
    return {"kind": "images", "data": "all"}


def picture_of_nothing(folder):
    options = pictures(folder)
    (folder / "all" / "down" / "003.png").write_bytes(b"")
    return options, ["down/003.png", "bytes, got 0"]


def pictures_of_one_class(folder):
    write_pictures(folder / "all", 90, classes=("down",))
    return {"kind": "images", "data": "all"}, ["all", "two classes or more, got down"]


def pictures_that_are_nan(folder):
    rng = np.random.default_rng(0)
    values = rng.random((40, 8, 8)).astype(np.float32)
    values[7, 2, 3] = np.nan
    np.save(folder / "x.npy", values)
    np.save(folder / "y.npy", np.arange(40) % 2)
    data = {"images": "x.npy", "labels": "y.npy"}
    return {"kind": "images", "data": data}, ["x.npy", r"\b7\b", "NaN|finite"]


def pictures_with_another_label(folder):
    np.save(folder / "x.npy", np.random.default_rng(0).random((40, 8, 8)))
    np.save(folder / "y.npy", np.arange(40) / 3)
    data = {"images": "x.npy", "labels": "y.npy"}
    return {"kind": "images", "data": data}, ["y.npy", "whole|integer"]


def pictures_without_column(folder):
    rows = {"picture": [png(np.zeros((8, 8), np.uint8))] * 4, "label": [0, 1, 0, 1]}
    pq.write_table(pa.table(rows), folder / "all.parquet")
    return {"kind": "images", "data": "all.parquet"}, ["all.parquet", "image"]


def tones(folder):
    write_tones(folder / "all", 10)
    return {
        "kind": "speech",
        "data": "all",
        "sample_rate": 8000,
        "duration_s": 0.4,
        "n_mels": 20,
        "hop_ms": 20,
    }


def recording_of_nothing(folder):
    options = tones(folder)
    path = sorted((folder / "all" / "low").iterdir())[0]
    path.write_bytes(b"")
    return options, [f"low/{path.name}", "bytes, got 0"]


def recordings_of_one_class(folder):
    options = tones(folder)
    for name in ("low", "high"):
        for path in (folder / "all" / name).iterdir():
            path.unlink()
        (folder / "all" / name).rmdir()
    return options, ["all", "two classes or more, got middle"]


def recording_that_is_text(folder):
    options = tones(folder)
    (folder / "all" / "low" / "note.wav").write_text("not a sound")
    return options, ["low/note.wav", "WAV"]


def scenes(folder):
    write_scenes(folder, 20)
    data = {"images": "pictures", "masks": "masks"}
    return {"kind": "segmentation", "data": data, "classes": ["ground", "bright", "red"]}


def shapes(folder):
    write_shapes(folder, 20, side=24, sizes=(6, 9))
    data = {"images": "pictures", "annotations": "boxes.json"}
    return {"kind": "detection", "data": data}


def with_box(folder, **values):
    """The first annotation changed."""
    path = folder / "boxes.json"
    data = json.loads(path.read_text())
    data["annotations"][0].update(values)
    path.write_text(json.dumps(data))


def shapes_of_nothing(folder):
    options = shapes(folder)
    (folder / "pictures" / "0004.png").write_bytes(b"")
    return options, ["pictures/0004.png", "bytes, got 0"]


def shapes_beyond_the_picture(folder):
    options = shapes(folder)
    with_box(folder, bbox=[40, 2, 3, 3])
    return options, [r"boxes.json: annotations\[0\]", "must be in its picture of 24 x 24"]


def shapes_that_are_nan(folder):
    options = shapes(folder)
    with_box(folder, bbox=[2, float("nan"), 3, 3])
    return options, [r"boxes.json: annotations\[0\]", "finite"]


def shapes_of_another_class(folder):
    options = shapes(folder)
    with_box(folder, category_id=7)
    return options, [r"boxes.json: annotations\[0\]", "category_id"]


def shapes_in_latin(folder):
    options = shapes(folder)
    (folder / "boxes.json").write_bytes(LATIN)
    return options, ["boxes.json", NOT_UTF8]


def scene_of_nothing(folder):
    options = scenes(folder)
    (folder / "pictures" / "004.png").write_bytes(b"")
    return options, ["pictures/004.png", "bytes, got 0"]


def mask_of_nothing(folder):
    options = scenes(folder)
    (folder / "masks" / "004.png").write_bytes(b"")
    return options, ["masks/004.png", "bytes, got 0"]


def mask_of_another_class(folder):
    options = scenes(folder)
    (folder / "masks" / "004.png").write_bytes(png(np.full((12, 12), 9, np.uint8)))
    return options, ["masks/004.png", r"\b9\b"]


def masks_of_one_class(folder):
    options = scenes(folder)
    for path in (folder / "masks").iterdir():
        path.write_bytes(png(np.zeros((12, 12), np.uint8)))
    return options, ["masks", "two classes or more, got ground"]


def notes(folder, change=None):
    write_squad(folder / "notes.json", 30)
    if change is not None:
        data = json.loads((folder / "notes.json").read_text())
        change(data["data"][0]["paragraphs"])
        (folder / "notes.json").write_text(json.dumps(data))
    return {"kind": "question_answering", "data": "notes.json", "sequence_length": 24}


def notes_without_context(folder):
    options = notes(folder, lambda paragraphs: paragraphs[3].pop("context"))
    return options, ["notes.json", r"\b3\b", "context"]


def notes_with_another_answer(folder):
    def change(paragraphs):
        paragraphs[3]["qas"][1]["answers"] = "Ada"

    return notes(folder, change), ["notes.json", "answers"]


def notes_of_nothing(folder):
    options = notes(folder)
    (folder / "notes.json").write_text("")
    return options, ["notes.json", "bytes, got 0"]


def notes_in_latin(folder):
    options = notes(folder)
    (folder / "notes.json").write_bytes(b'{"data": "' + LATIN + b'"}')
    return options, ["notes.json", NOT_UTF8, "line 1"]


def plays(folder):
    (folder / "plays.txt").write_text(tale(600))
    return {
        "kind": "language_modelling",
        "data": "plays.txt",
        "context_length": 24,
        "block_length": 256,
    }


def plays_of_nothing(folder):
    options = plays(folder)
    (folder / "plays.txt").write_text("")
    return options, ["plays.txt", "must .*none|got 0|empty"]


def plays_in_latin(folder):
    options = plays(folder)
    lines = (folder / "plays.txt").read_bytes().splitlines(keepends=True)
    (folder / "plays.txt").write_bytes(b"".join([*lines[:9], LATIN + b"\n", *lines[9:]]))
    return options, ["plays.txt", NOT_UTF8, "line 10"]


def plays_that_are_away(folder):
    return plays(folder) | {"data": "gone.txt"}, ["gone.txt", "No such file"]


def pairs(folder):
    data = write_parallel(folder, sentences(100))
    return {
        "kind": "translation",
        "data": data,
        "sequence_length": 12,
        "target_length": 12,
        "max_vocabulary": 290,
    }


def pairs_without_column(folder):
    write_table(folder / "all.tsv", sentences(100), ("source", "german"))
    return pairs(folder) | {"data": "all.tsv"}, ["all.tsv", "target", "german"]


def pairs_with_another_type(folder):
    write_table(folder / "all.jsonl", sentences(100), ("source", "target"))
    with (folder / "all.jsonl").open("a") as file:
        file.write('{"source": "the dog", "target": 3}\n')
    return pairs(folder) | {"data": "all.jsonl"}, ["all.jsonl:101", "target"]


def pairs_of_nothing(folder):
    options = pairs(folder)
    for name in ("train.en", "train.xx"):
        (folder / name).write_text("")
    return options, ["train.en", "must have a line or more"]


def pairs_in_latin(folder):
    options = pairs(folder)
    lines = (folder / "train.xx").read_bytes().splitlines(keepends=True)
    (folder / "train.xx").write_bytes(b"".join([*lines[:9], LATIN + b"\n", *lines[10:]]))
    return options, ["train.xx", NOT_UTF8, "line 10"]


def reports(folder, form="jsonl"):
    pytest.importorskip("rouge_score")
    write_table(folder / f"all.{form}", documents(60), ("source", "target"))
    options = {"sequence_length": 96, "target_length": 12, "max_vocabulary": 300}
    return {"kind": "summarisation", "data": f"all.{form}", **options}


def reports_without_column(folder):
    return reports(folder, "csv") | {"target": "highlights"}, ["all.csv", "highlights", "target"]


def reports_without_summary(folder):
    options = reports(folder)
    with (folder / "all.jsonl").open("a") as file:
        file.write('{"source": "it rained .", "target": " "}\n')
    return options, ["all.jsonl:61", "must have a target, and it is empty"]


def reports_of_nothing(folder):
    options = reports(folder)
    (folder / "all.jsonl").write_text("")
    return options, ["all.jsonl", "must have a row .* and has none"]


def reports_in_latin(folder):
    options = reports(folder, "csv")
    with (folder / "all.csv").open("ab") as file:
        file.write(b"61," + LATIN + b",won\n")
    return options, ["all.csv", NOT_UTF8, "line 62"]


def melodies(folder):
    pytest.importorskip("jiwer")
    write_melodies(folder, 40)
    return {
        "kind": "transcription",
        "data": "melodies.jsonl",
        "sample_rate": 8000,
        "duration_s": 2.0,
        "n_mels": 20,
        "window_ms": 32,
    }


def melody_of_nothing(folder):
    options = melodies(folder)
    (folder / "clips" / "00007.wav").write_bytes(b"")
    return options, ["melodies.jsonl:8 .*00007.wav", "bytes, got 0"]


def melody_that_is_away(folder):
    options = melodies(folder)
    (folder / "clips" / "00007.wav").unlink()
    return options, ["melodies.jsonl:8 must name a recording that exists", "00007.wav"]


def melody_that_is_too_long(folder):
    options = melodies(folder)
    return options | {"duration_s": 1.5}, ["must be at most duration_s .1.5 s. long, got 1"]


def melody_without_text(folder):
    options = melodies(folder)
    with (folder / "melodies.jsonl").open("a") as file:
        file.write('{"audio": "clips/00001.wav", "text": ""}\n')
    return options, ["melodies.jsonl:41 must have a text, and it is empty"]


def melodies_without_column(folder):
    return melodies(folder) | {"text": "words"}, ["melodies.jsonl:1 must have 'words'"]


def melodies_of_nothing(folder):
    options = melodies(folder)
    (folder / "melodies.jsonl").write_text("")
    return options, ["melodies.jsonl", "must have a row .* and has none"]


def melodies_in_latin(folder):
    options = melodies(folder)
    with (folder / "melodies.jsonl").open("ab") as file:
        file.write(LATIN + b"\n")
    return options, ["melodies.jsonl", NOT_UTF8, "line 41"]


def vectors(folder, ending="csv"):
    """Texts without labels, and scored pairs of them."""
    write_table(folder / f"all.{ending}", [(text, "x") for text, _ in reviews(240)])
    write_text_pairs(folder / "pairs.csv", 20)
    options = {"kind": "embeddings", "data": f"all.{ending}", "sequence_length": 12}
    return options | {"validation_pairs": "pairs.csv", "test_pairs": "pairs.csv"}


def vectors_without_column(folder):
    return vectors(folder) | {"text": "sentence"}, ["all.csv", "sentence", "row, text, label"]


def vectors_with_an_empty_text(folder):
    options = vectors(folder, "jsonl")
    with (folder / "all.jsonl").open("a") as file:
        file.write('{"text": " "}\n')
    return options, ["all.jsonl:241", "must have a text, and it is empty"]


def vectors_of_nothing(folder):
    (folder / "all.txt").write_text("\n")
    return {"kind": "embeddings", "data": "all.txt"}, ["all.txt", "line of text or more"]


def vectors_in_latin(folder):
    (folder / "all.txt").write_bytes(b"warm\n" + LATIN)
    return {"kind": "embeddings", "data": "all.txt"}, ["all.txt", NOT_UTF8, "line 2"]


def vectors_too_few(folder):
    (folder / "all.txt").write_text("".join(f"{text}\n" for text, _ in reviews(60)))
    return {"kind": "embeddings", "data": "all.txt"}, ["validation split", "at least 24 texts"]


def vectors_with_another_score(folder):
    options = vectors(folder)
    with (folder / "pairs.csv").open("a") as file:
        file.write("warm film,cold film,alike\n")
    return options, ["pairs.csv:22", "score that is a finite number, got 'alike'"]


def vectors_with_one_text_of_a_pair(folder):
    options = vectors(folder)
    with (folder / "pairs.csv").open("a") as file:
        file.write("warm film,,3\n")
    return options, ["pairs.csv:22", "must have two texts, got one"]


def vectors_with_few_pairs(folder):
    options = vectors(folder)
    write_text_pairs(folder / "pairs.csv", 4)
    return options, ["pairs.csv", "at least 10 pairs of texts, got 4"]


def saved(folder, columns):
    datasets = pytest.importorskip("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
        whole = datasets.Dataset.from_dict(columns)
        datasets.DatasetDict({"train": whole}).save_to_disk(folder / "saved")
    return {"kind": "hf", "dataset": "saved", "sequence_length": 12}


def hf_columns(n=100):
    texts, labels = zip(*reviews(n), strict=True)
    return {"text": list(texts), "label": list(labels)}


def hf_without_column(folder):
    return saved(folder, hf_columns()) | {"text": "sentence"}, ["sentence", "text, label"]


def hf_with_another_label(folder):
    columns = hf_columns() | {"label": [[1]] * 100}
    return saved(folder, columns), ["label"]


def hf_that_is_nan(folder):
    columns = hf_columns() | {"label": [float("nan"), *[1.0] * 99]}
    return saved(folder, columns), ["label"]


def hf_of_one_class(folder):
    return saved(folder, hf_columns() | {"label": ["pos"] * 100}), ["classes"]


def hf_of_nothing(folder):
    return saved(folder, hf_columns() | {"text": ["", *hf_columns()["text"][1:]]}), ["train"]


# Each writes data of its kind with one fault, and says what the line must hold.
FAULTS = {
    "text_classification": [
        texts_without_column,
        texts_with_another_label,
        texts_of_nothing,
        texts_in_latin,
        texts_of_one_class,
        texts_that_are_nan,
        labels_that_are_nan,
    ],
    "images": [
        picture_of_nothing,
        pictures_of_one_class,
        pictures_that_are_nan,
        pictures_with_another_label,
        pictures_without_column,
    ],
    "speech": [recording_of_nothing, recordings_of_one_class, recording_that_is_text],
    "segmentation": [scene_of_nothing, mask_of_nothing, mask_of_another_class, masks_of_one_class],
    "detection": [
        shapes_of_nothing,
        shapes_beyond_the_picture,
        shapes_that_are_nan,
        shapes_of_another_class,
        shapes_in_latin,
    ],
    "question_answering": [
        notes_without_context,
        notes_with_another_answer,
        notes_of_nothing,
        notes_in_latin,
    ],
    "embeddings": [
        vectors_without_column,
        vectors_with_an_empty_text,
        vectors_of_nothing,
        vectors_in_latin,
        vectors_too_few,
        vectors_with_another_score,
        vectors_with_one_text_of_a_pair,
        vectors_with_few_pairs,
    ],
    "language_modelling": [plays_of_nothing, plays_in_latin, plays_that_are_away],
    "translation": [
        pairs_without_column,
        pairs_with_another_type,
        pairs_of_nothing,
        pairs_in_latin,
    ],
    "summarisation": [
        reports_without_column,
        reports_without_summary,
        reports_of_nothing,
        reports_in_latin,
    ],
    "transcription": [
        melody_of_nothing,
        melody_that_is_away,
        melody_that_is_too_long,
        melody_without_text,
        melodies_without_column,
        melodies_of_nothing,
        melodies_in_latin,
    ],
    "hf": [
        hf_without_column,
        hf_with_another_label,
        hf_that_is_nan,
        hf_of_one_class,
        hf_of_nothing,
    ],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_no_kind_is_left_out():
    assert FAULTS.keys() == FILE_TASKS.keys()


@pytest.mark.parametrize(
    "fault", [fault for kind in FAULTS.values() for fault in kind], ids=lambda f: f.__name__
)
def test_a_fault_is_one_line_that_names_its_place(tmp_path, capsys, fault):
    options, words = fault(tmp_path)
    path = task_file(tmp_path / "task.yaml", name="bad", **options)
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        get_task(path).split("train")
    line = str(raised.value)
    assert "\n" not in line
    for word in words:
        assert re.search(word, line), (word, line)
    capsys.readouterr()
    assert main(["check-data", path, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    # A search says the first of what the check says.
    assert found["n_errors"] >= 1 and found["errors"][0].split(" (and")[0] in line


def test_faults_of_different_files_are_said_at_once(tmp_path, capsys):
    options, _ = scene_of_nothing(tmp_path)
    (tmp_path / "masks" / "007.png").write_bytes(png(np.full((12, 12), 9, np.uint8)))
    (tmp_path / "masks" / "009.png").unlink()
    path = task_file(tmp_path / "task.yaml", name="bad", **options)
    assert main(["check-data", path, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["n_errors"] == 3
    for name in ("004.png", "007.png", "009.png"):
        assert sum(name in line for line in found["errors"]) == 1
