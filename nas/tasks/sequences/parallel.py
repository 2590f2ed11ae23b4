"""Pairs of a text and its target, from two files line by line or from a table.

A source of pairs is ``{source: train.en, target: train.de}``, whose lines belong together, or one
table (``nas.tasks.base.tables``) with a column for each. Text is UTF-8. An error of a pair is
added to the problems with its file and line, and reading continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.tasks.base.columns import Columns
from nas.tasks.base.problems import Problems
from nas.tasks.base.tables import TABLES, Row, check_text, read_rows, read_text

SIDES = ("source", "target")
# A ``Row`` whose label is the target.
Pair = Row


def read_pairs(source: Any, columns: Columns, problems: Problems) -> list[Pair]:
    """Read the pairs of ``source``, a table's path or the paths of both sides."""
    if isinstance(source, Mapping):
        if source.keys() != set(SIDES):
            problems.add(f"data must be given as {{source: FILE, target: FILE}}, got {source}")
            return []
        return list(_lines(Path(source["source"]), Path(source["target"]), problems))
    if source.suffix.lower() not in TABLES:
        problems.add(
            f"{source} must be a table ({', '.join(TABLES)}), or given as "
            f"{{source: FILE, target: FILE}}"
        )
        return []

    def check(place: str, text: Any, target: Any) -> Pair:
        for side, value in zip(SIDES, (text, target), strict=True):
            check_text(value, side)
        return Pair(place, text.strip(), target.strip())

    return read_rows(source, columns, problems, check)


def _lines(source: Path, target: Path, problems: Problems) -> Iterator[Pair]:
    texts = []
    for path in (source, target):
        if path.is_dir():
            problems.add(f"{path} must be a file of lines, and is a folder")
            continue
        text = read_text(path, problems)
        if text is not None:
            # Only real line ends: texts may hold others that str.splitlines would cut at. The
            # last line end begins no line.
            texts.append(
                [line.strip() for line in text.removesuffix("\n").split("\n")] if text else []
            )
    if len(texts) < 2:
        return
    if len(texts[0]) != len(texts[1]):
        problems.add(
            f"{target} must have a line for each of {source}, got {len(texts[1])} for "
            f"{len(texts[0])}"
        )
        return
    if not texts[0]:
        problems.add(f"{source} must have a line or more, and has none")
    for number, lines in enumerate(zip(*texts, strict=True), start=1):
        for path, line in zip((source, target), lines, strict=True):
            if not line and any(lines):
                problems.add(f"{path}:{number} must have a text, and it is empty")
        if all(lines):
            yield Pair(f"{source}:{number}", *lines)
