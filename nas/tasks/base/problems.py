"""Problems of a task's data, collected and reported at once.

``nas check-data`` prints all of them; any other command the first, and how many follow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nas.tasks.base.skipped import Skipped

_MOST = 1000
_SHOWN = 40
_MOST_NAMES, _LONGEST_NAMES = 20, 200


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
