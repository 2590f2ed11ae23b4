"""Start a measuring process as a fork of a server that has torch imported.

One server serves all processes of a user that have the same environment, working directory, CPUs
and sources. It listens on a socket in a folder that only this user can open, is started on demand
and ends by itself. Without a server, callers use a fresh interpreter.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from nas.core.interpreter import module_command
from nas.core.user_folders import private_folder
from predictors.measurement.fork_server import locked

# Not below TMPDIR: a socket's path has at most 107 bytes.
_FOLDER = Path("/tmp")
# A server that runs answers at once.
END_TIMEOUT_S = 5.0
# Variables that identify the caller; no measurement reads them.
_OF_THE_CALLER = (
    *("RAY_", "TUNE_", "PL_DISABLE_FORK", "SPT_NOENV", "PYTHONBREAKPOINT", "PYTEST_"),
    # The working directory is compared by itself.
    *("PWD", "OLDPWD"),
)


class ForkServerLostError(RuntimeError):
    """The server ended before its child, or could not start."""


class ForkedWorker:
    """A child of the fork server, with the part of ``subprocess.Popen`` that measuring needs."""

    def __init__(self, environment: Mapping[str, str], stderr: IO[str]) -> None:
        """Have the server fork a child whose stdin and stdout are pipes.

        Raises:
            OSError: the server cannot be reached or started.
        """
        child_in, own_in = os.pipe()
        own_out, child_out = os.pipe()
        self.stdin = os.fdopen(own_in, "w", encoding="utf-8")
        self.stdout = os.fdopen(own_out, "r", encoding="utf-8")
        self._code: int | None = None
        self._waiting = threading.Lock()
        #: CPU seconds of the child and its compilers, once it has ended.
        self.cpu_s = 0.0
        try:
            self._connection = _connect(environment)
            socket.send_fds(self._connection, [b"f"], [child_in, child_out, stderr.fileno()])
        except OSError:
            self.stdin.close()
            self.stdout.close()
            raise
        finally:
            os.close(child_in)
            os.close(child_out)

    def wait(self) -> int:
        """Wait for the child's exit code, negative for a signal.

        Raises:
            ForkServerLostError: the server ended first.
        """
        with self._waiting:
            if self._code is None:
                try:
                    with self._connection.makefile("r", encoding="ascii") as answer:
                        line = answer.readline().split()
                except OSError:
                    line = []
                self._connection.close()
                if len(line) != 3:
                    raise ForkServerLostError("the server of measuring processes ended")
                self._code, self.cpu_s = int(line[1]), float(line[2])
            return self._code

    def end(self) -> None:
        """Kill the child and its group if they run, and wait for it."""
        if self._code is not None:
            return
        # A child whose server was killed ends with its stdin.
        with suppress(BrokenPipeError):
            self.stdin.close()
        try:
            self._connection.settimeout(END_TIMEOUT_S)
            self._connection.shutdown(socket.SHUT_WR)
            self.wait()
        except (OSError, ForkServerLostError):
            self._connection.close()


def can_fork() -> bool:
    """Return whether this system forks safely: Linux shows a process's native threads."""
    return sys.platform == "linux"


@contextmanager
def kept_server(environment: Mapping[str, str]) -> Iterator[None]:
    """Start the server without waiting for its imports; hold it open within the context.

    Errors are not raised, since callers use fresh interpreters without a server.
    """
    try:
        connection = _connect(environment) if can_fork() else None
    except OSError:
        connection = None
    try:
        yield
    finally:
        if connection is not None:
            connection.close()


def _connect(environment: Mapping[str, str]) -> socket.socket:
    """Return a connection to the server of ``environment``; start the server if none runs."""
    folder = private_folder(_FOLDER / f"joulenas-fork-{os.geteuid()}")
    path = folder / _server_key(environment)
    with locked(folder):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            _start(path, environment)
            connection.connect(str(path))
    return connection


def _start(path: Path, environment: Mapping[str, str]) -> None:
    """Start a server that listens at ``path``; connections wait until it has imported torch."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        # It leaves this process's tree at once, so the process started here ends at once.
        subprocess.run(
            module_command("predictors.measurement.fork_server", str(listener.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            env=_of_server(environment),
            check=False,
        )


def _of_server(environment: Mapping[str, str]) -> dict[str, str]:
    named = {k: v for k, v in environment.items() if not k.startswith(_OF_THE_CALLER)}
    # The server must have one thread; a child sets its own number.
    return named | {"OMP_NUM_THREADS": "1"}


def _server_key(environment: Mapping[str, str]) -> str:
    """Return the server's name: a digest of all that a fresh interpreter reads at its start."""
    sources = Path(__file__).parents[2]
    newest = max(
        path.stat().st_mtime_ns
        for package in ("predictors", "search_spaces", "nas/core")
        for path in (sources / package).rglob("*.py")
    )
    facts: list[Any] = [
        sorted(_of_server(environment).items()),
        os.getcwd(),
        sys.executable,
        str(sources),
        newest,
        sorted(os.sched_getaffinity(0)),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
