"""Rows of a user's tables: a text and a label each, from CSV, TSV, JSONL, Parquet or plain lines.

By the end of a file's name: ``.csv`` and ``.tsv`` have a first line that names the columns,
unless the task file names them; ``.jsonl`` (or ``.ndjson``) has an object a line, ``.parquet``
columns of its own. Any other file has a line ``label text`` or ``label<TAB>text`` for each row.
Text is UTF-8. What is wrong with a row is added to the problems with its file and row, and reading
goes on.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nas.tasks.base.columns import Columns, header_hint, is_header, separator_hint
from nas.tasks.base.labels import BadLabel, check_label
from nas.tasks.base.limits import MAX_TEXT_BYTES, check_size
from nas.tasks.base.parquet import ParquetTable
from nas.tasks.base.problems import Problems, named, shown

# Of one cell; csv has a limit of its own, at which it would end the whole file.
_LONGEST_CELL = 2**24
_DELIMITED = (".csv", ".tsv")
_JSON_LINES = (".jsonl", ".ndjson")
# Ends of names of files that have columns.
TABLES = (*_DELIMITED, *_JSON_LINES, ".parquet")


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
    if columns.header is not None and suffix not in _DELIMITED:
        problems.add(f"columns must be left out for {path}: it is for {' and '.join(_DELIMITED)}")
        return []
    if suffix == ".json":
        problems.add(
            f"text file {path} must end in .jsonl and have an object a line; other JSON is not "
            f"read"
        )
        return []
    if suffix == ".parquet":
        rows = list(_parquet(path, columns, problems, check))
    else:
        text = read_text(path, problems)
        if text is None:
            return []
        if suffix in _DELIMITED:
            delimiter = "\t" if suffix == ".tsv" else ","
            rows = list(_delimited(path, text, delimiter, columns, problems, check))
        elif suffix in _JSON_LINES:
            rows = list(_json_lines(path, text, columns, problems, check))
        else:
            rows = list(_lines(path, text, problems))
    if not rows and len(problems) == before:
        problems.add(
            f"text file {path} must have a row of a {columns.label} and a "
            f"{' and '.join(columns.texts)} or more, and has none"
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
    checked = check_label(label)
    if isinstance(checked, BadLabel):
        problems.add(f"{where}{at} {checked.why}")
        return
    try:
        text.encode()
        str(checked).encode()
    except UnicodeEncodeError:
        # JSON may name half of a character, which is no text anywhere else.
        problems.add(f"{where}{at} must be UTF-8 text, got half of a character (a surrogate)")
        return
    yield Row(where, at, text, checked)


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
        packed = raw.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ"))
        hint = "; it is packed: unpack it" if packed else ""
        problems.add(
            f"text file {path} must be UTF-8 text, got the byte 0x{raw[error.start]:02x} in line "
            f"{line}{hint}"
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
        first, at_first = _first_row(rows)
        if first is None:
            return
        names = list(columns.header or (name.strip() for name in first))
        if not _has_columns(path, names, columns, problems, first):
            return
        rows_left: Iterator[list[str]] = rows
        line = rows.line_num + 1
        if columns.header is not None and not is_header(first, columns.header):
            # The first line is a row like the others.
            line, rows_left = at_first, itertools.chain([first], rows)
        # A row may take several lines, and is named by its first.
        for cells in rows_left:
            at, line = f":{line}", rows.line_num + 1
            if not cells:
                continue
            if len(cells) != len(names):
                hint = separator_hint(cells)
                problems.add(f"{path}{at} must have {len(names)} columns, got {len(cells)}{hint}")
                continue
            found = dict(zip(names, cells, strict=True))
            yield from check(str(path), at, columns.text_of(found), found[columns.label], problems)
    except csv.Error as error:
        problems.add(f"{path}:{line} must be a row of a table: {error}")
    except ValueError as error:
        problems.add(f"{path} {error}")
    finally:
        csv.field_size_limit(usual)


def _first_row(rows: Any) -> tuple[list[str] | None, int]:
    """The first row of a ``csv.reader`` that is not empty, and the line where it begins."""
    line = 1
    for cells in rows:
        if cells:
            return cells, line
        line = rows.line_num + 1
    return None, line


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
        missing = [name for name in columns.names if name not in found]
        if missing:
            problems.add(f"{path}{at} must have {missing[0]!r}, got {named(list(found))}")
            continue
        yield from check(str(path), at, columns.text_of(found), found[columns.label], problems)


def _parquet(path: Path, columns: Columns, problems: Problems, check: RowCheck) -> Iterator[Row]:
    try:
        table = ParquetTable(path)
        if not _has_columns(path, table.names, columns, problems):
            return
        for number, values in enumerate(table.lists(columns.names)):
            cells = dict(zip(columns.names, values, strict=True))
            at, text = f", row {number},", columns.text_of(cells)
            yield from check(str(path), at, text, cells[columns.label], problems)
    except ValueError as error:
        problems.add(str(error))


def _has_columns(
    path: Path,
    names: list[str],
    columns: Columns,
    problems: Problems,
    first: Sequence[str] | None = None,
) -> bool:
    """Whether ``columns`` are among ``names``; ``first`` is the line that they were read from."""
    missing = [name for name in columns.names if name not in names]
    for name in missing:
        hint = "" if first is None or columns.header else header_hint(first, name)
        problems.add(f"{path} must have a column {name!r}, got {named(names)}{hint}")
    twice = [name for name in columns.names if names.count(name) > 1]
    for name in twice:
        problems.add(f"{path} must have one column {name!r}, got {names.count(name)}")
    return not missing and not twice
