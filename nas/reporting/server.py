"""The page served while a search runs: on this machine alone, read-only, two paths."""

from __future__ import annotations

import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nas.reporting.data import page_data
from nas.reporting.page import content_policy, render_page
from nas.store.run_file import load

LOOPBACK = "127.0.0.1"
# Seconds between two readings of the study, however many browsers poll.
_LEAST_S = 1.0
# Seconds until files beside the study, such as replicas of a trial, are read again.
_MOST_S = 10.0
# Below the token: the page and its data.
_PATHS = ("", "data.json")


class LiveData:
    """The page's data of a run, read again when the run has changed."""

    def __init__(self, folder: Path, **storage: str) -> None:
        """Read the run once, to refuse a folder that is none; ``storage`` as in ``load``.

        Raises:
            ValueError: the folder is no run.
        """
        self._folder, self._storage = folder, storage
        self._lock = threading.Lock()
        self._read()

    def get(self) -> dict[str, Any]:
        """Return the current data, at most some seconds old."""
        with self._lock:
            age_s = time.monotonic() - self._read_s
            changed = age_s >= _LEAST_S and self._stamps() != self._read_stamps
            if changed or age_s >= _MOST_S:
                self._read()
            return self._data

    def _read(self) -> None:
        # Taken first, so that a change during the reading causes another.
        self._read_stamps = self._stamps()
        self._data = page_data(load(self._folder, **self._storage))
        self._read_s = time.monotonic()

    def _stamps(self) -> tuple[Any, ...]:
        """Return values that change with any file of the run folder."""
        files = [
            (path.name, path.stat())
            for path in sorted(self._folder.iterdir())
            if path.is_file() and not path.name.startswith(".")
        ]
        return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in files)


class PageServer(ThreadingHTTPServer):
    """Server of one run's page; its ``url`` contains a secret token."""

    url: str


def serve(folder: Path, port: int, **storage: str) -> PageServer:
    """Return a bound server of the page that does not serve yet; ``port`` 0 is any free one.

    Other users of this machine can reach its ports, so the address has a new token each time.
    ``storage`` is as in ``load``.

    Raises:
        ValueError: the folder is no run, or the port is taken or not one.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be in 0 to 65535, got {port}")
    live = LiveData(folder, **storage)

    class Handler(_Handler):
        data = live
        token = secrets.token_urlsafe(24)

    try:
        server = PageServer((LOOPBACK, port), Handler)
        server.url = f"http://{LOOPBACK}:{server.server_address[1]}/{Handler.token}/"
        return server
    except OSError as error:
        raise ValueError(
            f"port must be one that nothing listens on, got {port}: {error.strerror}"
        ) from None


class _Handler(BaseHTTPRequestHandler):
    """Answers ``GET`` for the page and for its data."""

    data: LiveData
    token: str
    server_version = "joulenas"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        host, _, _ = self.headers.get("Host", "").rpartition(":")
        # DNS rebinding: a foreign page whose name resolves to this machine must read nothing.
        if host not in (LOOPBACK, "localhost"):
            self._send(403, "text/plain", "only requests from this machine are allowed")
            return
        token, slash, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        requested = token.encode("utf-8", "surrogateescape")
        if not secrets.compare_digest(requested, self.token.encode()) or path not in _PATHS:
            self._send(404, "text/plain", "not found: nas report prints the whole address")
            return
        if not slash:
            # The page requests its data relative to its own address.
            self._send(301, "text/plain", "the page is at /TOKEN/", location=f"/{self.token}/")
            return
        try:
            data = self.data.get()
        except Exception as error:
            # The search may be writing, or its storage may be away: the page retries.
            self._send(503, "text/plain", str(error))
            return
        if path == "data.json":
            self._send(200, "application/json", json.dumps(data, allow_nan=False))
        else:
            self._send(200, "text/html", render_page(data, live=True))

    def _send(self, status: int, kind: str, text: str, location: str | None = None) -> None:
        body = text.encode("utf-8")
        self.send_response(status)
        if location is not None:
            self.send_header("Location", location)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        # The address contains the token, which no other page may receive.
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", content_policy(live=True))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, so that the terminal shows the search alone."""
