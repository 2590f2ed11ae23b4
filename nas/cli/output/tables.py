"""Tables as aligned columns, CSV or Markdown, and results as text or JSON."""

from __future__ import annotations

import argparse
import csv
import html
import io
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from nas.core.names import printable


def print_result(data: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a verb's result: ``data`` as one JSON object, or ``text``."""
    print(json.dumps(data, allow_nan=False) if as_json else text)


class Table(NamedTuple):
    """Head and rows; columns with an index in ``right`` are aligned right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int] = ()


def print_table(
    arguments: argparse.Namespace,
    data: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    table: Table | None,
    text: str,
) -> None:
    """Print ``data``, ``records`` or ``table`` with ``--json``, ``--csv`` or ``--markdown``.

    Without one of them, or with ``--markdown`` and no table, print ``text``.
    """
    if arguments.csv:
        print(render_csv(records), end="")
    elif arguments.markdown and table is not None:
        print(render_markdown(*table))
    else:
        print_result(data, text, as_json=arguments.json)


def render_columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> str:
    """Render head, rule and rows; columns with an index in ``right`` are aligned right."""
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def render_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a header and one line per row; empty if there are no rows."""
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _csv_cell(cell) for name, cell in row.items()} for row in rows)
    return out.getvalue()


def render_markdown(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> str:
    """Return a Markdown table; columns with an index in ``right`` are aligned right."""
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    cells = [[_markdown_cell(cell) for cell in row] for row in (head, *rows)]
    cells.insert(1, rule)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _csv_cell(cell: Any) -> Any:
    """Return ``cell``, escaped if a spreadsheet would read its text as a formula."""
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _markdown_cell(cell: str) -> str:
    """Return a Markdown cell with HTML, pipes and backquotes escaped."""
    text = html.escape(printable(cell), quote=False)
    return re.sub(r"[\\|`]", r"\\\g<0>", text)
