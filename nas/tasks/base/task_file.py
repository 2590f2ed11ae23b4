"""The YAML file that describes a user's task.

Every such file has a ``name`` and a ``kind``; the class of the kind checks the other keys. Paths
are relative to the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from nas.core.plain_yaml import read_yaml

_MAX_YAML_BYTES = 1_000_000
_MOST = 2**24
# Options for building a tokenizer.
_OF_TOKENIZER = ("tokens", "max_vocabulary", "lowercase", "word_letters")

Options = TypeVar("Options")


@dataclass(frozen=True, slots=True)
class TaskFile:
    """The keys of the file at ``path`` except ``kind``, not validated yet."""

    path: Path
    kind: str
    options: Mapping[str, Any]

    def check_keys(self, *, allowed: Iterable[str], required: Collection[str] = ()) -> None:
        """Raise ``ValueError`` for an unknown key or a required one that is missing."""
        names = list(allowed)
        unknown = [str(key) for key in self.options if key not in names]
        missing = [key for key in required if key not in self.options]
        if unknown or missing:
            what = f"unknown key {unknown[0]!r}" if unknown else f"no {missing[0]}"
            raise ValueError(f"has {what}; allowed: kind, {', '.join(names)}")

    def read_options(self, options_type: type[Options]) -> Options:
        """Make a dataclass of those of its fields that the file has; some fields are paths.

        Raises:
            ValueError: a value is not allowed, or it has a tokenizer and options to build one.
        """
        of_type = {field.name: str(field.type) for field in fields(options_type)}  # type: ignore[arg-type]
        values = {key: self.options[key] for key in of_type if key in self.options}
        others = [key for key in values if key in _OF_TOKENIZER]
        if "tokenizer" in values and others:
            raise ValueError(f"must have tokenizer or {others[0]}, got both")
        for key in values:
            if of_type[key].startswith("Path"):
                values[key] = self.data_path(key)
        return options_type(**values)

    def check_paths(self, keys: Iterable[str]) -> None:
        """Raise ``ValueError`` unless each of ``keys`` is a path or missing."""
        for key in keys:
            if key in self.options:
                self.data_path(key)

    def data_path(self, key: str) -> Path:
        """Return the path under ``key``, made absolute.

        Raises:
            ValueError: it is not a path, or exists and is neither a file nor a folder.
        """
        value = self.options[key]
        if not isinstance(value, str) or not value:
            raise ValueError(f"{key} must be a path, got {value!r}")
        path = (self.path.parent / value).resolve()
        if path.exists() and not (path.is_file() or path.is_dir()):
            # A device or pipe may have no end.
            raise ValueError(f"{key} must be a file or folder, got {value!r}")
        return path


def check_whole_numbers(options: object, least: Mapping[str, int]) -> None:
    """Raise ``ValueError`` unless these fields are integers of at least ``least``."""
    for name, smallest in least.items():
        value = getattr(options, name)
        if type(value) is not int or not smallest <= value <= _MOST:
            raise ValueError(f"{name} must be an integer in {smallest}..{_MOST}, got {value!r}")


def read_task_file(path: Path, *, default_kind: str) -> TaskFile:
    """Read the YAML file at ``path``.

    Raises:
        ValueError: the file is missing, too large, not YAML, or not a mapping with a kind that is
            text; one line that states what is wrong.
    """
    data = read_yaml(path, max_bytes=_MAX_YAML_BYTES)
    if not isinstance(data, dict):
        raise ValueError("must be a mapping with the keys name and kind, and those of the kind")
    kind = data.pop("kind", default_kind)
    if not isinstance(kind, str):
        raise ValueError(f"kind must be a name, got {kind!r}")
    return TaskFile(path, kind, data)
