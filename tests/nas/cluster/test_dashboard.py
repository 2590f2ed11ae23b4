"""optuna-dashboard on a run's study: the real server, on loopback, asked over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from run_fakes import make_run
from search_fakes import SPACE, drive, finished, make_session

from nas.cli.main import main
from nas.records.config import SearchConfig
from nas.records.trial import Trial
from nas.store import new_run
from nas.store.optuna_export import export_study
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
    # In the middle of a search: one trial is out, by the driver that holds the run.
    session = make_session(run.folder, create=False, trials=9, baselines=(largest(SPACE),))
    candidate = session.next_candidate()
    before = records_path(run.folder).read_bytes()
    assert main(["report", str(run.folder), "--optuna", str(tmp_path / "study.journal")]) == 0
    # It has only read.
    assert records_path(run.folder).read_bytes() == before
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        Path(sys.executable).with_name("optuna-dashboard"),
        *(tmp_path / "study.journal", "--storage-class", "JournalFileStorage"),
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
        yield run, session, candidate, port
    finally:
        server.kill()
        server.wait()


def test_the_study_of_a_search_that_runs_is_exported_and_the_search_is_not_disturbed(served):
    run, session, candidate, port = served
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
    session.finish(finished(candidate))
    ended = {r.number: r for r in run.records()}[candidate.number]
    assert ended == finished(candidate)


@pytest.mark.parametrize("kind", ["file", "database"])
def test_an_exported_study_is_the_one_of_the_search(tmp_path, kind):
    storage = None if kind == "file" else f"sqlite:///{tmp_path}/study.db"
    run = make_run(tmp_path / "run", trials=8, storage=storage) if storage is None else None
    if run is None:
        config = SearchConfig(task="digits", space=SPACE, trials=8, storage=storage)
        run = new_run.create(tmp_path / "run", config, "fake")
        drive(make_session(run.folder, trials=8, storage=storage, run_name=run.name))
    path = tmp_path / "study.journal"
    for _ in range(2):
        # The second time in the place of the first.
        export_study(run, path)
    study = optuna.load_study(
        study_name=None, storage=JournalStorage(JournalFileBackend(str(path)))
    )
    records = {r.number: r for r in run.records()}
    assert {t.number: Trial.from_dict(t.user_attrs["joulenas"]) for t in study.trials} == (records)
    assert all(t.datetime_start <= t.datetime_complete for t in study.trials)


def test_a_page_and_a_study_are_not_written_at_once(tmp_path, capsys):
    run = make_run(tmp_path / "run", trials=3)
    assert main(["report", str(run.folder), "--optuna", "x", "--to", "y"]) == 2
    assert "to must be left out with --optuna" in capsys.readouterr().err
