"""Fingerprints: hashes of a run's inputs, by which a resumed search detects changes.

They cover the space's canonical form, the task's YAML file with all files and folders that it
names, and the bytes of other user files (a space, a plug-in). A missing file is no change: code
that needs it raises its own error, and copies in the run directory do not need it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.records.config import SearchConfig
from nas.tasks.base.task_file import read_task_file
from nas.tasks.registry import is_task_file
from search_spaces.space import SearchSpace

# In longer files only this many evenly spread blocks are read, including the first and the last:
# reading all of a large data set takes minutes.
_BLOCK_BYTES, _BLOCKS = 1 << 20, 64
# In larger folders only the first files by name are listed.
_MOST_FILES = 10_000
_SPACE = "space"
_TASK_FILE, _DATA = "task file", "data of the task"
# Hash of a task file with its data's contents in place of their paths: a move does not change it.
_CONTENTS = "task contents"
# Keys of a task file whose values are names and never paths.
_NAMES = ("name", "kind")


def fingerprints(config: SearchConfig, files: Iterable[Path] = ()) -> dict[str, str]:
    """Return hashes of all inputs of a run of ``config``, by ``kind: path``.

    ``files`` are user files that ``config`` does not contain.
    """
    digests = {_SPACE: _of_space(config.space)}
    digests |= {f"file: {path.resolve()}": _of_path(path) for path in files if path.exists()}
    path = Path(config.task).resolve()
    if is_task_file(config.task) and path.exists():
        digests |= _of_task(path)
    return digests


def moved_task(
    folder: Path, recorded: Mapping[str, str], before: Path, now: Path
) -> dict[str, str]:
    """Return the fingerprints ``recorded`` of the run in ``folder`` with its task file at ``now``.

    Only the paths to data may have been changed in the task file.

    Raises:
        ValueError: the task or its data have changed; the message names the file.
    """
    if not now.is_file():
        raise ValueError(f"task must be where the task file of run {folder} is now, got {now}")
    digests = _of_task(now)
    contents = recorded.get(_CONTENTS)
    if contents is None:
        raise ValueError(f"run {folder} has no fingerprint of its task file, which was missing")
    if digests[_CONTENTS] != contents:
        raise ValueError(
            f"{_differing(recorded, before, now)} of run {folder}, and new trials would not be "
            f"comparable: --task must name the same task on the same data"
        )
    prefixes = (f"{_TASK_FILE}: ", f"{_DATA}: ", _CONTENTS)
    return {k: v for k, v in recorded.items() if not k.startswith(prefixes)} | digests


def _differing(recorded: Mapping[str, str], before: Path, now: Path) -> str:
    """Describe the file at the new path that differs from the run's original one."""
    for label, digest in recorded.items():
        kind, _, name = label.partition(": ")
        if kind != _DATA:
            continue
        moved = (now.parent / os.path.relpath(name, before.parent)).resolve()
        path = moved if moved.exists() else Path(name)
        if not path.exists():
            return f"data {moved} must exist, as {name} did before: they are the data"
        if _of_path(path) != digest:
            return f"data {path} differ from {name}, the data"
    return f"task file {now} differs from {before}, the task file"


def _of_task(path: Path) -> dict[str, str]:
    data = {data: _of_path(data) for data in _named_in(path)}
    options = read_task_file(path, default_kind="")
    text = json.dumps(
        [options.kind, _with_contents(dict(options.options), path.parent, data)],
        sort_keys=True,
        default=str,
    )
    return {
        f"{_TASK_FILE}: {path}": _of_path(path),
        **{f"{_DATA}: {each}": digest for each, digest in data.items()},
        _CONTENTS: hashlib.sha256(text.encode()).hexdigest(),
    }


def _with_contents(value: Any, parent: Path, data: Mapping[Path, str]) -> Any:
    """Return ``value`` of a task file with content hashes in place of paths to data."""
    if isinstance(value, str):
        return data.get(_existing(parent, value) or parent, value)
    if isinstance(value, Mapping):
        return {str(key): _with_contents(each, parent, data) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_contents(each, parent, data) for each in value]
    return value


def check_unchanged(folder: Path, space: SearchSpace, recorded: Mapping[str, str]) -> None:
    """Check that the inputs of the run in ``folder`` have not changed since its start.

    Raises:
        ValueError: an input differs from its ``recorded`` hash; the message names the input.
    """
    for label, expected in recorded.items():
        if label == _CONTENTS:
            # The task file and its data are compared one by one.
            continue
        if label == _SPACE:
            what, digest = f"the space in {folder}", _of_space(space)
        else:
            kind, _, name = label.partition(": ")
            path = Path(name)
            if not path.exists():
                continue
            what, digest = f"the {kind} {path}", _of_path(path)
        if digest != expected:
            raise ValueError(
                f"{what} has changed since run {folder} began, and new trials would not be "
                f"comparable: restore it, or start a new run with nas search"
            )


def task_contents(path: Path) -> str:
    """Return a hash of a task file with its data's contents in place of their paths.

    Raises:
        ValueError: the file is missing or no task file.
    """
    return _of_task(path)[_CONTENTS]


def digests_of(labels: Iterable[str]) -> dict[str, str]:
    """Return the hashes of files as this machine has them, by the labels of ``fingerprints``.

    Labels without a path, and files that are missing here, are left out.
    """
    paths = {label: Path(label.partition(": ")[2]) for label in labels if ": " in label}
    return {label: _of_path(path) for label, path in paths.items() if path.exists()}


def _of_space(space: SearchSpace) -> str:
    text = json.dumps(space.to_dict(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _of_path(path: Path) -> str:
    digest = hashlib.sha256()
    if path.is_dir():
        for name, size in _listing(path):
            digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()
    size = path.stat().st_size
    digest.update(f"{size}\n".encode())
    with path.open("rb") as handle:
        if size <= _BLOCKS * _BLOCK_BYTES:
            starts: Iterable[int] = range(0, size, _BLOCK_BYTES)
        else:
            last = size - _BLOCK_BYTES
            starts = [index * last // (_BLOCKS - 1) for index in range(_BLOCKS)]
        for start in starts:
            handle.seek(start)
            digest.update(handle.read(_BLOCK_BYTES))
    return digest.hexdigest()


def _listing(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the names and sizes of the files below ``folder``, in order."""
    n_files = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            yield str(path.relative_to(folder)), path.stat().st_size if path.is_file() else -1
            n_files += 1
            if n_files >= _MOST_FILES:
                return


def _named_in(task_file: Path) -> list[Path]:
    """Return the files and folders that a task file names, under any key."""
    options = read_task_file(task_file, default_kind="").options
    words = _texts({key: value for key, value in options.items() if key not in _NAMES})
    paths = {path for word in words if (path := _existing(task_file.parent, word)) is not None}
    # Parents of the task file are no data, e.g. with the value ".".
    return sorted(path for path in paths if path not in task_file.parents)


def _existing(parent: Path, word: str) -> Path | None:
    try:
        path = (parent / word).resolve()
        return path if word and path.exists() else None
    except (OSError, ValueError):
        # The text is no path: it is too long or contains a NUL.
        return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
