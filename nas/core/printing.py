"""What is printed where the output's encoding lacks a character.

A terminal of a Windows code page, a pipe under ``LANG=C``, or ``PYTHONIOENCODING=ascii`` has no
letter for micro or for plus-minus. Such a character is printed as what people type in its place,
and no command ends for it.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata

_NAME = "joulenas"
_INSTEAD = {
    **{
        "µ": "u",
        "μ": "u",
        "±": "+-",
        "×": "x",
        "·": "*",
        "²": "2",
        "³": "3",
        "≥": ">=",
        "≤": "<=",
    },
    **{"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "’": "'", "“": '"', "”": '"'},
    **{"━": "-", "─": "-", "│": "|", "•": "*", "°": " degrees "},
}


def print_anything() -> None:
    """Let stdout and stderr replace what their encoding lacks, from now on."""
    codecs.register_error(_NAME, _replaced)
    for stream in (sys.stdout, sys.stderr):
        # Under a test's capture, or where there is no console, a stream may be of another kind.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_NAME)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(map(_instead, error.object[error.start : error.end]))
    # What stands in for a character must not be lacking as well.
    try:
        text.encode(error.encoding)
    except UnicodeEncodeError:
        text = text.encode("ascii", "backslashreplace").decode("ascii")
    return text, error.end


def _instead(character: str) -> str:
    """What people type for ``character``: a letter without its accent, else its number."""
    if character in _INSTEAD:
        return _INSTEAD[character]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return plain or character.encode("ascii", "backslashreplace").decode("ascii")
