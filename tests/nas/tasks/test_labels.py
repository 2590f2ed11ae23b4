"""Labels and columns of a user's tables: alike in every form, and named where they are odd."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media_fakes import stripes, task_file, write_pictures
from test_picture_reading import SMALL
from text_fakes import reviews

from nas.core.files import write_json
from nas.exporting.artifact import load_artifact
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.base.checks import check_data
from nas.tasks.registry import get_task
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.models.build import build


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def as_csv(folder, rows):
    (folder / "t.csv").write_text("text,label\n" + "".join(f"{t},{x}\n" for t, x in rows))
    return "t.csv"


def as_jsonl(folder, rows):
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (folder / "t.jsonl").write_text("\n".join(lines))
    return "t.jsonl"


def as_parquet(folder, rows):
    texts, labels = zip(*rows, strict=True)
    pq.write_table(pa.table({"text": list(texts), "label": list(labels)}), folder / "t.parquet")
    return "t.parquet"


def texts(folder, data, **options):
    return get_task(task_file(folder / "t.yaml", name="t", data=data, **options))


def as_npz(folder, rows):
    rng = np.random.default_rng(0)
    pictures = np.stack([stripes("down", rng) for _ in rows])
    np.savez(folder / "a.npz", images=pictures, labels=np.array([label for _, label in rows]))
    return get_task(task_file(folder / "t.yaml", name="t", kind="images", data="a.npz"))


def made(form, folder, rows):
    return as_npz(folder, rows) if form is as_npz else texts(folder, form(folder, rows))


FORMS = [as_csv, as_jsonl, as_parquet, as_npz]


def rows_of(*labels):
    return [(text, labels[i % len(labels)]) for i, (text, _) in enumerate(reviews(80))]


@pytest.mark.parametrize("form", FORMS)
def test_whole_floats_are_whole_numbers(tmp_path, form):
    found = check_data(made(form, tmp_path, rows_of(0.0, 1.0)))
    assert not found.errors and set(found.splits["train"]["classes"]) == {"0", "1"}


def test_both_spellings_of_a_number_are_one_class(tmp_path):
    found = check_data(texts(tmp_path, as_csv(tmp_path, rows_of("0", "1.0", "1", "0.0"))))
    assert set(found.splits["train"]["classes"]) == {"0", "1"}
    found = check_data(texts(tmp_path, as_jsonl(tmp_path, rows_of(0, 1.0, 1, 0.0))))
    assert set(found.splits["train"]["classes"]) == {"0", "1"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("bad", "said"), [(0.5, "got 0.5"), (float("nan"), "NaN")])
def test_fractions_and_nan_are_refused_with_their_row(tmp_path, form, bad, said):
    rows = rows_of(0.0, 1.0)
    rows[7] = (rows[7][0], bad)
    (line,) = check_data(made(form, tmp_path, rows)).errors
    where = {as_csv: "t.csv:9", as_jsonl: "t.jsonl:8", as_parquet: "row 7", as_npz: "label 7"}
    assert f"{where[form]}" in line and said in line


@pytest.mark.parametrize("form", FORMS)
def test_empty_labels_are_refused_with_their_row(tmp_path, form):
    rows = rows_of("a", "b")
    rows[7] = (rows[7][0], "  ")
    (line,) = check_data(made(form, tmp_path, rows)).errors
    assert "must have a label, and it is empty" in line and (
        "7" in line or "8" in line or ":9" in line
    )


def test_splits_in_two_forms_have_the_same_labels(tmp_path):
    rows = rows_of(0, 1)
    as_csv(tmp_path, rows[:50])
    as_jsonl(tmp_path, rows[50:])
    options = {"train": "t.csv", "test": "t.jsonl"}
    found = check_data(get_task(task_file(tmp_path / "t.yaml", name="t", **options)))
    assert not found.errors and found.splits["test"]["samples"] == 30


def test_labels_that_differ_in_case_are_warned_of(tmp_path):
    rows = rows_of("Good", "bad", "good", "Stra\u00dfe", "strasse")
    found = [w for w in check_data(texts(tmp_path, as_csv(tmp_path, rows))).warnings
             if w.startswith("labels: ")]  # fmt: skip
    assert len(found) == 2
    assert any("'Good' (" in line and "'good' (" in line for line in found)
    as_csv(tmp_path, [(text, label) for text, label in rows if label != "good"])
    as_jsonl(tmp_path, [("one more", "good"), ("and one", "GOOD ")])
    options = {"train": "t.csv", "validation": "t.jsonl"}
    errors = check_data(get_task(task_file(tmp_path / "t.yaml", name="t", **options))).errors
    assert len(errors) == 2 and all("'Good' differs in case or spaces alone" in e for e in errors)


def test_folders_that_differ_in_case_are_warned_of(tmp_path):
    write_pictures(tmp_path / "p", 20, classes=("across", "down"))
    write_pictures(tmp_path / "q", 20, seed=1, classes=("down",))
    (tmp_path / "q" / "down").rename(tmp_path / "p" / "Down")
    task = get_task(task_file(tmp_path / "t.yaml", name="t", kind="images", data="p"))
    assert any("'Down' (" in line and "'down' (" in line for line in check_data(task).warnings)


@pytest.mark.parametrize("form", FORMS[:3])
def test_two_labels_of_one_text_are_named(tmp_path, form):
    rows = rows_of("a", "b")
    rows[40] = (rows[3][0].upper(), "a" if rows[3][1] == "b" else "b")
    found = check_data(texts(tmp_path, form(tmp_path, rows))).warnings
    (line,) = [line for line in found if line.startswith("two labels: ")]
    places = {as_csv: (":5", ":42"), as_jsonl: (":4", ":41"), as_parquet: ("row 3", "row 40")}
    assert all(place in line for place in places[form])
    assert "is 'b'" in line and "is 'a'" in line


def test_two_labels_of_one_picture_are_named(tmp_path):
    write_pictures(tmp_path / "p", 20, classes=("across", "down"))
    copy = tmp_path / "p" / "down" / "copy.png"
    copy.write_bytes((tmp_path / "p" / "across" / "003.png").read_bytes())
    task = get_task(task_file(tmp_path / "t.yaml", name="t", kind="images", data="p"))
    (line,) = [x for x in check_data(task).warnings if x.startswith("two labels: ")]
    assert "across/003.png is 'across'" in line and "down/copy.png" in line and "'down'" in line


@pytest.mark.parametrize(("ending", "comma"), [("csv", ","), ("tsv", "\t")])
def test_a_table_without_a_header_is_noticed_and_may_be_named(tmp_path, ending, comma):
    rows = [f"{i % 2}{comma}title {i}{comma}words of text {i}\n" for i in range(80)]
    (tmp_path / f"t.{ending}").write_text("".join(rows))
    errors = check_data(texts(tmp_path, f"t.{ending}")).errors
    assert all("its first line looks like data, not names" in line for line in errors)
    assert "columns: [label, text, c3]" in errors[0]
    task = texts(tmp_path, f"t.{ending}", columns=["label", "title", "text"])
    assert sum(len(task.split(name)) for name in SPLITS) == 80
    # With one after all, it is no row.
    (tmp_path / f"t.{ending}").write_text(f"Label{comma}title{comma}text\n" + "".join(rows))
    task = texts(tmp_path, f"t.{ending}", columns=["label", "title", "text"])
    assert sum(len(task.split(name)) for name in SPLITS) == 80


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": ["label", "title"]}, "columns must have 'text', got label, title"),
        ({"columns": ["text", "text"]}, "columns must be a list of two distinct names or more"),
        ({"columns": "text"}, "columns must be a list of two distinct names or more"),
        ({"text": []}, "text must be a column or a list of columns"),
        ({"text": ["a", "label"]}, "text and label must name different columns"),
        ({"text": ["a", "a"]}, "text and label must name different columns"),
        ({"text": ["a", "b"], "separator": 3}, "separator must be a text, got 3"),
        ({"separator": "|"}, "separator must be left out for one column of texts"),
    ],
)
def test_columns_that_are_none(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        texts(tmp_path, "t.csv", **options)


def test_columns_are_for_tables_without_names(tmp_path):
    as_jsonl(tmp_path, rows_of("a", "b"))
    (line,) = check_data(texts(tmp_path, "t.jsonl", columns=["text", "label"])).errors
    assert "columns must be left out" in line
    (tmp_path / "t.csv").write_text("text,text,label\na,b,c\n")
    (line,) = check_data(texts(tmp_path, "t.csv")).errors
    assert "must have one column 'text', got 2" in line


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_of_texts_are_joined(tmp_path, ending):
    rows = [{"title": f"t{i}", "more": f"m{i}", "label": i % 2} for i in range(80)]
    rows[5]["title"] = ""
    if ending == "csv":
        lines = [f"{row['title']},{row['more']},{row['label']}\n" for row in rows]
        (tmp_path / "t.csv").write_text("title,more,label\n" + "".join(lines))
    elif ending == "jsonl":
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    options = {"text": ["title", "more"], "separator": " | ", "tokens": "byte"}
    task = texts(tmp_path, f"t.{ending}", **options)
    folder = tmp_path / "artifact"
    folder.mkdir()
    workload = task.workload(4)
    architecture = SMALL.__class__(SMALL.d_model, SMALL.layers)
    write_json(folder / ARCHITECTURE, architecture.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    save_weights(build(architecture, workload), folder / WEIGHTS)
    for name, text in artifact_files_of(task).items():
        (folder / name).write_text(text, encoding="utf-8")
    artifact = load_artifact(folder)
    read = {artifact.encoder.decode([t for t in row if t]) for name in SPLITS
            for row in task.split(name).inputs}  # fmt: skip
    assert {"t1 | m1", "m5"} <= read
    asked = [{"title": "t1", "more": "m1"}, ("t1", "m1"), "t1 | m1", {"title": "", "more": "m5"}]
    assert len(set(artifact.classify(asked)[:3])) == 1
    assert artifact.columns.joined(asked) == ["t1 | m1"] * 3 + ["m5"]
    with pytest.raises(ValueError, match="sample 0 must have the texts title, more"):
        artifact.classify([{"title": "t1"}])
