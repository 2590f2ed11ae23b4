"""optuna-dashboard on a run's study: the real server, on loopback, asked over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from run_fakes import make_run
from search_fakes import SPACE, finished, make_session

from nas.store.storage import records_path
from search_spaces.space.sampling import largest

pytest.importorskip("optuna_dashboard")


def ask(port, path):
    address = f"http://127.0.0.1:{port}{path}"
    with urllib.request.urlopen(address, timeout=20) as answer:
        return json.loads(answer.read())


@pytest.fixture
def served(tmp_path):
    run = make_run(tmp_path / "run", trials=8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        Path(sys.executable).with_name("optuna-dashboard"),
        *(records_path(run.folder), "--storage-class", "JournalFileStorage"),
        *("--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"),
    ]
    server = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(port, "/api/studies")
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        yield run, port
    finally:
        server.kill()
        server.wait()


def test_the_study_of_a_search_that_runs_is_there_and_the_search_is_not_disturbed(served):
    run, port = served
    path = records_path(run.folder)
    # In the middle of a search: one trial is out, by the driver that holds the run.
    session = make_session(run.folder, create=False, trials=9, baselines=(largest(SPACE),))
    candidate = session.next_candidate()
    before = path.read_bytes()
    (summary,) = ask(port, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "joulenas"
    assert summary["directions"] == ["maximize", "minimize"]
    shown = ask(port, f"/api/studies/{summary['study_id']}?after=0")["trials"]
    states = {trial["number"]: trial["state"] for trial in shown}
    assert states[candidate.number] == "Running"
    complete = {t["number"]: t["values"] for t in shown if t["state"] == "Complete"}
    assert len(complete) == 8
    assert complete == {
        r.number: [pytest.approx(x) for x in r.objectives]
        for r in run.records()
        if r.state == "complete"
    }
    # It has only read.
    assert path.read_bytes() == before
    session.finish(finished(candidate))
    assert path.read_bytes().startswith(before)
    ended = {r.number: r for r in run.records()}[candidate.number]
    assert ended == finished(candidate)
