"""Tables of a user: every form gives the same rows, and what is wrong is named with its row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from text_fakes import reviews, write_table

from nas.tasks.base.problems import Problems
from nas.tasks.base.tables import Columns, read_rows

PAIRS = [*reviews(20), ('say "no", never', "neg"), ("two\tparts é 日", "pos")]


def read(path, columns=Columns()):  # noqa: B008
    problems = Problems()
    rows = read_rows(path, columns, problems)
    return rows, list(problems._lines)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "txt"])
def test_every_form_gives_the_same_rows(tmp_path, ending):
    path = write_table(tmp_path / f"t.{ending}", PAIRS, ("sentence", "kind"))
    rows, wrong = read(path, Columns("sentence", "kind"))
    assert not wrong and [(row.text, row.label) for row in rows] == PAIRS
    assert rows[3].place.startswith(str(path))


def test_quotes_mean_nothing_between_tabs(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('label\ttext\n1\t"odd one\n0\tplain "one"\n')
    rows, wrong = read(path)
    assert not wrong and [row.text for row in rows] == ['"odd one', 'plain "one"']


def test_a_mark_at_the_start_and_long_cells_are_no_matter(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(
        b"\xef\xbb\xbftext,label\r\n" + b"long " * 60_000 + b',a\r\n"two\nlines",b\r\n'
    )
    rows, wrong = read(path)
    assert not wrong and len(rows[0].text) == 300_000
    assert (rows[1].text, rows[1].place) == ("two\nlines", f"{path}:3")


def test_labels_may_be_numbers_or_truth(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "label": 3}\n\n{"text": "b", "label": true}\n')
    assert [row.label for row in read(path)[0]] == [3, "true"]


WRONG = [
    ("t.csv", b"text,kind\na,b\n", ["must have a column 'label', got text, kind"]),
    ("t.csv", b"text,label\na,1\nb\nc,1,2\n", [":3 must have 2 columns, got 1", ":4 must"]),
    ("t.csv", b'text,label\na,1\n"open,1\nb,1\n', [":3 must be a row of a table"]),
    (
        "t.csv",
        b"text,label\n ,1\nb,\n",
        [":2 must have a text, and it is empty", ":3 must have a l"],
    ),
    ("t.csv", b"text,label\na,1\nb\xff,1\n", ["UTF-8 text, got the byte 0xff in line 3"]),
    ("t.csv", b"text,label\n", ["has none"]),
    ("t.csv", b"", ["has none"]),
    ("t.txt", b"a fine\nalone\n", [":2 must be a label and a text, got 'alone'"]),
    ("t.jsonl", b'{"text": "a", "label": 1.5}\n', [":1 must have a label that is a whole number"]),
    ("t.jsonl", b'{"text": NaN, "label": 1}\n', [":1 must have a text, got NaN"]),
    ("t.jsonl", b'{"text": "a"}\n[1]\n{', [":1 must have 'label'", ":2 must be", ":3 must be"]),
    ("t.jsonl", b'{"text": "\\ud800", "label": 1}\n', [":1 must be UTF-8 text"]),
    ("t.jsonl", b"[" * 100_000, [":1 must be a JSON object: it is nested too deeply"]),
    ("t.parquet", b"PAR1 but not", ["must be a whole Parquet file"]),
    ("t.parquet", b"", ["must be a whole Parquet file"]),
]


@pytest.mark.parametrize(("name", "content", "words"), WRONG, ids=lambda v: str(v)[:30])
def test_what_is_wrong_is_named_with_its_row(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    _, wrong = read(tmp_path / name)
    assert len(wrong) == len(words)
    for line, word in zip(wrong, words, strict=True):
        assert word in line and name in line and "\n" not in line


def test_nothing_and_numbers_in_parquet_are_no_texts(tmp_path):
    table = {"text": ["a", None, "c", "d"], "label": [1.0, 2.0, float("nan"), None]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    _, wrong = read(tmp_path / "t.parquet")
    assert [line.partition(".parquet")[2] for line in wrong] == [
        ", row 1, must have a text, got nothing (null)",
        ", row 2, must have a label that is a whole number or a text, got NaN",
        ", row 3, must have a label that is a whole number or a text, got nothing (null)",
    ]


def test_missing_files_and_folders_are_said(tmp_path):
    assert "must be readable" in read(tmp_path / "none.csv")[1][0]
    assert "is a folder" in read(tmp_path)[1][0]
    assert "must be readable" in read(tmp_path / "none.parquet")[1][0]


def test_broken_json_does_not_end_the_reading(tmp_path):
    path = tmp_path / "t.jsonl"
    good = json.dumps({"text": "a", "label": 1})
    path.write_text(f"{good}\n{{\n{good}\n")
    rows, wrong = read(path)
    assert len(rows) == 2 and len(wrong) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text;label\ngood;1\n", "separated by ';'"),
        ("a.csv", "text\tlabel\ngood\t1\n", "separated by '\\\\t'"),
        ("a.csv", "Text,Label\ngood,1\n", "'Text' differs in case alone"),
        ("a.json", '{"text": "good", "label": 1}\n', "must end in .jsonl"),
        ("a.csv.gz", b"\x1f\x8b\x08" + b"abc" * 9, "unpack it"),
    ],
)
def test_tables_of_other_programs_are_said_with_a_way_out(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    problems = Problems()
    assert read_rows(path, Columns(), problems) == []
    with pytest.raises(ValueError, match=said) as error:
        problems.check()
    assert str(path) in str(error.value)


def test_named_columns_in_another_order_than_the_first_line_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\ngood,1\n")
    problems = Problems()
    read_rows(path, Columns(header=("label", "text")), problems)
    with pytest.raises(ValueError, match="names its columns text, label"):
        problems.check()


def test_empty_lines_before_the_first_row_are_passed_over(tmp_path):
    path, problems = tmp_path / "a.csv", Problems()
    path.write_text("\n\ntext,label\ngood,1\n")
    assert [row.place for row in read_rows(path, Columns(), problems)] == [f"{path}:4"]
    path.write_text("\n\ngood,1\n")
    (row,) = read_rows(path, Columns(header=("text", "label")), problems)
    assert row.place == f"{path}:3" and not len(problems)
