"""Validate names and other short texts on input, and escape them on output.

Tasks, labels, devices and runs may have untrusted names. Line breaks, control characters or a
change of writing direction could imitate this project's own output.
"""

from __future__ import annotations

import unicodedata
from typing import Any

# Greatest length of a name, and of a text such as a label or a device's description.
MOST_NAME, MOST_TEXT = 100, 300
# The runtime of a reading that names none.
TORCH = "torch"
# Not printable, but required between letters of some scripts.
_JOINERS = frozenset("\u200c\u200d")


def check_name(what: str, name: object, *, most: int = MOST_NAME) -> str:
    """Return ``name`` if it is one line of at most ``most`` printable characters.

    Raises:
        ValueError: ``name`` is invalid; the message begins with ``what``.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{what} must be a non-empty string, got {name!r}")
    if len(name) > most:
        raise ValueError(
            f"{what} must have at most {most} characters, got {len(name)} ({name[:20]!r}...)"
        )
    if not name.isprintable() and not all(map(_is_printable, name)):
        raise ValueError(f"{what} must be one line of printable characters, got {ascii(name)}")
    return name


def printable(text: str) -> str:
    """Return ``text`` with unprintable characters escaped as in ``repr``."""
    if text.isprintable():
        return text
    return "".join(char if _is_printable(char) else ascii(char)[1:-1] for char in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def _is_printable(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def place_of(device: str, runtime: str) -> str:
    """Return the name of a device with what runs networks there: ``AMD EPYC, onnxruntime``."""
    return device if runtime == TORCH else f"{device}, {runtime}"


def device_of(place: str, runtime: str) -> str:
    """Return the device of a place of ``place_of``."""
    return place.removesuffix(f", {runtime}")


def runtime_names(values: Any) -> tuple[str, ...]:
    """Return runtimes, each named once; a text is one name.

    Raises:
        ValueError: it is no list of names, or a name is repeated.
    """
    names = (values,) if isinstance(values, str) else values
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n for n in names):
        raise ValueError(f"runtime must be a list of runtimes, got {values!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"runtime must name each once, got {', '.join(names)}")
    return tuple(names)
