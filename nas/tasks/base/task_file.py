"""The YAML file that describes a user's task: read safely, with its problems named.

Every such file has a ``name`` and a ``kind``, which says what the data are; the other keys belong
to the kind, whose class checks them. Paths in it are relative to the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core.plain_yaml import read_yaml

_MAX_YAML_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class TaskFile:
    """What ``path`` says: its keys but ``kind``, not checked further."""

    path: Path
    kind: str
    options: Mapping[str, Any]

    def check_keys(self, *, allowed: Iterable[str], required: Collection[str] = ()) -> None:
        """Raise ``ValueError`` unless every key is allowed and every required one is there."""
        names = list(allowed)
        unknown = [str(key) for key in self.options if key not in names]
        missing = [key for key in required if key not in self.options]
        if unknown or missing:
            what = f"unknown key {unknown[0]!r}" if unknown else f"no {missing[0]}"
            raise ValueError(f"has {what}; allowed: kind, {', '.join(names)}")

    def given(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those of ``keys`` that are there, with their values."""
        return {key: self.options[key] for key in keys if key in self.options}

    def given_with_tokenizer(
        self, keys: Iterable[str], *, learnt: Collection[str]
    ) -> dict[str, Any]:
        """As ``given``, the value of ``tokenizer`` as a path.

        Raises:
            ValueError: there is a tokenizer, and one of ``learnt``, which say how to learn one.
        """
        given = self.given(keys)
        if "tokenizer" in given:
            other = [key for key in given if key in learnt]
            if other:
                raise ValueError(f"must have tokenizer or {other[0]}, got both")
            given["tokenizer"] = self.data_path("tokenizer")
        return given

    def check_paths(self, keys: Iterable[str]) -> None:
        """Raise ``ValueError`` unless what is under those of ``keys`` that are there are paths."""
        for key in self.given(keys):
            self.data_path(key)

    def data_path(self, key: str) -> Path:
        """The path under ``key``, which may be relative to the file.

        Raises:
            ValueError: it is not a path, or one of neither a file nor a folder.
        """
        value = self.options[key]
        if not isinstance(value, str) or not value:
            raise ValueError(f"{key} must be a path, got {value!r}")
        path = (self.path.parent / value).resolve()
        if path.exists() and not (path.is_file() or path.is_dir()):
            # A device or pipe may have no end.
            raise ValueError(f"{key} must be a file or folder, got {value!r}")
        return path


def check_whole_numbers(options: object, least: Mapping[str, int], *, most: int = 2**24) -> None:
    """Raise ``ValueError`` unless each field of ``options`` is a whole number of at least that."""
    for name, smallest in least.items():
        value = getattr(options, name)
        if type(value) is not int or not smallest <= value <= most:
            raise ValueError(f"{name} must be an integer in {smallest}..{most}, got {value!r}")


def read_task_file(path: Path, *, default_kind: str) -> TaskFile:
    """Read the YAML file at ``path``.

    Raises:
        ValueError: the file is missing, too large, not YAML, or not a mapping with a kind that is
            text; one line that says what is wrong.
    """
    data = read_yaml(path, max_bytes=_MAX_YAML_BYTES)
    if not isinstance(data, dict):
        raise ValueError("must be a mapping with the keys name and kind, and those of the kind")
    kind = data.pop("kind", default_kind)
    if not isinstance(kind, str):
        raise ValueError(f"kind must be a name, got {kind!r}")
    return TaskFile(path, kind, data)
