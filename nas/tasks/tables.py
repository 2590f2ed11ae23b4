"""Rows of a user's tables: a text and a label each, from CSV, TSV, JSONL, Parquet or plain lines.

By the end of a file's name: ``.csv`` and ``.tsv`` have a first line that names the columns,
``.jsonl`` (or ``.ndjson``) has an object a line, ``.parquet`` columns of its own. Any other file
has a line ``label text`` or ``label<TAB>text`` for each row. Text is UTF-8. What is wrong with a
row is added to the problems with its file and row, and reading goes on.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nas.tasks.limits import MAX_TEXT_BYTES, check_parquet, check_size
from nas.tasks.problems import Problems

# Of one cell; csv has a limit of its own, at which it would end the whole file.
_LONGEST_CELL = 2**24
_SHOWN = 40
_JSON_LINES = (".jsonl", ".ndjson")
# Ends of names of files that have columns.
TABLES = (".csv", ".tsv", *_JSON_LINES, ".parquet")


class Columns(NamedTuple):
    """Names of the columns that hold texts and labels."""

    text: str = "text"
    label: str = "label"


class Row(NamedTuple):
    """A text and its label; ``where`` is the file, ``at`` says the row to people."""

    where: str
    at: str
    text: str
    label: str | int

    @property
    def place(self) -> str:
        """File and row."""
        return f"{self.where}{self.at}"


# Where a row stands (file and row), its text and label, and the problems: the row, if it is one.
RowCheck = Callable[[str, str, Any, Any, Problems], Iterator[Row]]


def read_rows(
    path: Path, columns: Columns, problems: Problems, check: RowCheck | None = None
) -> list[Row]:
    """The rows of the file at ``path``; what is wrong with it is added to ``problems``.

    ``check`` says what a row must be, ``check_row`` where nothing is given.
    """
    check = check_row if check is None else check
    if path.is_dir():
        problems.add(f"{path} must be a file of texts, and is a folder")
        return []
    before = len(problems)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        rows = list(_parquet(path, columns, problems, check))
    else:
        text = read_text(path, problems)
        if text is None:
            return []
        if suffix in (".csv", ".tsv"):
            delimiter = "\t" if suffix == ".tsv" else ","
            rows = list(_delimited(path, text, delimiter, columns, problems, check))
        elif suffix in _JSON_LINES:
            rows = list(_json_lines(path, text, columns, problems, check))
        else:
            rows = list(_lines(path, text, problems))
    if not rows and len(problems) == before:
        problems.add(
            f"text file {path} must have a row of a {columns.label} and a {columns.text} or more, "
            f"and has none"
        )
    return rows


def check_row(where: str, at: str, text: Any, label: Any, problems: Problems) -> Iterator[Row]:
    """The row, if its text and label are what they must be; else what is wrong with them."""
    if not isinstance(text, str):
        problems.add(f"{where}{at} must have a text, got {shown(text)}")
        return
    if not text.strip():
        problems.add(f"{where}{at} must have a text, and it is empty")
        return
    if isinstance(label, bool):
        label = str(label).lower()
    if not isinstance(label, str | int):
        problems.add(
            f"{where}{at} must have a label that is a whole number or a text, got {shown(label)}"
        )
        return
    if isinstance(label, str) and not label.strip():
        problems.add(f"{where}{at} must have a label, and it is empty")
        return
    try:
        text.encode()
        str(label).encode()
    except UnicodeEncodeError:
        # JSON may name half of a character, which is no text anywhere else.
        problems.add(f"{where}{at} must be UTF-8 text, got half of a character (a surrogate)")
        return
    yield Row(where, at, text, label.strip() if isinstance(label, str) else label)


def shown(value: Any) -> str:
    """A value for people: what is no text says so, what is long is cut."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def read_text(path: Path, problems: Problems) -> str | None:
    """The text of the file at ``path``, ``None`` where it is none, which the problems then say."""
    try:
        check_size(max(1, path.stat().st_size), MAX_TEXT_BYTES)
        raw = path.read_bytes()
    except OSError as error:
        problems.add(f"text file {path} must be readable: {error.strerror}")
        return None
    except (ValueError, MemoryError) as error:
        problems.add(f"text file {path} {str(error) or 'must fit into memory, and does not'}")
        return None
    try:
        # Some programs begin a UTF-8 file with a mark, which is no part of the first column.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        problems.add(
            f"text file {path} must be UTF-8 text, got the byte 0x{raw[error.start]:02x} in line "
            f"{line}"
        )
        return None


def _lines(path: Path, text: str, problems: Problems) -> Iterator[Row]:
    # Only real line ends: texts may hold other characters that str.splitlines would cut at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        parts = line.split(None, 1)
        if len(parts) != 2:
            problems.add(f"{path}:{number} must be a label and a text, got {shown(line.strip())}")
            continue
        yield from check_row(str(path), f":{number}", parts[1].rstrip("\r"), parts[0], problems)


def _delimited(
    path: Path,
    text: str,
    delimiter: str,
    columns: Columns,
    problems: Problems,
    check: RowCheck,
) -> Iterator[Row]:
    usual, line = csv.field_size_limit(_LONGEST_CELL), 1
    try:
        source = io.StringIO(text, newline="")
        if delimiter == "\t":
            # Quotes mean nothing in tab-separated files: a text there may begin with one.
            rows = csv.reader(source, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(source, delimiter=delimiter, strict=True)
        header = next(rows, None)
        if header is None:
            return
        names = [name.strip() for name in header]
        if not _has_columns(path, names, columns, problems):
            return
        text_at, label_at = names.index(columns.text), names.index(columns.label)
        # A row may take several lines, and is named by its first.
        line = rows.line_num + 1
        for cells in rows:
            at, line = f":{line}", rows.line_num + 1
            if not cells:
                continue
            if len(cells) != len(names):
                problems.add(f"{path}{at} must have {len(names)} columns, got {len(cells)}")
                continue
            yield from check(str(path), at, cells[text_at], cells[label_at], problems)
    except csv.Error as error:
        problems.add(f"{path}:{line} must be a row of a table: {error}")
    finally:
        csv.field_size_limit(usual)


def _json_lines(
    path: Path, text: str, columns: Columns, problems: Problems, check: RowCheck
) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        at = f":{number}"
        if len(line) > _LONGEST_CELL:
            problems.add(
                f"{path}{at} must have at most {_LONGEST_CELL:,} characters, got {len(line):,}"
            )
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = "it is nested too deeply" if isinstance(error, RecursionError) else error
            problems.add(f"{path}{at} must be a JSON object: {said}")
            continue
        if not isinstance(found, dict):
            problems.add(f"{path}{at} must be a JSON object, got {shown(found)}")
            continue
        missing = [name for name in columns if name not in found]
        if missing:
            problems.add(f"{path}{at} must have {missing[0]!r}, got {_names(list(found))}")
            continue
        yield from check(str(path), at, found[columns.text], found[columns.label], problems)


def _parquet(path: Path, columns: Columns, problems: Problems, check: RowCheck) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        check_parquet(file.metadata, path.stat().st_size)
        if not _has_columns(path, list(file.schema_arrow.names), columns, problems):
            return
        number = 0
        for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
            texts = batch.column(columns.text).to_pylist()
            labels = batch.column(columns.label).to_pylist()
            for text, label in zip(texts, labels, strict=True):
                yield from check(str(path), f", row {number},", text, label, problems)
                number += 1
    except OSError as error:
        problems.add(f"{path} must be readable: {error.strerror or str(error).splitlines()[0]}")
    except (pyarrow.ArrowException, ValueError) as error:
        line = (str(error).splitlines() or ["no cause"])[0]
        problems.add(f"{path} must be a whole Parquet file: {line}")


def _has_columns(path: Path, names: list[str], columns: Columns, problems: Problems) -> bool:
    missing = [name for name in columns if name not in names]
    for name in missing:
        problems.add(f"{path} must have a column {name!r}, got {_names(names)}")
    return not missing


def _names(names: list[str]) -> str:
    text = ", ".join(map(str, names[:20]))
    return shown(text) if len(text) > 200 else text or "none"
