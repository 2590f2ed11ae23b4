"""Escape text for Markdown, so that none of it becomes a heading, link, HTML or formula."""

from __future__ import annotations

import re

from nas.core.names import printable

# Characters with a meaning within a line of Markdown or its usual extensions.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|(?<!\S)#")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def plain(text: object) -> str:
    """Escape ``text`` for a line or a table's cell."""
    line = re.sub(r"[&<>]", lambda found: _HTML[found[0]], printable(str(text)))
    return _SPECIAL.sub(r"\\\g<0>", line)


def code(text: object) -> str:
    """Return ``text`` as inline code, which a run of backticks in it cannot end."""
    line = printable(str(text)).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{line}{space}{fence}"


def comment(text: object) -> str:
    """Escape ``text`` for a comment of one line within a block of code."""
    return printable(str(text)).replace("```", "'''")
