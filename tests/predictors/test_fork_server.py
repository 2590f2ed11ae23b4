"""Measuring processes that are forked: each is its own, and nothing outlives its client."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_campaign import DIGITS, FAST, TINY

from predictors.measurement import fork_server, forked_worker, runner
from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.forked_worker import ForkServerLostError, kept_server
from predictors.measurement.process import (
    MeasureInterrupted,
    MeasureProcess,
    MeasureTimeout,
    worker_environment,
)
from predictors.measurement.runner import make_job, measure_candidate, measure_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")


MARK = "JOULENAS_TEST_SERVER"


def servers():
    """Process ids of this test's fork servers; forked children have the same command.

    Those of tests that run beside have another mark in their environment.
    """
    mark = f"{MARK}={os.environ.get(MARK)}".encode()
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command, state = path.read_bytes(), (path.parent / "stat").read_text()
            marks = (path.parent / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        is_server = b"predictors.measurement.fork_server" in command and mark in marks
        if is_server and ") Z " not in state:
            found.add(int(path.parent.name))
    return found


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


@contextmanager
def kept(monkeypatch):
    """A server that only this test uses."""
    monkeypatch.setenv(MARK, str(time.monotonic_ns()))
    before = servers()
    with kept_server(worker_environment("cpu", 1)):
        (own,) = servers() - before
        yield own
    os.kill(own, signal.SIGKILL)
    assert until(lambda: own not in servers())


def waiting_job(lock_folder):
    return make_job(
        "measure",
        TINY,
        DIGITS,
        protocol=FAST,
        device="cpu",
        meter="estimate",
        lock_folder=lock_folder,
    )


def test_forks_measure_one_at_a_time_and_their_server_has_one_thread(monkeypatch, tmp_path):
    with kept(monkeypatch) as server:
        records = [
            measure_candidate(TINY, DIGITS, protocol=FAST, meter="estimate", lock_folder=tmp_path)
            for _ in range(2)
        ]
        assert runner._lost_servers == []
        assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
        fresh = measure_fresh(TINY, DIGITS, protocol=FAST, meter="estimate", lock_folder=tmp_path)
        assert servers() >= {server}
    first, second = records
    assert first.job != second.job and first.mode == second.mode == fresh.mode == "compile"
    assert first.versions == fresh.versions
    # The first is charged for the imports of all.
    assert second.spent_energy_j < first.spent_energy_j
    assert second.spent_energy_j < fresh.spent_energy_j / 2


def test_a_fork_that_exceeds_its_time_is_ended(monkeypatch, tmp_path):
    with kept(monkeypatch) as server:
        before = servers()
        with DeviceLock(tmp_path, "cpu").exclusive(), pytest.raises(MeasureTimeout):
            measure_candidate(
                TINY, DIGITS, protocol=FAST, meter="estimate", lock_folder=tmp_path, timeout_s=25
            )
        assert until(lambda: servers() <= before | {server})


def test_a_fork_that_is_killed_is_an_interrupted_measurement(monkeypatch, tmp_path):
    with kept(monkeypatch), DeviceLock(tmp_path, "cpu").exclusive():
        before = servers()
        with MeasureProcess(waiting_job(tmp_path), 60, is_forked=True) as process:
            assert until(lambda: servers() - before)
            for pid in servers() - before:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(MeasureInterrupted, match="SIGKILL"):
                process.receive()


def test_a_fork_ends_with_the_command_that_asked_for_it_and_the_server_after_it(
    monkeypatch, tmp_path
):
    monkeypatch.setenv(MARK, str(time.monotonic_ns()))
    code = (
        "import json, sys\n"
        "from predictors.measurement.process import MeasureProcess\n"
        "with MeasureProcess(json.loads(sys.argv[1]), 60, is_forked=True) as process:\n"
        "    print('started', flush=True)\n"
        "    process.receive()\n"
    )
    before = servers()
    with DeviceLock(tmp_path, "cpu").exclusive():
        command = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(waiting_job(tmp_path))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert command.stdout.readline() == "started\n"
        # The server, and its child once it has imported.
        assert until(lambda: len(servers() - before) == 2)
        command.kill()
        command.wait()
        assert until(lambda: len(servers() - before) == 1)
        (server,) = servers() - before
        assert until(lambda: server not in servers(), fork_server.LINGER_S + 15)


def test_without_a_server_candidates_have_fresh_interpreters(monkeypatch, tmp_path):
    def refuse(*_):
        raise PermissionError("no folder for sockets")

    monkeypatch.setattr(forked_worker, "_connect", refuse)
    monkeypatch.setattr(runner, "_lost_servers", [])
    seen = []
    monkeypatch.setattr(
        runner, "measure_fresh", lambda *_, is_forked=False, **__: seen.append(is_forked) or fail()
    )

    def fail():
        if seen[-1]:
            refuse()
        return "record"

    assert measure_candidate(TINY, DIGITS, protocol=FAST) == "record"
    assert measure_candidate(TINY, DIGITS, protocol=FAST) == "record"
    assert seen == [True, False, False]
    with pytest.raises(PermissionError), MeasureProcess(waiting_job(tmp_path), 9, is_forked=True):
        pass


def test_a_gpu_never_sees_a_fork(monkeypatch):
    monkeypatch.setattr(
        runner, "measure_fresh", lambda *_, device, is_forked=False, **__: (device, is_forked)
    )
    assert measure_candidate(TINY, DIGITS, protocol=FAST, device="cuda:1") == ("cuda:1", False)


def test_a_server_that_ends_first_is_told_apart(monkeypatch, tmp_path):
    with DeviceLock(tmp_path, "cpu").exclusive():
        monkeypatch.setenv(MARK, str(time.monotonic_ns()))
        before = servers()
        with MeasureProcess(waiting_job(tmp_path), 60, is_forked=True) as process:
            (server,) = servers() - before
            os.kill(server, signal.SIGKILL)
            with pytest.raises((ForkServerLostError, MeasureInterrupted)):
                process.receive()
        assert until(lambda: servers() <= before)


def test_a_trial_of_ray_tune_shares_the_server_of_its_search(monkeypatch, tmp_path):
    own = worker_environment("cpu", 1)
    # What Ray and Tune set in a trial's process, and what a shell leaves behind.
    of_trial = own | {"RAY_JOB_ID": "1", "PL_DISABLE_FORK": "1", "PWD": "/", "TUNE_ORIG": "x"}
    assert forked_worker._server_key(of_trial) == forked_worker._server_key(own)
    assert forked_worker._server_key(own | {"OMP_WAIT_POLICY": "x"}) != (
        forked_worker._server_key(own)
    )
    key = forked_worker._server_key(own)
    monkeypatch.chdir(tmp_path)
    assert forked_worker._server_key(own) != key
