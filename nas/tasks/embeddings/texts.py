"""Rows of texts without labels, and pairs of texts with a score of their similarity.

Texts are lines of a plain file, or a column of a table (``nas.tasks.base.tables``). Pairs are a
table with three columns, as the STS benchmarks have them. An error of a row is added to the
problems with its file and row, and reading continues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nas.tasks.base.columns import Columns
from nas.tasks.base.problems import Problems, shown
from nas.tasks.base.tables import TABLES, Row, check_text, read_rows, read_text

# Between the texts of a pair while its row is checked: no text may contain it.
_BETWEEN = "\0"


class TextPair(NamedTuple):
    """Two texts and the score of their similarity; ``place`` is the file and row."""

    place: str
    first: str
    second: str
    score: float


def read_texts(path: Path, columns: Columns, problems: Problems) -> list[Row]:
    """Read a text from each row of a table, or from each line of another file.

    The label of a row is empty. Empty lines are skipped; an empty cell is a problem.
    """
    if path.is_dir() or path.suffix.lower() in (*TABLES, ".json") or columns.header is not None:
        return read_rows(path, columns, problems, _checked_text)
    text = read_text(path, problems)
    if text is None:
        return []
    # Only real line ends: texts may hold other characters that str.splitlines would cut at.
    lines = [line.strip() for line in text.split("\n")]
    rows = [Row(f"{path}:{at}", line, "") for at, line in enumerate(lines, start=1) if line]
    if not rows:
        problems.add(f"text file {path} must have a line of text or more, and has none")
    return rows


def read_text_pairs(path: Path, names: Sequence[str], problems: Problems) -> list[TextPair]:
    """Read pairs from the table at ``path``; ``names`` are the columns of texts and score."""
    if path.is_file() and path.suffix.lower() not in TABLES:
        problems.add(f"{path} must be a table ({', '.join(TABLES)}) of pairs of texts")
        return []
    first, second, score = names
    columns = Columns((first, second), score, separator=_BETWEEN)
    pairs = []
    for row in read_rows(path, columns, problems, _checked_pair):
        one, other = row.text.split(_BETWEEN)
        pairs.append(TextPair(row.place, one, other, float(row.label)))
    return pairs


def _checked_text(place: str, text: Any, _: Any) -> Row:
    check_text(text, "text")
    return Row(place, text.strip(), "")


def _checked_pair(place: str, texts: Any, score: Any) -> Row:
    check_text(texts, "text")
    n = texts.count(_BETWEEN) + 1
    if n != 2:
        raise ValueError(f"must have two texts, got {'one' if n == 1 else n}")
    try:
        number = math.nan if isinstance(score, bool) else float(score)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"must have a score that is a finite number, got {shown(score)}")
    return Row(place, texts, repr(number))
