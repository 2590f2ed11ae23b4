"""Problems of a task's data, collected and reported at once, and files that are not read.

``nas check-data`` prints all of them; any other command the first, and how many follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Files that operating systems leave in folders.
_OF_THE_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "icon\r", "__macosx"})
_MOST_LINES = 8
# How to convert common formats that are not read.
_WAYS_OUT: Mapping[str, str] = {
    **dict.fromkeys((".heic", ".heif", ".avif"), "convert them to PNG or JPEG"),
    **dict.fromkeys((".cr2", ".nef", ".arw", ".dng"), "develop them to PNG, TIFF or JPEG"),
    **dict.fromkeys((".svg", ".eps", ".ps", ".pdf"), "draw them as PNG"),
    **dict.fromkeys((".mp3", ".flac", ".ogg", ".m4a", ".opus", ".aac"), "convert them to WAV"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".7z", ".rar"), "unpack them"),
}
_OTHER_FORMAT, _UNDERSCORE = "in no format that is read", "their names begin with _"
_MOST = 1000
_SHOWN = 40
_MOST_NAMES, _LONGEST_NAMES = 20, 200


def is_hidden(path: Path) -> bool:
    """Whether a name begins with a point or an underscore."""
    return path.name[0] in "._"


@dataclass(slots=True)
class Skipped:
    """Number of files that are not read, by ending and reason."""

    _counts: dict[tuple[str, str], int] = field(default_factory=dict)
    _examples: dict[tuple[str, str], Path] = field(default_factory=dict)

    def add(self, path: Path, reason: str | None = None) -> None:
        """Count the file at ``path``, unless it is hidden or the system's."""
        if path.name[0] == "." or path.name.lower() in _OF_THE_SYSTEM:
            return
        if reason is None:
            reason = _UNDERSCORE if is_hidden(path) else _OTHER_FORMAT
        key = path.suffix.lower(), reason
        self._counts[key] = self._counts.get(key, 0) + 1
        self._examples.setdefault(key, path)

    def add_folder(self, folder: Path) -> None:
        """Count every file below a hidden ``folder``."""
        if folder.name[0] == "." or folder.name.lower() in _OF_THE_SYSTEM:
            return
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.add(path, "in a folder whose name begins with _")

    def lines(self) -> list[str]:
        """A line for each ending and reason, the most frequent first."""
        ordered = sorted(self._counts, key=lambda key: (-self._counts[key], key))
        lines = [self._line(key) for key in ordered[:_MOST_LINES]]
        if len(ordered) > _MOST_LINES:
            rest = sum(self._counts[key] for key in ordered[_MOST_LINES:])
            lines.append(f"not read: {rest:,} further files of other endings")
        return lines

    def _line(self, key: tuple[str, str]) -> str:
        suffix, reason = key
        n = self._counts[key]
        what = f"ending in {suffix}" if suffix else "without an ending"
        way_out = _WAYS_OUT.get(suffix, "")
        hint = f"; {way_out}" if way_out and reason == _OTHER_FORMAT else ""
        files = "file" if n == 1 else "files"
        return f"not read: {n:,} {files} {what} ({reason}{hint}), such as {self._examples[key]}"


class DataError(ValueError):
    """The data of a task are invalid; each of ``lines`` names a file (and a row) and its error."""

    def __init__(self, lines: tuple[str, ...], n: int) -> None:
        """``n`` is the number of problems; ``lines`` may be the first of them."""
        self.lines, self.n = lines, n
        super().__init__(lines[0] + (f" (and {n - 1} more)" if n > 1 else ""))


class Problems:
    """Lines that each name a file (and a row) and its error; ``skipped`` files are no errors."""

    def __init__(self) -> None:
        """Start empty."""
        self.skipped = Skipped()
        self._lines: list[str] = []
        self._n = 0

    def add(self, line: str) -> None:
        """Add a problem; beyond the first thousand they are only counted."""
        self._n += 1
        if self._n <= _MOST:
            self._lines.append(line)

    def __len__(self) -> int:
        """Number of problems."""
        return self._n

    def check(self) -> None:
        """Raise ``DataError`` if there are problems."""
        if self._n > _MOST:
            raise DataError((*self._lines, f"and {self._n - _MOST} more"), self._n)
        if self._n:
            raise DataError(tuple(self._lines), self._n)


def shown(value: Any) -> str:
    """Format a value for a message, cut if it is long."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def named(names: Sequence[Any]) -> str:
    """List names of columns or arrays in a message, cut if they are many or long."""
    text = ", ".join(map(str, names[:_MOST_NAMES]))
    return shown(text) if len(text) > _LONGEST_NAMES else text or "none"
