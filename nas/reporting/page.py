"""The page as text: data, style and script in one file, safe against names with markup.

Data is in a script element of a type that browsers do not run, with all characters escaped that
could end the element. The page's script creates text nodes only. The content security policy
allows that script and that style by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from nas.charts.chart import COLOURS
from nas.core.files import write_atomic

# In order: each uses the ones before it.
SCRIPTS = ("chart.js", "panels.js", "app.js")
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def render_page(data: Mapping[str, Any], *, live: bool = False) -> str:
    """Return the whole page; a ``live`` one polls its server for ``data.json``."""
    style, script = _style(), _script()
    title = html.escape(f"{data['run']}: quality and joules")
    return _TEMPLATE.format(
        policy=content_policy(live=live),
        title=title,
        style=style,
        live="yes" if live else "no",
        body=asset("page.html"),
        data=embedded(data),
        script=script,
    )


def write_page(data: Mapping[str, Any], path: Path) -> None:
    """Write the page to ``path``, whole or not at all.

    Raises:
        ValueError: it cannot be written.
    """
    text = render_page(data)
    try:
        write_atomic(path, lambda part: _write(part, text))
    except OSError as error:
        raise ValueError(f"page {path} must be writable: {error.strerror}") from None


def embedded(data: Mapping[str, Any]) -> str:
    """Return JSON that is safe inside an element: no character can begin or end one."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def content_policy(*, live: bool) -> str:
    """Return the policy: our script, our style, and requests for data if the page is live."""
    connect = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src '{_hash(_script())}'; "
        f"style-src '{_hash(_style())}'; connect-src {connect}; base-uri 'none'; "
        f"form-action 'none'"
    )


@cache
def asset(name: str) -> str:
    """Return the text of an asset of the page."""
    return (files("nas.reporting") / "assets" / name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    """Return the style sheet, with a rule for each role's colour on light and dark paper."""
    light, dark = (
        "\n".join(f".role-{role} {{ --mark: {colour}; }}" for role, colour in colours)
        for colours in (
            [(role, colour.light) for role, colour in COLOURS.items()],
            [(role, colour.dark) for role, colour in COLOURS.items()],
        )
    )
    return f"{asset('page.css')}{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


@cache
def _script() -> str:
    parts = "\n".join(asset(name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}\n}})();'


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


_TEMPLATE = """<!DOCTYPE html>
<html lang="en" data-live="{live}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
