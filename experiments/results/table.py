"""A table whose rows are plain values and whose columns say how they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.cli.output.tables import render_columns

Value = str | int | float | bool | None

# ``str.format`` also follows attributes and pads without bound: only this much of it is allowed.
_FIELD = re.compile(r"\{([a-z][a-z0-9_]*)(?::(\+?,?(?:\.\d)?[dfge%]?))?\}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Column:
    """``cell`` is a text with fields of a row, such as ``{tau:.3f} [{low:.3f}, {high:.3f}]``.

    A cell of which a field has no value is empty; truth values read *yes* and *no*.
    """

    head: str
    cell: str

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            ValueError: the cell has no field, or something that is none.
        """
        if not self.fields or set(_FIELD.sub("", self.cell)) & set("{}"):
            raise ValueError(
                f"cell must have fields such as {{tau:.3f}} and no other braces, got {self.cell!r}"
            )
        if not isinstance(self.head, str) or set(self.head + self.cell) & set("|\n\r"):
            raise ValueError(
                f"head and cell must be one line without '|', got {self.head!r} and {self.cell!r}"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """The names that the cell reads."""
        return tuple(found.group(1) for found in _FIELD.finditer(self.cell))

    def show(self, row: Mapping[str, Value]) -> str:
        """The cell of one row."""
        if any(row[name] is None for name in self.fields):
            return ""
        return _FIELD.sub(lambda found: _shown(row[found.group(1)], found.group(2)), self.cell)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by the names of their values, all with the same names; ``note`` is a line below."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Value], ...]
    note: str = ""

    def __post_init__(self) -> None:
        """Check that every cell can be shown.

        Raises:
            ValueError: a field is wrong; the message names it, its value and what is allowed.
        """
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be words in small letters, got {self.name!r}")
        if not self.columns or not self.rows:
            raise ValueError(f"{self.name} must have columns and rows")
        names = set(self.rows[0])
        for row in self.rows:
            if set(row) != names:
                raise ValueError(
                    f"rows of {self.name} must all have {sorted(names)}, got {sorted(row)}"
                )
            for key, value in row.items():
                if not isinstance(value, Value) or (
                    isinstance(value, float) and not math.isfinite(value)
                ):
                    raise ValueError(f"{key} must be text, a finite number or none, got {value!r}")
        for column in self.columns:
            unknown = sorted(set(column.fields) - names)
            if unknown:
                raise ValueError(f"cell must read of {sorted(names)}, got {', '.join(unknown)}")
            for row in self.rows:
                column.show(row)

    @classmethod
    def of(
        cls,
        name: str,
        columns: Mapping[str, str],
        rows: Sequence[Mapping[str, Any]],
        note: str = "",
    ) -> Table:
        """A table of columns by their heads; numbers of numpy become Python's."""
        return cls(
            name,
            tuple(Column(head, cell) for head, cell in columns.items()),
            tuple({key: _plain(value) for key, value in row.items()} for row in rows),
            note,
        )

    def text(self) -> str:
        """Aligned columns for a terminal."""
        lines = render_columns([c.head for c in self.columns], self._cells(), self._numbers())
        return f"{lines}\n{self.note}" if self.note else lines

    def markdown(self) -> str:
        """The table in Markdown; numbers stand to the right."""
        numbers = self._numbers()
        rules = ["---:" if i in numbers else "---" for i in range(len(self.columns))]
        rows = [[c.head for c in self.columns], rules, *self._cells()]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([*lines, "", self.note] if self.note else lines)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "columns": [{"head": c.head, "cell": c.cell} for c in self.columns],
            "rows": [dict(row) for row in self.rows],
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Table:
        """What ``to_dict`` gave."""
        columns = tuple(Column(**column) for column in data["columns"])
        return cls(data["name"], columns, tuple(data["rows"]), data["note"])

    def _cells(self) -> list[list[str]]:
        return [[column.show(row) for column in self.columns] for row in self.rows]

    def _numbers(self) -> set[int]:
        return {
            i
            for i, column in enumerate(self.columns)
            if all(
                isinstance(row[column.fields[0]], int | float | None)
                and not isinstance(row[column.fields[0]], bool)
                for row in self.rows
            )
        }


def _plain(value: Any) -> Any:
    return value.item() if type(value).__module__ == "numpy" else value


def _shown(value: Value, form: str | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        # A bar would end the cell.
        return value.replace("|", "/")
    return format(value, form or "")
