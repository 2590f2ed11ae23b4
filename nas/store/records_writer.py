"""Append to ``records.jsonl`` atomically: lines are on disk when ``append`` returns."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import BinaryIO

from nas.core.files import append_whole
from nas.core.retry import is_os_error, persist
from nas.store.records_file import (
    MOST_BYTES_IN_LINE,
    TAIL_BYTES,
    Line,
    RecordsReader,
    StorageError,
    parse_line,
)
from search_spaces.space import SearchSpace


class RecordsWriter:
    """The only writer of the file at ``path``, which ``reader`` has read to its end."""

    def __init__(self, path: Path, space: SearchSpace, reader: RecordsReader) -> None:
        """Lines are appended where ``reader`` stopped."""
        self._path, self._space = path, space
        self._end, self._tail = reader.end, reader.tail
        self._held: list[Line] = []
        # Bytes that a failed write may have left after ``_end``.
        self._torn = b""
        self._refusal: StorageError | None = None

    def hold(self, line: Line) -> None:
        """Buffer ``line`` until the next ``append``, since a proposal has had no effect yet.

        Raises:
            StorageError: the file was rejected before.
        """
        if self._refusal is not None:
            raise self._refusal
        self._held.append(line)

    def append(self, line: Line) -> None:
        """Append ``line`` after the buffered ones.

        Raises:
            OSError: all retries (``nas.core.retry``) failed, and no line was written.
            StorageError: another program has changed the file.
        """
        if self._refusal is not None:
            raise self._refusal
        data = b"".join(as_text(each) for each in (*self._held, line))
        try:
            persist(lambda: self._append_once(data), is_os_error, place=self._path)
        except StorageError as error:
            self._refusal = error
            raise
        self._held.clear()

    def _append_once(self, data: bytes) -> None:
        with self._path.open("r+b", buffering=0) as file:
            self._clear_end(file)
            # Set until the write is complete or undone.
            self._torn = data
            append_whole(file, data, self._end)
        self._torn = b""
        self._end += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]

    def _clear_end(self, file: BinaryIO) -> None:
        """Remove half a line after ``_end``, and the bytes of our failed write.

        Raises:
            StorageError: another program has changed or added whole lines.
        """
        file.seek(self._end - len(self._tail))
        if file.read(len(self._tail)) != self._tail:
            raise self._changed()
        most = len(self._torn) + MOST_BYTES_IN_LINE
        rest = file.read(most + 1)
        n_torn = len(os.path.commonprefix([rest, self._torn]))
        if b"\n" in rest[n_torn:] or len(rest) > most:
            # Raises where the line is damaged or too long.
            RecordsReader(self._path, self._space).read()
            raise self._changed()
        if rest:
            file.truncate(self._end)
            file.seek(self._end)

    def _changed(self) -> StorageError:
        return StorageError(
            f"study {self._path} was changed by another program while this search ran: it stops "
            f"and writes no more; nas resume goes on with what the file now has"
        )


def as_text(line: Line) -> bytes:
    """Return the bytes of ``line`` in the file."""
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def end_last_line(path: Path) -> None:
    """Add a missing newline to a whole last line, which an editor may have removed."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MOST_BYTES_IN_LINE))
        last = file.read().rpartition(b"\n")[2]
    with contextlib.suppress(ValueError):
        parse_line(last)
        with path.open("ab") as file:
            file.write(b"\n")
