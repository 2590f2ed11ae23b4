"""Read and write files atomically, on disks and in object stores.

A write fills a temporary file, then flushes and renames it, or uploads it. A ``Place`` is the path
of a file or folder, on a disk or in an object store (``nas.core.remote``). Within
``nas.core.retry.patience``, reads and writes are retried while storage is full or unavailable.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from nas.core.names import first_line
from nas.core.remote import QUERIES, RemotePath
from nas.core.retry import is_os_error, persist
from nas.core.scratch import scratch

Place = Path | RemotePath

# Larger than any file of this project; untrusted input must not fill memory.
MAX_JSON_BYTES = 64 * 1024 * 1024


def write_atomic(path: Place, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it to ``path``.

    For an object store the temporary file is local and then uploaded. A retry calls ``write``
    again, with another file. The file has the permissions of any new file in its directory.

    Raises:
        OSError: the file cannot be written; ``path`` is unchanged.
    """
    persist(lambda: _write_once(path, write), is_os_error, place=path)


def is_place(text: str) -> bool:
    """Return whether ``text`` is the path of a folder or object store, not a database or a name.

    A folder is a ``file://`` URL, or a path that begins with ``/``, ``./``, ``../`` or ``~/``.
    """
    scheme = text.partition("://")[0] if "://" in text else None
    if scheme is None:
        return text in (".", "..", "~") or text.startswith(("/", "./", "../", "~/"))
    return scheme == "file" or scheme in QUERIES


def place_at(text: str) -> Place:
    """Return the folder or object store that ``text`` names.

    Raises:
        ValueError: ``text`` is neither an absolute path nor such a URL, or contains a credential.
    """
    if text.partition("://")[0] in QUERIES:
        return RemotePath.parse(text)
    path = text
    if text.startswith("file://"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise ValueError(f"storage must be file:///a/folder of this machine, got {text!r}")
        path = unquote(parts.path)
    if not path.startswith("/") or not path.isprintable() or "://" in path:
        schemes = ", ".join(f"{scheme}://bucket/prefix" for scheme in QUERIES)
        raise ValueError(f"storage of files must be /a/folder or {schemes}, got {text!r}")
    return Path(path)


def check_writable(place: Place) -> None:
    """Write and remove a test file in ``place``, before a search costs anything.

    Raises:
        OSError: the disk or store is not writable now.
        RemoteError: the store refuses the request.
    """
    probe = place / f".writable-{uuid.uuid4().hex[:12]}"
    place.mkdir(parents=True, exist_ok=True)
    write_json(probe, {})
    probe.unlink()


@contextmanager
def as_local(path: Place) -> Iterator[Path]:
    """Yield ``path``, or a temporary local copy if it is remote.

    Raises:
        FileNotFoundError: ``path`` is remote and missing.
    """
    if isinstance(path, Path):
        yield path
        return
    with scratch("copy") as folder:
        local = folder / path.name
        path.copy_to(local)
        yield local


def as_local_if_any(path: Place | None) -> AbstractContextManager[Path | None]:
    """Return ``as_local`` of ``path``, or a context that yields ``None``."""
    return nullcontext() if path is None else as_local(path)


def copy_file(source: Place, target: Place) -> None:
    """Copy ``source`` to ``target`` atomically.

    Raises:
        FileNotFoundError: ``source`` is missing.
    """
    with as_local(source) as local:
        write_atomic(target, lambda temporary: shutil.copyfile(local, temporary))


def size_of(path: Place) -> int:
    """Return the file's size in bytes.

    Raises:
        FileNotFoundError: the file is missing.
    """
    return path.stat().st_size if isinstance(path, Path) else path.size()


def append_whole(file: IO[bytes], data: bytes, end: int) -> None:
    """Append ``data`` to an unbuffered file at its ``end``, all of it or nothing, and flush it.

    Raises:
        OSError: the write failed; the file has its old length.
    """
    try:
        if (file.write(data) or 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
        os.fsync(file.fileno())
    except BaseException:
        # A partial line would make the whole file unreadable.
        with suppress(OSError):
            file.truncate(end)
        raise


def write_json(path: Place, data: Any) -> None:
    """Write ``data`` as JSON atomically. NaN raises ``ValueError``: it is not JSON."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_text(path: Place, text: str) -> None:
    """Write ``text`` in UTF-8 atomically."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Place) -> Any:
    """Read JSON.

    Raises:
        ValueError: the file is missing, not UTF-8, not JSON, nested too deeply or longer than
            ``MAX_JSON_BYTES``; the message names the file.
    """
    try:
        if isinstance(path, Path) and not stat.S_ISREG(persist(path.stat).st_mode):
            # A device or pipe may have no end.
            raise ValueError(f"{path} must be a file")
        size = persist(lambda: size_of(path), place=path)
        if size > MAX_JSON_BYTES:
            raise ValueError(f"{path} must be at most {MAX_JSON_BYTES} bytes, got {size}")
        return parse_json(persist(path.read_bytes, place=path), str(path))
    except FileNotFoundError:
        raise ValueError(f"{path} must exist, and does not") from None


def write_array(path: Place, array: Any) -> None:
    """Write a NumPy array as ``.npy`` atomically."""
    import numpy as np

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            np.save(handle, array, allow_pickle=False)

    write_atomic(path, write)


def read_array(path: Path) -> Any:
    """Read the array of numbers in a ``.npy`` file.

    Raises:
        ValueError: the file is missing, invalid or shorter than its header claims; the message
            names the file.
    """
    import numpy as np

    try:
        # Memory-mapped first: this compares the header with the file's length before allocation.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise ValueError(f"{path} must exist, and does not") from None
    except Exception as error:
        # Invalid headers raise errors of many types.
        raise ValueError(f"{path} must be a whole array of numbers: {first_line(error)}") from None


def parse_json(text: str | bytes, what: str) -> Any:
    """Parse ``text``; NaN and infinities, which are not JSON, are refused.

    Raises:
        ValueError: ``text`` is not JSON in UTF-8, or nested too deeply; the message names
            ``what``.
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
    """Convert errors about values of wrong types to a ``ValueError`` that names ``what``.

    For files that this project wrote and that may have been changed since.
    """
    try:
        yield
    except (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{what} is not as it was written: {error!r}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _write_once(path: Place, write: Callable[[Path], object]) -> None:
    if isinstance(path, RemotePath):
        with scratch("upload") as folder:
            temporary = folder / path.name
            write(temporary)
            path.write_from(temporary)
        return
    with _whole_file(path) as temporary:
        write(temporary)


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``, then flush it and rename it to ``path``."""
    # The name is unique among all machines that share the folder.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        yield temporary
        with temporary.open("rb") as handle:
            # A library that replaced the file may have restricted its permissions.
            if stat.S_IMODE(os.fstat(handle.fileno()).st_mode) != mode:
                temporary.chmod(mode)
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
