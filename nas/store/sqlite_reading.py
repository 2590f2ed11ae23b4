"""Read-only connections to a SQLite file, which write neither into it nor beside it.

SQLite creates ``-shm`` and ``-wal`` files beside a database with a write-ahead log, even for
readers, and follows links to them. Without a writer, the file is opened as immutable. If a
process that has ended left a log, a copy is read.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from nas.core.scratch import scratch

_LOG, _SHARED = "-wal", "-shm"
_BESIDE = (_LOG, _SHARED, "-journal")
# Bytes of a file's header that record a write-ahead log, and their values with and without.
_VERSIONS, _LOGGED, _PLAIN = slice(18, 20), b"\x02\x02", b"\x01\x01"


def reader_of(file: Path) -> Callable[[], sqlite3.Connection]:
    """Return a function that opens a connection to read the database ``file``.

    Raises:
        ValueError: one of SQLite's files beside it is a link, which may lead anywhere.
        OSError: it cannot be read.
    """
    beside = {ending: file.with_name(file.name + ending) for ending in _BESIDE}
    for path in beside.values():
        if path.is_symlink():
            raise ValueError(f"{path} must be no link")
    with file.open("rb") as handle:
        is_logged = handle.read(100)[_VERSIONS] == _LOGGED
    where = f"{file.absolute().as_uri()}?mode=ro"
    if is_logged and not beside[_LOG].exists():
        where += "&immutable=1"
    elif is_logged and not beside[_SHARED].exists():
        content = _with_log(file, beside[_LOG])
        return lambda: _of_memory(content)
    return lambda: sqlite3.connect(where, uri=True, check_same_thread=False)


def _with_log(file: Path, log: Path) -> bytes:
    """Return the content of the database with its log applied, as a file without a log."""
    with scratch("sqlite") as folder:
        copy = folder / "copy.db"
        shutil.copyfile(file, copy)
        shutil.copyfile(log, copy.with_name(copy.name + _LOG))
        with closing(sqlite3.connect(copy)) as connection:
            content = bytearray(connection.serialize())
    content[_VERSIONS] = _PLAIN
    return bytes(content)


def _of_memory(content: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.deserialize(content)
    return connection
