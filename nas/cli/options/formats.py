"""Output formats: aligned columns, JSON, CSV or Markdown."""

from __future__ import annotations

import argparse
import csv
import html
import io
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nas.cli.options.common import add_json
from nas.core.names import printable


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Add the exclusive options; the default is aligned columns."""
    form = parser.add_mutually_exclusive_group()
    add_json(form)
    form.add_argument("--csv", action="store_true", help="print the result as CSV")
    form.add_argument(
        "--markdown", action="store_true", help="print the result as a Markdown table"
    )


def render_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a header and one line per row; empty if there are no rows."""
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _inert(cell) for name, cell in row.items()} for row in rows)
    return out.getvalue()


def render_markdown(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> str:
    """Return a Markdown table; columns with an index in ``right`` are aligned right."""
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    cells = [[_plain(cell) for cell in row] for row in (head, *rows)]
    cells.insert(1, rule)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _inert(cell: Any) -> Any:
    """Return ``cell``, escaped if a spreadsheet would read its text as a formula."""
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _plain(cell: str) -> str:
    """Return a Markdown cell with HTML, pipes and backquotes escaped."""
    text = html.escape(printable(cell), quote=False)
    return re.sub(r"[\\|`]", r"\\\g<0>", text)
