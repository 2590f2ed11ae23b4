"""What a run was begun with, as hashes, so that a resumed search is the same search.

Of the space its canonical form; of the task its YAML file and the files and folders that it names;
of whatever else is a user's file (a space, a plug-in) its bytes. A file that is gone is not a
change: what needs it says so itself, and what the run folder has kept needs it no more.
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

# Of longer files this many blocks are read, evenly spread, the first and the last among them:
# reading all of a large data set would keep a search waiting for minutes.
_BLOCK_BYTES, _BLOCKS = 1 << 20, 64
# Of folders with more files, the first ones by name are listed.
_MOST_FILES = 10_000
_SPACE = "space"
_TASK_FILE, _DATA = "task file", "data of the task"
# Of a task file all but where its data are, and of those their contents: the same after a move.
_CONTENTS = "task contents"
# Keys of a task file that are names, which a file beside it may happen to have.
_NAMES = ("name", "kind")


def fingerprints(config: SearchConfig, files: Iterable[Path] = ()) -> dict[str, str]:
    """Hashes of all that a run of ``config`` depends on, by ``what it is: its path``.

    ``files`` are those of the user's that the configuration does not name by itself.
    """
    found = {_SPACE: _of_space(config.space)}
    found |= {f"file: {path.resolve()}": _of_path(path) for path in files if path.exists()}
    path = Path(config.task).resolve()
    if is_task_file(config.task) and path.exists():
        found |= _of_task(path)
    return found


def moved_task(folder: Path, kept: Mapping[str, str], before: Path, now: Path) -> dict[str, str]:
    """The fingerprints ``kept`` of the run in ``folder`` after its task file moved to ``now``.

    Paths in the file may have been changed to where its data are now, and nothing else.

    Raises:
        ValueError: task or data are others than the run began with; the message names which.
    """
    if not now.is_file():
        raise ValueError(f"task must be where the task file of run {folder} is now, got {now}")
    found = _of_task(now)
    wanted = kept.get(_CONTENTS)
    if wanted is None:
        raise ValueError(f"run {folder} has no fingerprint of its task file: it was gone")
    if found[_CONTENTS] != wanted:
        raise ValueError(
            f"{_differing(kept, before, now)} of run {folder}, whose trials would not compare: "
            f"--task must name the same task on the same data"
        )
    of_task = (f"{_TASK_FILE}: ", f"{_DATA}: ", _CONTENTS)
    return {k: v for k, v in kept.items() if not k.startswith(of_task)} | found


def _differing(kept: Mapping[str, str], before: Path, now: Path) -> str:
    """Which file at the new place differs from what a run began with."""
    for label, digest in kept.items():
        kind, _, name = label.partition(": ")
        if kind != _DATA:
            continue
        beside = (now.parent / os.path.relpath(name, before.parent)).resolve()
        path = beside if beside.exists() else Path(name)
        if not path.exists():
            return f"data {beside} must exist as {name} did, and do not: they are not the data"
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
    """``value`` of a task file with the hash of contents in place of each path to data."""
    if isinstance(value, str):
        return data.get(_existing(parent, value) or parent, value)
    if isinstance(value, Mapping):
        return {str(key): _with_contents(each, parent, data) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_contents(each, parent, data) for each in value]
    return value


def check_unchanged(folder: Path, space: SearchSpace, kept: Mapping[str, str]) -> None:
    """Refuse to go on with the run in ``folder`` if what it was begun with has changed.

    Raises:
        ValueError: something differs from ``kept``; the message names it.
    """
    for label, before in kept.items():
        if label == _CONTENTS:
            # The task file and its data, where they are, are compared one by one.
            continue
        if label == _SPACE:
            what, now = f"the space in {folder}", _of_space(space)
        else:
            kind, _, name = label.partition(": ")
            path = Path(name)
            if not path.exists():
                continue
            what, now = f"the {kind} {path}", _of_path(path)
        if now != before:
            raise ValueError(
                f"{what} has changed since run {folder} began, whose trials would not compare: "
                f"put it back as it was, or begin a new run with nas search"
            )


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
    """Names and sizes of the files below ``folder``, in order."""
    seen = 0
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            yield str(path.relative_to(folder)), path.stat().st_size if path.is_file() else -1
            seen += 1
            if seen >= _MOST_FILES:
                return


def _named_in(task_file: Path) -> list[Path]:
    """Files and folders that a task file names, by whatever key."""
    options = read_task_file(task_file, default_kind="").options
    words = _texts({key: value for key, value in options.items() if key not in _NAMES})
    found = {path for word in words if (path := _existing(task_file.parent, word)) is not None}
    # A folder with the task file in it is where it lies, not what it describes.
    return sorted(path for path in found if path not in task_file.parents)


def _existing(parent: Path, word: str) -> Path | None:
    try:
        path = (parent / word).resolve()
        return path if word and path.exists() else None
    except (OSError, ValueError):
        # Too long for a path, or with a NUL in it: a text that names no file.
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
