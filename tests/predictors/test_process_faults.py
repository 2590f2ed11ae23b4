"""Measuring processes whose server, working directory or output is not as it should be."""

import os
import queue
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from test_fork_server import servers, until, waiting_job

from predictors.measurement import fork_server, forked_worker
from predictors.measurement import process as process_module
from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.process import MeasureError, MeasureProcess, worker_environment


def leaves(process):
    """Whether the context of ``process`` ends within some seconds."""
    thread = threading.Thread(target=process.__exit__, args=(None, None, None), daemon=True)
    thread.start()
    thread.join(40)
    return not thread.is_alive()


def leads_session(pid):
    """Whether ``pid`` is a child that measures, not a compiler that the server is starting."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def test_a_child_whose_server_is_killed_ends_with_its_client(monkeypatch, tmp_path):
    monkeypatch.setenv("JOULENAS_TEST_SERVER", str(time.monotonic_ns()))
    before = servers()
    with DeviceLock(tmp_path, "cpu").exclusive():
        process = MeasureProcess(waiting_job(tmp_path), 60, is_forked=True).__enter__()
        (server,) = servers() - before
        # The child waits for the device, so it does not end by itself.
        assert until(lambda: any(leads_session(pid) for pid in servers() - before - {server}))
        os.kill(server, signal.SIGKILL)
        assert leaves(process)
        assert until(lambda: servers() <= before)


def test_a_client_does_not_wait_for_a_server_that_hangs(monkeypatch, tmp_path):
    monkeypatch.setenv("JOULENAS_TEST_SERVER", str(time.monotonic_ns()))
    for module in (forked_worker, process_module):
        monkeypatch.setattr(module, "END_TIMEOUT_S", 0.5)
    before = servers()
    process = MeasureProcess(waiting_job(tmp_path), 60, is_forked=True).__enter__()
    (server,) = servers() - before
    os.kill(server, signal.SIGSTOP)
    try:
        assert leaves(process)
    finally:
        os.kill(server, signal.SIGKILL)


def test_a_lock_that_another_process_never_releases_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(forked_worker, "_FOLDER", tmp_path)
    monkeypatch.setattr(fork_server, "LOCK_TIMEOUT_S", 0.3)
    folder = tmp_path / f"joulenas-fork-{os.geteuid()}"
    folder.mkdir(mode=0o700)
    with fork_server.locked(folder), pytest.raises(OSError, match="fork"):
        forked_worker._connect(worker_environment("cpu", 1))


def test_processes_on_other_cpus_have_another_server(monkeypatch):
    environment = worker_environment("cpu", 1)
    key = forked_worker._server_key(environment)
    assert key == forked_worker._server_key(environment)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 77})
    assert key != forked_worker._server_key(environment)


def test_no_module_of_the_working_directory_is_imported(monkeypatch, tmp_path):
    (tmp_path / "statistics.py").write_text("raise RuntimeError('a file of the user ran')\n")
    monkeypatch.chdir(tmp_path)
    job = waiting_job(tmp_path) | {"workload": {}}
    with (
        MeasureProcess(job, 60) as process,
        pytest.raises(MeasureError, match="workload must have"),
    ):
        process.receive()


def test_what_imports_print_is_no_message():
    process = MeasureProcess({}, 5.0)
    process._lines = queue.Queue()
    process._deadline_s = time.monotonic() + 5
    lines = ["greetings from sitecustomize\n", '{"event": "ready"}\n']
    process._process = SimpleNamespace(stdout=iter(lines))
    process._read()
    assert process.receive() == {"event": "ready"}
