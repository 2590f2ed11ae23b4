"""Escape text for Markdown, so that it cannot become a heading, link, HTML or formula."""

from __future__ import annotations

import re

from nas.core.names import printable

# Characters with a meaning within a line of Markdown or its usual extensions.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|(?<!\S)#")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def plain(text: object) -> str:
    """Escape ``text`` for a line or a table's cell."""
    line = re.sub(r"[&<>]", lambda match: _HTML[match[0]], printable(str(text)))
    return _SPECIAL.sub(r"\\\g<0>", line)


def code(text: object) -> str:
    """Return ``text`` as inline code, with a fence longer than any run of backticks in it."""
    line = printable(str(text)).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{line}{space}{fence}"


def comment(text: object) -> str:
    """Escape ``text`` for a one-line comment within a code block."""
    return printable(str(text)).replace("```", "'''")
