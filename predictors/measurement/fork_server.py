"""A server process that forks measuring processes, so that torch is imported once for many.

Run with one argument, the descriptor of a listening Unix socket. A client sends the child's stdin,
stdout and stderr over its connection, and gets one line back when the child has ended: ``ended
CODE SECONDS``, with the seconds of CPU that the child and its compilers used. When a client closes
its connection, its child's process group is killed. A connection without a child holds the server
open. It ends after ``LINGER_S`` without a client.

A process may only be forked safely while it has one thread. The server therefore runs torch on one
thread, and ends at once if its imports leave a second. It runs no CUDA: a context does not survive
a fork.
"""

from __future__ import annotations

import fcntl
import os
import select
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from search_spaces.architecture import Architecture
    from search_spaces.workload import Workload

# Longer than the pause between two candidates of a small search.
LINGER_S = 20.0
# The lock is held while a server starts, without its imports.
LOCK_TIMEOUT_S = 30.0
_N_STREAMS = 3


@dataclass(slots=True)
class _Client:
    """A connection, and the child that was forked for it."""

    connection: socket.socket
    pid: int | None = None
    is_gone: bool = False


def import_all() -> None:
    """Import the packages that measuring needs, and initialise torch's compiler.

    Compiling a small model loads the compiler and queries the C++ compiler's version and vector
    instructions, which takes longer than compiling a model whose kernels are cached.
    """
    import torch

    # The worker's functions import these when they run.
    import predictors.measurement.worker  # noqa: F401
    import search_spaces.compression.quantize  # noqa: F401
    import search_spaces.models.decoding  # noqa: F401
    from search_spaces.compression.apply import prepare_for_inference
    from search_spaces.models.build import build_network

    if "tqdm" in sys.modules:
        # The compiler's hidden progress bar would start a thread.
        vars(sys.modules["tqdm"])["tqdm"].monitor_interval = 0
    torch.set_num_threads(1)
    architecture, workload = _small_model()
    model = build_network(architecture, workload, generator_seed=0).eval()
    inputs = torch.zeros(workload.batch_size, *workload.input_shape)
    prepare_for_inference(model, architecture, inputs)
    torch.compiler.reset()


def _small_model() -> tuple[Architecture, Workload]:
    from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
    from search_spaces.workload import Workload

    layer = LayerSpec(AttentionSpec(1, 1, 8), FfnSpec(8))
    workload = Workload("digits", "image_classification", (1, 8, 8), 10, 16)
    return Architecture(8, (layer,), patch_size=4), workload


def n_threads() -> int:
    """Return the number of threads of this process, native ones included."""
    return len(os.listdir("/proc/self/task"))


class ForkServer:
    """Accept connections, fork a child for each, and report how it ended."""

    def __init__(self, listener: socket.socket) -> None:
        """``listener`` is a listening Unix socket."""
        from predictors.measurement.worker import used_cpu_s

        self._listener = listener
        self._clients: list[_Client] = []
        # The first child is charged for the imports.
        self._unpaid_cpu_s = used_cpu_s()
        self._selector = selectors.DefaultSelector()
        self._wake, self._wake_writer = socket.socketpair()
        for end in (self._wake, self._wake_writer, listener):
            end.setblocking(False)

    def run(self) -> None:
        """Serve until there has been no client for ``LINGER_S``."""
        # A handler must exist for the wake-up descriptor to be written to.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        while self._selector.select(None if self._clients else LINGER_S) or self._clients:
            for key, _ in self._selector.select(0):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake:
                    self._wake.recv(4096)
                else:
                    self._read(key.data)
            self._reap()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        client = _Client(connection)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _read(self, client: _Client) -> None:
        """Fork the child that a client requests, or kill the child of a closed connection."""
        try:
            message, streams, _, _ = socket.recv_fds(client.connection, 1, _N_STREAMS)
        except OSError:
            message, streams = b"", []
        if message and client.pid is None and len(streams) == _N_STREAMS:
            client.pid = os.fork()
            if client.pid == 0:
                self._become_worker(streams)
            self._unpaid_cpu_s = 0.0
        elif not message:
            self._selector.unregister(client.connection)
            client.is_gone = True
            if client.pid is None:
                self._drop(client)
            else:
                _kill_group(client.pid)
        for stream in streams:
            os.close(stream)

    def _become_worker(self, streams: list[int]) -> NoReturn:
        code = 1
        try:
            # Its own process group, so that its compilers end with it.
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for target, stream in enumerate(streams):
                os.dup2(stream, target)
                os.close(stream)
            self._selector.close()
            for end in (self._listener, self._wake, self._wake_writer):
                end.close()
            # Otherwise a client would not notice the end of the server.
            for client in self._clients:
                client.connection.close()
            from predictors.measurement.worker import main as measure

            code = measure(self._unpaid_cpu_s)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        """Report the children that have ended to their clients."""
        for client in [client for client in self._clients if client.pid is not None]:
            assert client.pid is not None
            pid, status, used = os.wait4(client.pid, os.WNOHANG)
            if pid == 0:
                continue
            code, cpu_s = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
            if not client.is_gone:
                self._selector.unregister(client.connection)
            with suppress(OSError):
                client.connection.send(f"ended {code} {cpu_s:.3f}\n".encode())
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        client.connection.close()
        self._clients.remove(client)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It has no group yet; it is not reaped, so its id is not reused.
        os.kill(pid, signal.SIGKILL)


def main() -> int:
    """Leave the client's process tree, import, and serve."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    # A client that ends, or that Ray ends with its children, must not end the server.
    if os.fork():
        os._exit(0)
    os.setsid()
    path = Path(listener.getsockname())
    try:
        import_all()
        if n_threads() > 1:
            raise RuntimeError(f"a process must have one thread to fork, got {n_threads()}")
        server = ForkServer(listener)
        while True:
            server.run()
            with locked(path.parent):
                # The lock prevents new connections, but one may have come since ``run`` ended.
                if not select.select([listener], [], [], 0)[0]:
                    path.unlink(missing_ok=True)
                    return 0
    except BaseException:
        # Clients then use fresh interpreters.
        path.unlink(missing_ok=True)
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of servers: one process at a time connects, starts or ends one.

    Raises:
        TimeoutError: another process, perhaps a stopped one, holds it for ``LOCK_TIMEOUT_S``.
    """
    end_s = time.monotonic() + LOCK_TIMEOUT_S
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / "lock", flags, 0o600)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > end_s:
                raise TimeoutError(f"the lock of the fork servers in {folder} is held")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
