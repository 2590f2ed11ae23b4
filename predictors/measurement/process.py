"""A measuring process: start it, exchange messages, and end it with all its children."""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any

from nas.core.interpreter import module_command
from nas.core.user_folders import use_private_compiler_caches
from predictors.measurement.forked_worker import ForkedWorker


class MeasureError(RuntimeError):
    """A measurement failed; the message is the first cause in one line."""


class MeasureInterrupted(MeasureError):  # noqa: N818
    """A measurement failed for a cause outside the model: a lost sensor, a killed process."""


class MeasureTimeout(MeasureError):  # noqa: N818  (as ``subprocess.TimeoutExpired``)
    """A measurement exceeded its time limit."""


# Time limit for compiling one kind of layer.
COMPILE_TIMEOUT_S = 120.0
# A killed process closes its stdout at once.
END_TIMEOUT_S = 5.0
# Sentinel in place of a message: the time limits have changed.
_LIMITS_CHANGED = ""


class _FreshWorker(subprocess.Popen[str]):
    """A worker in its own interpreter."""

    def __init__(self, environment: Mapping[str, str], stderr: IO[str]) -> None:
        super().__init__(
            module_command("predictors.measurement.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
            # Its own process group, so that its compilers end with it.
            start_new_session=True,
        )

    def end(self) -> None:
        """Kill the process and its group if it runs."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()


def worker_environment(device: str, threads: int) -> dict[str, str]:
    """Return the environment of a worker that measures on ``device``.

    Also sets this user's own compiler caches in the environment of this process, so that this
    process removes a temporary one.
    """
    use_private_compiler_caches()
    environment = dict(os.environ)
    if device == "cpu":
        # torch reads it at its import, before the job's own count can be set.
        environment["OMP_NUM_THREADS"] = str(threads)
        # A pool of compilers would start more processes than one small model has kernels.
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    return environment


class MeasureProcess:
    """A measuring process as a context manager: a fresh interpreter, or a fork of a warm one.

    ``is_forked`` forks the server that has torch imported (``forked_worker``), on CPUs only.
    ``timeout_s`` counts from the start and excludes compiling, whose limit is
    ``COMPILE_TIMEOUT_S`` for each kind of layer. ``total_timeout_s`` includes it.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        timeout_s: float,
        total_timeout_s: float = math.inf,
        *,
        is_forked: bool = False,
    ) -> None:
        """Store the job; ``with`` starts it."""
        self._is_forked = is_forked
        self._job, self._timeout_s, self._total_timeout_s = job, timeout_s, total_timeout_s
        self._what, self._limit_s = "measuring", timeout_s
        self._deadline_s = self._last_s = math.inf

    def __enter__(self) -> MeasureProcess:
        """Start the process and send it the job.

        Raises:
            OSError: a fork is requested, and no server can be started.
        """
        environment = worker_environment(self._job["device"], self._job["protocol"]["threads"])
        now_s = time.monotonic()
        self._deadline_s, self._last_s = now_s + self._timeout_s, now_s + self._total_timeout_s
        # A file, since an unread pipe would fill up and block the process.
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        make = ForkedWorker if self._is_forked else _FreshWorker
        self._process: ForkedWorker | _FreshWorker = make(environment, self._stderr)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.send(self._job)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process and its children."""
        self._process.end()
        self._reader.join(END_TIMEOUT_S)
        # A fork server that hangs holds the other end, and a stream cannot be closed while read.
        stdout = None if self._reader.is_alive() else self._process.stdout
        for stream in (self._process.stdin, stdout, self._stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    # The process ended before it read the rest.
                    continue

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message as a line; if the process is dead, ``receive`` raises the cause."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return

    def receive(self) -> dict[str, Any]:
        """Return the next message.

        Raises:
            MeasureError: the process failed.
            MeasureTimeout: it exceeded a time limit.
        """
        line = self._next_line()
        if line is None:
            raise self._error()
        message: dict[str, Any] = json.loads(line)
        if message["event"] == "error":
            kind = MeasureInterrupted if message.get("is_lost") else MeasureError
            raise kind(message["cause"])
        return message

    def _next_line(self) -> str | None:
        while True:
            now_s = time.monotonic()
            left_s = min(self._deadline_s, self._last_s) - now_s
            try:
                line = self._lines.get(timeout=max(0.0, left_s))
            except queue.Empty:
                pass
            else:
                if line == _LIMITS_CHANGED:
                    continue
                return line
            if self._last_s <= self._deadline_s:
                raise MeasureTimeout(f"measuring took longer than {self._total_timeout_s:g} s")
            raise MeasureTimeout(f"{self._what} took longer than {self._limit_s:g} s")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith("\n"):
                # A kill cut the line off, which the exit code shows.
                break
            if not line.startswith("{"):
                # Printed by an import, before the worker moved stdout to stderr.
                continue
            # Follow compiling here, since messages may be received much later.
            self._lines.put(_LIMITS_CHANGED if self._follow_compiling(line) else line)
        self._lines.put(None)

    def _follow_compiling(self, line: str) -> bool:
        """Pause the time limit during compilation; return whether ``line`` is such a message."""
        message = json.loads(line)
        now_s = time.monotonic()
        if message["event"] == "compiling":
            if message["n_kinds"]:
                self._left_s = self._deadline_s - now_s
                self._what, self._limit_s = "compiling", COMPILE_TIMEOUT_S * message["n_kinds"]
                self._deadline_s = now_s + self._limit_s
            return True
        if message["event"] == "compiled":
            if self._what == "compiling":
                self._what, self._limit_s = "measuring", self._timeout_s
                self._deadline_s = now_s + self._left_s
            return True
        return False

    def _error(self) -> MeasureError:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return MeasureInterrupted(f"the measuring process was ended by signal {name}")
        self._stderr.seek(0)
        lines = [line for line in self._stderr.read().strip().splitlines() if line.strip()]
        return MeasureError(
            lines[-1] if lines else f"the measuring process ended with code {code}"
        )
