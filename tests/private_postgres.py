"""A PostgreSQL server of the tests' own: its data in a new folder, its socket there too."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

MISSING = "PostgreSQL's initdb and pg_ctl must be installed (Debian: apt-get install postgresql)"


@dataclass(frozen=True)
class PrivatePostgres:
    """A running server, reached by its Unix socket with a password and no other way."""

    folder: Path
    password: str
    control: Callable[..., None]

    def stop(self) -> None:
        """As a server that crashes: nobody's connection is closed in order."""
        self.control("stop", "-m", "immediate")

    def start(self) -> None:
        """Start it, for the first time or again."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        log = str(self.folder.parent / "data" / "server.log")
        self.control("start", "--wait", "-o", options, "-l", log)

    def url(self, password: str | None = None) -> str:
        """A storage URL, with the right password by default."""
        host = quote(str(self.folder), safe="")
        return f"postgresql+psycopg://joule:{password or self.password}@/postgres?host={host}"


def binaries() -> Path | None:
    """Where the server's programs are, ``None`` where there are none."""
    found = [Path(path).parent for path in (shutil.which("initdb"),) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in found if (f / "initdb").is_file() and (f / "pg_ctl").is_file()), None)


@contextmanager
def running(programs: Path) -> Iterator[PrivatePostgres]:
    """Start a server on an empty database, and remove all of it afterwards."""
    # Short, since a socket's path may have 107 characters; pytest's own folders are too deep, and
    # closed to the user that the server must run as where this is root.
    top = Path(tempfile.mkdtemp(prefix="joulenas-pg-"))
    server = PrivatePostgres(
        top / "s", secrets.token_hex(12), lambda *words: run("pg_ctl", *words)
    )
    server.folder.mkdir()
    passwords = top / "password"
    passwords.write_text(server.password)
    user = None if os.getuid() else _other_user()
    if user is not None:
        for path in (top, server.folder, passwords):
            shutil.chown(path, user)
    data = top / "data"

    def run(program: str, *arguments: str) -> None:
        # The server keeps what it is given for its output, so that a pipe would never end.
        with (top / "log").open("a") as log:
            subprocess.run(
                [programs / program, "-D", data, *arguments],
                check=True,
                timeout=60,
                cwd=top,
                stdout=log,
                stderr=log,
                user=user,
            )

    try:
        run(
            "initdb", "-U", "joule", "--auth=scram-sha-256", f"--pwfile={passwords}",
            "--no-sync", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        server.start()
        yield server
    finally:
        try:
            server.stop()
        except subprocess.CalledProcessError:
            # It never started; what went wrong is raised already.
            assert not (data / "postmaster.pid").exists()
        finally:
            shutil.rmtree(top)


def _other_user() -> str:
    """PostgreSQL refuses to run as root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
