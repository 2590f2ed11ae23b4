"""Print ASCII substitutes for characters that the output's encoding lacks.

A Windows code page, a pipe under ``LANG=C``, or ``PYTHONIOENCODING=ascii`` has no micro or
plus-minus sign. Commands print the usual ASCII spelling instead of failing.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata

_NAME = "joulenas"
_SUBSTITUTES = {
    **{"µ": "u", "μ": "u", "±": "+-", "×": "x", "·": "*"},
    **{"²": "2", "³": "3", "≥": ">=", "≤": "<="},
    **{"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "’": "'", "“": '"', "”": '"'},
    **{"━": "-", "─": "-", "│": "|", "•": "*", "°": " degrees "},
}


def print_anything() -> None:
    """Configure stdout and stderr to substitute characters that their encoding lacks."""
    codecs.register_error(_NAME, _replaced)
    for stream in (sys.stdout, sys.stderr):
        # Streams captured by tests, or without a console, may have no ``reconfigure``.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_NAME)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(map(_substitute, error.object[error.start : error.end]))
    # The encoding may lack the substitute as well.
    try:
        text.encode(error.encoding)
    except UnicodeEncodeError:
        text = text.encode("ascii", "backslashreplace").decode("ascii")
    return text, error.end


def _substitute(character: str) -> str:
    """Return an ASCII substitute: a letter without its accent, else the code point."""
    if character in _SUBSTITUTES:
        return _SUBSTITUTES[character]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return plain or character.encode("ascii", "backslashreplace").decode("ascii")
