"""Databases that a run may use: only hosts that the user named receive a password.

A URL from ``run.json`` is ``Recorded`` and may be untrusted input. A database server in it is
connected to only if the user named the host: by ``--storage`` (or the
``storage`` of a Python call), by ``PGHOST``, or by an entry of the password file. A recorded
SQLite file must lie below the run folder. ``nas.store.files_host`` is for object stores.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from nas.core.names import first_line
from nas.store.recorded import Recorded
from nas.store.storage_url import shown

POSTGRES = frozenset({"postgresql", "postgresql+psycopg", "postgresql+psycopg2"})
SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})
# Keys of a recorded URL's query that determine neither the server nor files to read.
_HARMLESS = frozenset({"host", "port", "user", "dbname", "connect_timeout", "application_name"})
# From the weakest to the strongest; libpq's default is the third.
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_DEFAULT_PORT = "5432"
# The host in libpq's password file for URLs without a host.
_LOCAL_SOCKET = "localhost"
_OPTION = "name it with --storage"

# Options that SQLAlchemy adds, which are not text.
_CODE = frozenset({"context"})

Server = tuple[str, str]

_named: set[Server] = set()


class StorageHostError(ValueError):
    """The storage must not be opened; the message is the cause in one line."""


def name_storage(url: str | None) -> None:
    """Record that the user named ``url``: this process may send its servers a password."""
    if url is not None and not isinstance(url, Recorded) and _dialect(url) in POSTGRES:
        with suppress(ValueError):
            _named.update(_servers(_connection_of(url)))


def check_dialect(url: str) -> None:
    """Raise ``StorageHostError`` unless ``url`` is of a supported database."""
    if _dialect(url) not in POSTGRES | SQLITE:
        raise StorageHostError(
            f"storage {shown(url)} cannot be opened: it must be a URL of postgresql+psycopg, "
            f"postgresql or sqlite"
        )


def is_sqlite(url: str) -> bool:
    """Return whether the study is in a SQLite file."""
    return _dialect(url) in SQLITE


def check_server(url: str) -> None:
    """Check that a recorded PostgreSQL URL leads to a server that the user named.

    Raises:
        StorageHostError: it does not, or it has a key that could lead elsewhere.
    """
    if not isinstance(url, Recorded):
        name_storage(url)
        return
    options = _connection_of(url)
    strange = sorted((_query_keys(url) | options.keys()) - _HARMLESS - {"password", "sslmode"})
    if strange:
        raise StorageHostError(
            f"storage {shown(url)} is from a run folder and must have no {strange[0]} in it: "
            f"{_OPTION} URL"
        )
    _check_ssl(url, options)
    if any(text in options.get("dbname", "") for text in ("=", "://")):
        raise StorageHostError(
            f"storage {shown(url)} is from a run folder and must name a plain database: "
            f"{_OPTION} URL"
        )
    for host, port in _servers(options):
        if not _is_named(host, port):
            raise StorageHostError(
                f"storage {shown(url)} is from a run folder, and no password or connection goes "
                f"to a host that you did not name: {_OPTION} URL, or name {host or 'its host'} "
                f"in PGHOST or ~/.pgpass"
            )


def sqlite_path(url: str, folder: Path) -> Path:
    """Return the existing file of a SQLite URL; a recorded one must lie below ``folder``.

    Raises:
        StorageHostError: the file does not exist or lies elsewhere.
    """
    name = _file_of(url)
    if _query_keys(url) or name.startswith("file:") or name in ("", ":memory:"):
        raise StorageHostError(f"storage must be sqlite:///file and no more, got {shown(url)}")
    # A recorded path is relative to the run directory, the user's to the working directory.
    path = (folder / name if isinstance(url, Recorded) else Path(name)).resolve()
    if isinstance(url, Recorded) and not path.is_relative_to(folder.resolve()):
        raise StorageHostError(
            f"storage {shown(url)} is from a run folder and must lie below {folder}: {_OPTION} "
            f"URL if it is yours"
        )
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise StorageHostError(
            f"storage {shown(url)} must be readable: {error.strerror}"
        ) from None
    if not is_file:
        raise StorageHostError(f"storage {shown(url)} must be a file")
    return path


def recordable(url: str) -> str:
    """Return ``url`` as a run records it: the path of a SQLite file is absolute."""
    if _dialect(url) not in SQLITE or isinstance(url, Recorded):
        return url
    name = _file_of(url)
    if not name or name == ":memory:" or name.startswith("file:"):
        return url
    return url.replace(f":///{name}", f":///{Path(name).resolve()}", 1)


def _dialect(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def _query_keys(url: str) -> set[str]:
    query = url.partition("?")[2]
    return {key for key, _ in parse_qsl(query, keep_blank_values=True)}


def _parsed(url: str) -> Any:
    """Return ``url`` as parsed by SQLAlchemy, which connects."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(str(url))
    except (ArgumentError, ValueError):
        raise StorageHostError(f"storage must be a URL of a database, got {shown(url)}") from None


def _connection_of(url: str) -> dict[str, str]:
    """Return the options of PostgreSQL's client, from the URL's authority and query."""
    from sqlalchemy.exc import SQLAlchemyError

    parsed = _parsed(url)
    try:
        _, options = parsed.get_dialect()().create_connect_args(parsed)
    except (SQLAlchemyError, ImportError, ValueError, TypeError, AssertionError) as error:
        raise StorageHostError(
            f"storage {shown(url)} cannot be read: {first_line(error)}"
        ) from None
    return {key: str(value) for key, value in options.items() if key not in _CODE}


def _file_of(url: str) -> str:
    return _parsed(url).database or ""


def _check_ssl(url: str, options: Mapping[str, str]) -> None:
    """Check that a connection is as protected as the environment requires."""
    least = os.environ.get("PGSSLMODE", "prefer")
    mode = options.get("sslmode", least)
    rank = {name: place for place, name in enumerate(_SSL_MODES)}
    if rank.get(mode, -1) < rank.get(least, 0):
        raise StorageHostError(
            f"storage {shown(url)} is from a run folder and must have sslmode {least} or a "
            f"stronger one, got {mode}: {_OPTION} URL"
        )


def _servers(options: Mapping[str, str]) -> tuple[Server, ...]:
    """Return each host and port that libpq may connect to; an empty host is libpq's choice."""
    hosts = options.get("host", "").split(",")
    ports = options.get("port", "").split(",")
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    usual = os.environ.get("PGPORT") or _DEFAULT_PORT
    return tuple(
        (host if host.startswith("/") else host.lower(), port or usual)
        for host, port in zip(hosts, ports, strict=True)
    )


def _is_named(host: str, port: str) -> bool:
    environment = os.environ
    if (host, port) in _named or (host or _LOCAL_SOCKET, port) in _PasswordFile():
        return True
    # Without a port, a user names all ports of that host, as for tests and tunnels.
    if port not in (environment.get("PGPORT") or port).split(","):
        return False
    if not host:
        # libpq then takes the host of the environment.
        return any(environment.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"))
    named = [
        *environment.get("PGHOST", "").split(","),
        *environment.get("PGHOSTADDR", "").split(","),
    ]
    return host in {name if name.startswith("/") else name.lower() for name in named}


class _PasswordFile:
    """Servers that libpq's password file names; a ``*`` for the host names none."""

    def __contains__(self, server: Server) -> bool:
        host, port = server
        return any(
            host == entry[0].lower() and entry[1] in ("*", port) for entry in self._entries()
        )

    @staticmethod
    def _entries() -> Iterator[tuple[str, str]]:
        named = os.environ.get("PGPASSFILE")
        try:
            path = Path(named) if named else Path.home() / ".pgpass"
            status = path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
                # Other users may have written it.
                return
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except (OSError, RuntimeError):
            return
        for line in lines:
            fields = [re.sub(r"\\(.)", r"\1", field) for field in re.split(r"(?<!\\):", line)]
            if len(fields) >= 5 and not line.startswith("#"):
                yield fields[0], fields[1]
