"""What is wrong with a task's data, collected so that all of it can be said at once.

``nas check-data`` says all of it; any other command the first, and how many follow. How a kind of
task contributes its problems and warnings is in ``nas.tasks.base.checks``.
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
    """The data of a task are not what they must be.

    ``lines`` name each a file (and a row) and what is wrong there; the message is the first of
    them and how many follow. ``n`` is how many problems there are.
    """

    def __init__(self, lines: tuple[str, ...], n: int) -> None:
        """``n`` is how many problems there are, of which ``lines`` are some."""
        self.lines, self.n = lines, n
        super().__init__(lines[0] + (f" (and {n - 1} more)" if n > 1 else ""))


class Problems:
    """Lines that each name a file (and a row) and what is wrong there.

    ``skipped`` counts the files that are not read, which is no problem and yet worth a word.
    """

    def __init__(self) -> None:
        """None yet."""
        self.skipped = Skipped()
        self._lines: list[str] = []
        self._n = 0

    def add(self, line: str) -> None:
        """Take up one; of very many, only the first are kept and the rest counted."""
        self._n += 1
        if self._n <= _MOST:
            self._lines.append(line)

    def __len__(self) -> int:
        """How many there are."""
        return self._n

    def check(self) -> None:
        """Raise ``DataError`` if there is any."""
        if self._n > _MOST:
            raise DataError((*self._lines, f"and {self._n - _MOST} more"), self._n)
        if self._n:
            raise DataError(tuple(self._lines), self._n)


def shown(value: Any) -> str:
    """A value for people: what is no text says so, what is long is cut."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def named(names: Sequence[Any]) -> str:
    """Names of columns or arrays for people, of very many or long ones the first."""
    text = ", ".join(map(str, names[:_MOST_NAMES]))
    return shown(text) if len(text) > _LONGEST_NAMES else text or "none"
