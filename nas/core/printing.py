"""Print substitutes for characters that the output's encoding lacks.

A Windows code page, a pipe under ``LANG=C``, or ``PYTHONIOENCODING=ascii`` has no micro or
plus-minus sign. Commands print what people type in place of such a character, and do not fail.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata

_NAME = "joulenas"
_INSTEAD = {
    **{"µ": "u", "μ": "u", "±": "+-", "×": "x", "·": "*"},
    **{"²": "2", "³": "3", "≥": ">=", "≤": "<="},
    **{"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "’": "'", "“": '"', "”": '"'},
    **{"━": "-", "─": "-", "│": "|", "•": "*", "°": " degrees "},
}


def print_anything() -> None:
    """Have stdout and stderr substitute characters that their encoding lacks, from now on."""
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
    # The encoding may lack the substitute as well.
    try:
        text.encode(error.encoding)
    except UnicodeEncodeError:
        text = text.encode("ascii", "backslashreplace").decode("ascii")
    return text, error.end


def _instead(character: str) -> str:
    """Return a substitute: a letter without its accent, else the character's number."""
    if character in _INSTEAD:
        return _INSTEAD[character]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return plain or character.encode("ascii", "backslashreplace").decode("ascii")
