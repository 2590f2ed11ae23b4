"""Waiting for storage: how long, for what, and that nothing is lost or done twice meanwhile."""

import errno
import os
import sqlite3
import time

import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from safetensors import SafetensorError
from search_fakes import SPACE, drive, finished, make_session
from sqlalchemy.exc import OperationalError

from nas.core.files import read_json, write_json
from nas.core.retry import patience, persist
from nas.records.config import SearchConfig
from nas.searching.loop import adopt_results
from nas.searching.writing import said_if_away
from nas.store import database, new_run
from nas.store.storage import StorageError

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def folders(tmp_path):
    (tmp_path / "a").mkdir(exist_ok=True)


class Failing:
    """Raises ``error`` so many times, then does its work."""

    def __init__(self, error, times, work=lambda *_: "done"):
        self.left, self.error, self.work, self.calls = times, error, work, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return self.work(*arguments)


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (FULL, True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (SafetensorError("I/O error: No space left on device (os error 28)"), True),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (SafetensorError("invalid header"), False),
        (ValueError("wrong"), False),
    ],
)
def test_what_may_pass_is_waited_for_and_nothing_else(error, waits):
    told, action = [], Failing(error, 2)
    with patience(told.append, wait_s=5.0):
        if waits:
            assert persist(action) == "done" and action.calls == 3
            (line,) = told
            assert "trying again for" in line and "\n" not in line
        else:
            with pytest.raises(type(error)):
                persist(action)
            assert action.calls == 1 and told == []


def test_patience_ends_and_outside_there_is_none(monkeypatch):
    action = Failing(FULL, 10**6)
    started = time.monotonic()
    with patience(wait_s=0.3), pytest.raises(OSError, match="No space"):
        persist(action)
    assert 0.3 <= time.monotonic() - started < 3 and action.calls > 2
    action = Failing(FULL, 1)
    with pytest.raises(OSError, match="No space"):
        persist(action)
    assert action.calls == 1
    monkeypatch.setenv("JOULENAS_PATIENCE_S", "soon")
    with pytest.raises(ValueError, match="JOULENAS_PATIENCE_S.*soon"), patience():
        pass
    monkeypatch.setenv("JOULENAS_PATIENCE_S", "0")
    with patience(), pytest.raises(OSError, match="No space"):
        persist(Failing(FULL, 1))


def test_a_full_disk_leaves_what_was_there_and_no_half_files(tmp_path, monkeypatch):
    path = tmp_path / "a" / "record.json"
    write_json(path, {"a": 1})
    full = Failing(FULL, 3, os.fsync)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1} and list(path.parent.iterdir()) == [path]
    with patience(wait_s=5.0):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2} and list(path.parent.iterdir()) == [path]


def test_a_study_on_a_disk_that_is_full_for_a_while_is_as_if_it_had_not_been(
    tmp_path, monkeypatch
):
    whole = drive(make_session(tmp_path / "a", trials=6, sampler="random"))
    (tmp_path / "b").mkdir()
    session = make_session(tmp_path / "b", trials=6, sampler="random")
    told = []
    with patience(told.append, wait_s=20.0):
        while (candidate := session.next_candidate()) is not None:
            monkeypatch.setattr("nas.store.records_writer.os.fsync", Failing(FULL, 1, os.fsync))
            session.finish(finished(candidate))
            monkeypatch.undo()
    assert len(told) == 6 and session.records() == whole.records()
    assert make_session(tmp_path / "b", trials=6, create=False).records() == whole.records()


def test_a_disk_that_stays_full_is_one_line_and_all_before_is_kept(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run = new_run.create(folder, SearchConfig(task="digits", space=SPACE, trials=3), "fake")
    session = make_session(folder, trials=3, sampler="random")
    first = session.next_candidate()
    session.finish(finished(first))
    monkeypatch.setattr("nas.store.records_writer.os.fsync", Failing(FULL, 10**6))
    with (
        pytest.raises(StorageError, match="full or away.*No space.*nas resume"),
        said_if_away(run),
        patience(wait_s=0.2),
    ):
        drive(session)
    monkeypatch.undo()
    again = make_session(folder, trials=3, sampler="random", create=False)
    assert again.records()[0] == session.record(first.number)
    assert [r.state for r in drive(again).records()] == ["complete"] * 3


AWAY = OperationalError("SELECT 1", {}, sqlite3.OperationalError("server closed the connection"))


def away():
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = AWAY
    return error


class Restarting(InMemoryStorage):
    """A database that fails before it does what it is asked to, or after, when it is told to."""

    before = after = 0

    def set_trial_state_values(self, trial_id, state, values=None):
        if self.before:
            self.before -= 1
            raise away()
        done = super().set_trial_state_values(trial_id, state, values)
        if self.after:
            self.after -= 1
            raise away()
        return done


def test_a_database_that_restarts_is_asked_again_and_told_once():
    inner = Restarting()
    storage = database._Patient(inner)
    study = storage.create_new_study([StudyDirection.MAXIMIZE], "s")
    trials = [storage.create_new_trial(study) for _ in range(3)]
    with patience(wait_s=10.0):
        inner.before = 2
        assert storage.set_trial_state_values(trials[0], TrialState.COMPLETE, [1.0])
        # It heard, and its answer was lost.
        inner.after = 1
        assert storage.set_trial_state_values(trials[1], TrialState.COMPLETE, [2.0])
    assert [t.values for t in storage.get_all_trials(study)][:2] == [[1.0], [2.0]]
    with patience(wait_s=0.0), pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trials[0], TrialState.COMPLETE, [3.0])
    inner.before = 1
    with pytest.raises(StorageInternalError):
        storage.set_trial_state_values(trials[2], TrialState.FAIL)


@pytest.mark.parametrize("text", ["", "{", '{"number": 0}', "\x00" * 100, "[1]", '"x"'])
def test_half_a_result_is_none_and_the_trial_is_run_again(tmp_path, text):
    session = make_session(tmp_path, trials=2)
    candidates = [session.next_candidate(), session.next_candidate()]
    for number, candidate in enumerate(candidates):
        (tmp_path / "trials" / str(number)).mkdir(parents=True)
        write_json(
            tmp_path / "trials" / str(number) / "result.json", finished(candidate).to_dict()
        )
    (tmp_path / "trials" / "0" / "result.json").write_text(text)
    again = make_session(tmp_path, trials=2, create=False)
    adopt_results(again, tmp_path / "trials")
    assert [r.state for r in again.records()] == ["running", "complete"]
    assert again.next_candidate().number == 0


def test_a_baseline_that_was_asked_for_and_not_dispatched_is_asked_for_again(tmp_path):
    architecture = make_session(tmp_path / "a", trials=1).next_candidate().architecture
    (tmp_path / "b").mkdir()
    session = make_session(tmp_path / "b", trials=3, baselines=(architecture,), sampler="random")
    # As kill -9 between the proposal and its record.
    session._store.ask()
    again = make_session(
        tmp_path / "b", trials=3, baselines=(architecture,), sampler="random", create=False
    )
    drive(again)
    assert [r.architecture for r in again.records() if r.baseline] == [architecture]
