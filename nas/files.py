"""Files that are whole or absent: write beside, flush to disk, rename.

Where ``nas.patience`` is in force, a disk that is full or away is waited for.
"""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nas.patience import is_os_error, persist

# Nothing of ours is as long; what a stranger gives us shall not fill memory.
MAX_JSON_BYTES = 64 * 1024 * 1024


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Have ``write`` fill a temporary file beside ``path``, then rename it into place.

    ``write`` may be called again, with another file, if the disk is full or away.
    """
    persist(lambda: _write_once(path, write), is_os_error)


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as JSON, whole or not at all. NaN is refused: it is not JSON."""
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    write_atomic(path, lambda temporary: _write_text(temporary, text))


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: the file is missing, not UTF-8, not JSON, nested too deeply or longer than
            ``MAX_JSON_BYTES``; the message names the file.
    """
    try:
        found = persist(path.stat)
        if not stat.S_ISREG(found.st_mode):
            # A device or pipe may have no end.
            raise ValueError(f"{path} must be a file")
        if found.st_size > MAX_JSON_BYTES:
            raise ValueError(f"{path} must be at most {MAX_JSON_BYTES} bytes, got {found.st_size}")
        return parse_json(persist(path.read_bytes), str(path))
    except FileNotFoundError:
        raise ValueError(f"{path} must exist, and does not") from None


def parse_json(text: str | bytes, what: str) -> Any:
    """The value of ``text``, in which numbers are numbers: NaN and infinities are not JSON.

    Raises:
        ValueError: it is not JSON in UTF-8, or nested too deeply; the message names ``what``.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"{what} must be JSON: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what} must be JSON: {error}") from None


@contextmanager
def as_written(what: str) -> Iterator[None]:
    """Turn what Python says of values of wrong types into a ``ValueError`` that names ``what``.

    For reading what this project wrote, which somebody may have changed since.
    """
    try:
        yield
    except (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{what} is not as it was written: {error!r}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _write_once(path: Path, write: Callable[[Path], None]) -> None:
    # Of a name that no other process takes, on no other machine that shares the folder.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
