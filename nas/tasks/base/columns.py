"""The columns of tables that have a task's texts and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nas.tasks.base.task_file import TaskFile

# A cell of so many words is a sentence, not a column's name.
_MANY_WORDS = 4


class Columns(NamedTuple):
    """Names of the columns that hold texts and labels.

    Several columns of texts are joined by ``separator``. ``header`` names all columns of tables
    whose first line does not.
    """

    text: str | tuple[str, ...] = "text"
    label: str = "label"
    header: tuple[str, ...] | None = None
    separator: str = " "

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of texts."""
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, each once."""
        return tuple(dict.fromkeys((*self.texts, self.label)))

    def cells_of(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return the text of a row, joined if it has several columns, and the label."""
        if isinstance(self.text, str):
            return cells[self.text], cells[self.label]
        parts = [cells[name] for name in self.text]
        return join_texts(parts, self.separator), cells[self.label]


# Keys of a task file.
COLUMN_KEYS = ("text", "label", "columns", "separator")


def join_texts(parts: Sequence[Any], separator: str) -> Any:
    """Join texts, without empty ones; if one is no text, return it."""
    for part in parts:
        if part is not None and not isinstance(part, str):
            return part
    return separator.join(part.strip() for part in parts if part and part.strip())


class TextColumns(NamedTuple):
    """Columns whose texts an artifact joins to one."""

    names: tuple[str, ...]
    separator: str

    @classmethod
    def of(cls, names: Any, separator: Any, where: str) -> TextColumns:
        """Parse the columns in a file of an artifact; raises ``ValueError``."""
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"texts in {where} must be names of columns, got {names!r}")
        if not isinstance(separator, str):
            raise ValueError(f"separator in {where} must be a text, got {separator!r}")
        return cls(tuple(names), separator)

    def joined(self, samples: Sequence[Any]) -> list[str]:
        """Return one text of each sample, which is a text or has the texts of the columns.

        Raises:
            ValueError: a sample is neither, or lacks a column.
        """
        return [self._one(number, sample) for number, sample in enumerate(samples)]

    def _one(self, number: int, sample: Any) -> str:
        if isinstance(sample, str):
            return sample
        if isinstance(sample, Mapping) and all(name in sample for name in self.names):
            parts = [sample[name] for name in self.names]
        elif isinstance(sample, list | tuple) and len(sample) == len(self.names):
            parts = list(sample)
        else:
            raise ValueError(
                f"sample {number} must have the texts {', '.join(self.names)}, got {sample!r}"
            )
        text = join_texts(parts, self.separator)
        if not isinstance(text, str):
            raise ValueError(f"sample {number} must have texts, got {text!r}")
        return text


def columns_of(file: TaskFile, keys: tuple[str, str] = ("text", "label")) -> Columns:
    """Read the columns that a task file names under ``keys``; a key is the default name.

    Raises:
        ValueError: a name is not one, two are the same, or ``columns`` lacks one.
    """
    text_key, label_key = keys
    text, label = (file.options.get(key, key) for key in keys)
    if isinstance(text, list) and text_key == "text":
        if not text or not all(isinstance(name, str) and name for name in text):
            raise ValueError(f"{text_key} must be a column or a list of columns, got {text!r}")
        text = tuple(text)
    for key, value in ((text_key, text), (label_key, label)):
        if (
            not isinstance(value, str | tuple)
            or not value
            or (key, type(value)) == (label_key, tuple)
        ):
            raise ValueError(f"{key} must be the name of a column, got {value!r}")
    separator = file.options.get("separator", " ")
    if not isinstance(separator, str):
        raise ValueError(f"separator must be a text, got {separator!r}")
    if "separator" in file.options and not isinstance(text, tuple):
        raise ValueError(
            f"separator must be left out for one column of texts, got {separator!r} and "
            f"{text_key}: {text}"
        )
    columns = Columns(text, label, _header(file), separator)
    if len(columns.names) <= len(columns.texts) or len(set(columns.texts)) < len(columns.texts):
        shown = text if isinstance(text, str) else ", ".join(text)
        raise ValueError(
            f"{text_key} and {label_key} must be two columns, got {shown!r} for both"
            if isinstance(text, str)
            else f"{text_key} and {label_key} must name different columns, got {shown} and {label}"
        )
    for name in columns.names:
        if columns.header is not None and name not in columns.header:
            raise ValueError(f"columns must have {name!r}, got {', '.join(columns.header)}")
    return columns


def text_column_of(file: TaskFile) -> Columns:
    """Read the column of texts that a task file names under ``text``; there are no labels.

    Raises:
        ValueError: the name is not one, or ``columns`` lacks it.
    """
    text = file.options.get("text", "text")
    if not isinstance(text, str) or not text:
        raise ValueError(f"text must be the name of a column, got {text!r}")
    header = _header(file)
    if header is not None and text not in header:
        raise ValueError(f"columns must have {text!r}, got {', '.join(header)}")
    return Columns(text, text, header)


def _header(file: TaskFile) -> tuple[str, ...] | None:
    """Read the names under ``columns``, for tables whose first line is a row."""
    names = file.options.get("columns")
    if names is None:
        return None
    if (
        not isinstance(names, list)
        or len(names) < 2
        or not all(isinstance(name, str) and name for name in names)
        or len(set(names)) < len(names)
    ):
        raise ValueError(f"columns must be a list of two distinct names or more, got {names!r}")
    return tuple(names)


def header_hint(first: Sequence[str], missing: str) -> str:
    """Hint where the column ``missing`` is not in the first line, which may be data."""
    alike = [cell.strip() for cell in first if cell.strip().casefold() == missing.casefold()]
    if alike:
        return f"; {alike[0]!r} differs in case alone: name it so in the task file"
    if separated := separator_hint(first):
        return separated
    names = ", ".join(
        ["label", "text", *(f"c{i}" for i in range(3, len(first) + 1))][: len(first)]
    )
    way_out = f"name its columns in the task file, such as columns: [{names}]"
    if any(_looks_like_data(cell) for cell in first):
        return f"; its first line looks like data, not names: {way_out}"
    return f"; if its first line is data, {way_out}"


def separator_hint(cells: Sequence[str]) -> str:
    """Hint for a line of one cell that has another separator than commas."""
    if len(cells) != 1:
        return ""
    seen = [mark for mark in (";", "\t", "|") if mark in cells[0]]
    if not seen:
        return ""
    return (
        f"; its columns seem to be separated by {seen[0]!r}: save it with commas, or with tabs "
        f"as .tsv"
    )


def _looks_like_data(cell: str) -> bool:
    text = cell.strip()
    is_number = text.lstrip("+-").replace(".", "", 1).isdigit()
    return not text or is_number or len(text.split()) >= _MANY_WORDS


def is_header(first: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the first line has the names that the task file gives under ``columns``.

    Raises:
        ValueError: it has the same names in another order.
    """
    own, theirs = ([name.strip().casefold() for name in line] for line in (first, names))
    if own != theirs and sorted(own) == sorted(theirs):
        raise ValueError(
            f"has a first line that names its columns {', '.join(first)}: leave columns out, or "
            f"name them in this order, got {', '.join(names)}"
        )
    return own == theirs
