"""Rows of a user's tables: a text and a label each, from CSV, TSV, JSONL, Parquet or plain lines.

``.csv`` and ``.tsv`` have a first line that names the columns, unless the task file names them;
``.jsonl`` (or ``.ndjson``) has an object a line. Any other file has a line ``label text`` or
``label<TAB>text`` for each row. Text is UTF-8. An error of a row is added to the problems with its
file and row, and reading continues.
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

# Characters of a cell; at its own limit csv would end the whole file.
_LONGEST_CELL = 2**24
_DELIMITED = (".csv", ".tsv")
_JSON_LINES = (".jsonl", ".ndjson")
# Endings of files that have columns.
TABLES = (*_DELIMITED, *_JSON_LINES, ".parquet")


# The place, text and label of a row, not validated.
Cells = tuple[str, Any, Any]


class Row(NamedTuple):
    """A text and its label; ``place`` is the file and row, for messages."""

    place: str
    text: str
    label: str | int


# Makes a row from its place, text and label, or raises ``ValueError``.
RowCheck = Callable[[str, Any, Any], Row]


def check_row(place: str, text: Any, label: Any) -> Row:
    """Make a row; raises ``ValueError`` if its text or label is invalid."""
    check_text(text, "text")
    parsed = check_label(label)
    if isinstance(parsed, BadLabel):
        raise ValueError(parsed.why)
    check_text(str(parsed), "label")
    return Row(place, text, parsed)


def check_text(text: Any, noun: str) -> None:
    """Raise ``ValueError`` unless ``text`` is a text that is not empty."""
    if not isinstance(text, str):
        kind = noun if noun == "text" else f"{noun} that is a text"
        raise ValueError(f"must have a {kind}, got {shown(text)}")
    if not text.strip():
        raise ValueError(f"must have a {noun}, and it is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        # JSON may name half of a character, which is no text anywhere else.
        raise ValueError("must be UTF-8 text, got half of a character (a surrogate)") from None


def read_rows(
    path: Path, columns: Columns, problems: Problems, check: RowCheck = check_row
) -> list[Row]:
    """Read the rows of the file at ``path``; errors are added to ``problems``."""
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
    cells = _parquet(path, columns, problems) if suffix == ".parquet" else None
    if cells is None:
        text = read_text(path, problems)
        if text is None:
            return []
        if suffix in _DELIMITED:
            cells = _delimited(path, text, columns, problems)
        elif suffix in _JSON_LINES:
            cells = _json_lines(path, text, columns, problems)
        else:
            cells = _lines(path, text, problems)
    rows = []
    for place, row_text, label in cells:
        try:
            rows.append(check(place, row_text, label))
        except ValueError as error:
            problems.add(f"{place} {error}")
    if not rows and len(problems) == before:
        problems.add(
            f"text file {path} must have a row of a "
            f"{' and a '.join(dict.fromkeys((columns.label, ' and '.join(columns.texts))))} or "
            f"more, and has none"
        )
    return rows


def read_text(path: Path, problems: Problems, *, may_be_empty: bool = True) -> str | None:
    """Read the UTF-8 file at ``path``; ``None`` after adding to ``problems`` why it is none."""
    try:
        check_size(max(int(may_be_empty), path.stat().st_size), MAX_TEXT_BYTES)
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


def _lines(path: Path, text: str, problems: Problems) -> Iterator[Cells]:
    # Only real line ends: texts may hold other characters that str.splitlines would cut at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        parts = line.split(None, 1)
        if len(parts) != 2:
            problems.add(f"{path}:{number} must be a label and a text, got {shown(line.strip())}")
            continue
        yield f"{path}:{number}", parts[1].rstrip("\r"), parts[0]


def _delimited(path: Path, text: str, columns: Columns, problems: Problems) -> Iterator[Cells]:
    usual, line = csv.field_size_limit(_LONGEST_CELL), 1
    try:
        source = io.StringIO(text, newline="")
        if path.suffix.lower() == ".tsv":
            # Quotes have no meaning in tab-separated files: a text there may begin with one.
            rows = csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(source, strict=True)
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
            place, line = f"{path}:{line}", rows.line_num + 1
            if not cells:
                continue
            if len(cells) != len(names):
                hint = separator_hint(cells)
                problems.add(f"{place} must have {len(names)} columns, got {len(cells)}{hint}")
                continue
            yield place, *columns.cells_of(dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        problems.add(f"{path}:{line} must be a row of a table: {error}")
    except ValueError as error:
        problems.add(f"{path} {error}")
    finally:
        csv.field_size_limit(usual)


def _first_row(rows: Any) -> tuple[list[str] | None, int]:
    """Read the first row that is not empty, and the line where it begins."""
    line = 1
    for cells in rows:
        if cells:
            return cells, line
        line = rows.line_num + 1
    return None, line


def _json_lines(path: Path, text: str, columns: Columns, problems: Problems) -> Iterator[Cells]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        if len(line) > _LONGEST_CELL:
            problems.add(
                f"{place} must have at most {_LONGEST_CELL:,} characters, got {len(line):,}"
            )
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            cause = "it is nested too deeply" if isinstance(error, RecursionError) else error
            problems.add(f"{place} must be a JSON object: {cause}")
            continue
        if not isinstance(data, dict):
            problems.add(f"{place} must be a JSON object, got {shown(data)}")
            continue
        missing = [name for name in columns.names if name not in data]
        if missing:
            problems.add(f"{place} must have {missing[0]!r}, got {named(list(data))}")
            continue
        yield place, *columns.cells_of(data)


def _parquet(path: Path, columns: Columns, problems: Problems) -> Iterator[Cells]:
    try:
        table = ParquetTable(path)
        if not _has_columns(path, table.names, columns, problems):
            return
        for number, values in enumerate(table.lists(columns.names)):
            cells = dict(zip(columns.names, values, strict=True))
            yield f"{path}, row {number},", *columns.cells_of(cells)
    except ValueError as error:
        problems.add(str(error))


def _has_columns(
    path: Path,
    names: list[str],
    columns: Columns,
    problems: Problems,
    first: Sequence[str] | None = None,
) -> bool:
    """Check that ``columns`` are among ``names``, which ``first`` is the line of."""
    missing = [name for name in columns.names if name not in names]
    for name in missing:
        hint = "" if first is None or columns.header else header_hint(first, name)
        problems.add(f"{path} must have a column {name!r}, got {named(names)}{hint}")
    twice = [name for name in columns.names if names.count(name) > 1]
    for name in twice:
        problems.add(f"{path} must have one column {name!r}, got {names.count(name)}")
    return not missing and not twice
