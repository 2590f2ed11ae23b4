"""Aligned columns for terminals."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nas.core.names import printable


def render_columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> str:
    """Render head, rule and rows; columns with an index in ``right`` are aligned right."""
    head, rows = _plain(head), [_plain(row) for row in rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _plain(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(printable, row))
