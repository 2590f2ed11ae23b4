"""Pairs of a sentence and its translation, from two files line by line or from a table.

A source of pairs is ``{source: train.en, target: train.de}``, whose lines belong together, or one
table (``nas.tasks.base.tables``) with a column for each side. Text is UTF-8. What is wrong with a
pair is added to the problems with its file and line, and reading goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nas.tasks.base.columns import Columns
from nas.tasks.base.problems import Problems, shown
from nas.tasks.base.tables import TABLES, Row, read_rows, read_text

SIDES = ("source", "target")


class Pair(NamedTuple):
    """A sentence and its translation; ``place`` says where they stand to people."""

    place: str
    source: str
    target: str


def read_pairs(given: Any, columns: Columns, problems: Problems) -> list[Pair]:
    """The pairs of ``given``, a table's path or the paths of both sides.

    What is wrong with them is added to the problems.
    """
    if isinstance(given, Mapping):
        if given.keys() != set(SIDES):
            problems.add(f"data must be given as {{source: FILE, target: FILE}}, got {given}")
            return []
        return list(_lines(Path(given["source"]), Path(given["target"]), problems))
    if given.suffix.lower() not in TABLES:
        problems.add(
            f"{given} must be a table ({', '.join(TABLES)}), or given as "
            f"{{source: FILE, target: FILE}}"
        )
        return []
    rows = read_rows(given, columns, problems, _checked)
    return [Pair(row.place, row.text, str(row.label)) for row in rows]


def files_of(given: Any) -> list[Path]:
    """The files that a source of pairs reads."""
    return list(given.values()) if isinstance(given, Mapping) else [given]


def _lines(source: Path, target: Path, problems: Problems) -> Iterator[Pair]:
    texts = []
    for path in (source, target):
        text = None if path.is_dir() else read_text(path, problems)
        if path.is_dir():
            problems.add(f"{path} must be a file of lines, and is a folder")
        # Only real line ends: texts may hold other characters that str.splitlines would cut at.
        texts.append(None if text is None else [line.strip() for line in text.split("\n")])
    if texts[0] is None or texts[1] is None:
        return
    for lines in texts:
        # What follows the last line end is no line.
        if lines and not lines[-1]:
            lines.pop()
    if len(texts[0]) != len(texts[1]):
        problems.add(
            f"{target} must have a line for each of {source}, got {len(texts[1])} for "
            f"{len(texts[0])}"
        )
        return
    if not texts[0]:
        problems.add(f"{source} must have a line or more, and has none")
    for number, (ours, theirs) in enumerate(zip(*texts, strict=True), start=1):
        if not ours and not theirs:
            continue
        for path, line in ((source, ours), (target, theirs)):
            if not line:
                problems.add(f"{path}:{number} must have a text, and it is empty")
        if ours and theirs:
            yield Pair(f"{source}:{number}", ours, theirs)


def _checked(where: str, at: str, text: Any, label: Any, problems: Problems) -> Iterator[Row]:
    """As ``tables.check_row``, where both are texts."""
    for side, value in zip(SIDES, (text, label), strict=True):
        if not isinstance(value, str):
            problems.add(f"{where}{at} must have a {side} that is a text, got {shown(value)}")
            return
        if not value.strip():
            problems.add(f"{where}{at} must have a {side}, and it is empty")
            return
        try:
            value.encode()
        except UnicodeEncodeError:
            # JSON may name half of a character, which is no text anywhere else.
            problems.add(f"{where}{at} must be UTF-8 text, got half of a character (a surrogate)")
            return
    yield Row(where, at, text.strip(), label.strip())
