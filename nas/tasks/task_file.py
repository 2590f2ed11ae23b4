"""The YAML file that describes a user's task: read safely, with its problems named.

Every such file has a ``name`` and a ``kind``, which says what the data are; the other keys belong
to the kind, whose class checks them. Paths in it are relative to the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.plain_yaml import read_yaml

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
