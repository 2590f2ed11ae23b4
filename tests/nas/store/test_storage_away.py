"""Storage that stays away beyond patience fails no trial; the search says so and ends."""

import errno
import os
import pickle
from dataclasses import dataclass

import pytest
import ray
from fault_fakes import meet_full_disk
from safetensors import SafetensorError
from search_fakes import finished, make_session

from nas.cluster.trial_worker import evaluate_trial
from nas.core.files import write_json
from nas.core.retry import (
    AwayError,
    StorageAwayError,
    is_of_storage,
    naming_storage,
    patience,
    persist,
)
from nas.records.replicas import result_in
from predictors.measurement.process import MeasureError


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Workers wait as long as the environment says."""
    monkeypatch.setenv("JOULENAS_PATIENCE_S", "0.2")


@dataclass
class Raises:
    """An evaluator whose candidates all raise what ``make`` makes of a trial's folder."""

    make: object

    def evaluate(self, candidate, folder, measure, tell=None):
        raise self.make(folder)


def wrapped(error, kind=ValueError):
    try:
        try:
            raise error
        except Exception as cause:
            raise kind("weights must fit the architecture") from cause
    except kind as outer:
        return outer


STORAGE = {
    "full": lambda _: OSError(errno.ENOSPC, "No space left on device"),
    "quota": lambda _: OSError(errno.EDQUOT, "Disk quota exceeded"),
    "broken": lambda _: OSError(errno.EIO, "Input/output error"),
    "read-only": lambda _: OSError(errno.EROFS, "Read-only file system"),
    "stale": lambda _: OSError(errno.ESTALE, "Stale file handle"),
    "safetensors": lambda _: SafetensorError("I/O error: No space left on device (os error 28)"),
    "told by what was raised from it": lambda _: wrapped(OSError(errno.EIO, "I/O error")),
    "a right to a file of the run": lambda folder: PermissionError(
        errno.EACCES, "Permission denied", str(folder / "model.safetensors")
    ),
    "a short write of numpy's": lambda _: OSError("32768 requested and 992 written"),
    "a compiler that met it": lambda _: RuntimeError(
        "C++ compile error\nfatal error: error writing to /tmp/x.o: No space left on device"
    ),
    "a measuring process": lambda _: wrapped(OSError(errno.ENOSPC, "full"), MeasureError),
    "a Ray task": lambda _: ray.exceptions.RayTaskError(
        "measure", "trace", StorageAwayError(errno.ENOSPC, "No space left on device")
    ).as_instanceof_cause(),
}
CANDIDATES = {
    "a file of its own": lambda _: FileNotFoundError(errno.ENOENT, "No such file", "/my/weights"),
    "a right to a file elsewhere": lambda _: PermissionError(errno.EACCES, "no", "/etc/shadow"),
    "a compiler": lambda _: FileNotFoundError(errno.ENOENT, "No such file or directory: 'g++'"),
    "memory": lambda _: OSError(errno.ENOMEM, "Cannot allocate memory"),
    "open files": lambda _: OSError(errno.EMFILE, "Too many open files"),
    "a service": lambda _: ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    "a service's time": lambda _: TimeoutError("timed out"),
    "words alone": lambda _: OSError("my plug-in does not work"),
    "a pipe": lambda _: BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "a value": lambda _: ValueError("no"),
    "a file that a plug-in forgot": lambda folder: FileNotFoundError(
        errno.ENOENT, "No such file", str(folder / "mine.bin")
    ),
}


@pytest.mark.parametrize("make", STORAGE.values(), ids=STORAGE)
def test_what_storage_raises_leaves_the_trial_unfinished(tmp_path, make):
    session = make_session(tmp_path, trials=2)
    candidate = session.next_candidate()
    folder = tmp_path / "trials" / "0"
    with pytest.raises(AwayError) as error:
        evaluate_trial(candidate, folder, Raises(make), None)
    # It is sent to the driver.
    assert isinstance(pickle.loads(pickle.dumps(error.value)), AwayError)
    assert result_in(folder) is None
    again = make_session(tmp_path, trials=2, create=False)
    assert again.next_candidate() == candidate


@pytest.mark.parametrize("make", CANDIDATES.values(), ids=CANDIDATES)
def test_what_a_candidate_raises_fails_it(tmp_path, make):
    candidate = make_session(tmp_path, trials=2).next_candidate()
    folder = tmp_path / "trials" / "0"
    outcome = evaluate_trial(candidate, folder, Raises(make), None)
    assert outcome.state == "failed" and type(make(folder)).__name__ in outcome.reason
    assert result_in(folder).outcome == outcome


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.ENOENT])
def test_whatever_a_write_of_ours_raises_is_storages(tmp_path, monkeypatch, number):
    def fails(_):
        raise OSError(number, os.strerror(number))

    def make(folder):
        monkeypatch.setattr("os.fsync", fails)
        write_json(folder / "progress.json", {})

    candidate = make_session(tmp_path, trials=2).next_candidate()
    with pytest.raises(StorageAwayError, match=f"{os.strerror(number)}.*progress.json"):
        evaluate_trial(candidate, tmp_path / "0", Raises(make), None)
    monkeypatch.undo()
    assert result_in(tmp_path / "0") is None


def test_a_result_that_cannot_be_written_is_no_failure(tmp_path, monkeypatch):
    session = make_session(tmp_path, trials=1)
    candidate = session.next_candidate()

    class Done:
        def evaluate(self, candidate, folder, measure, tell=None):
            monkeypatch.setattr("os.fsync", fails)
            return finished(candidate).outcome

    def fails(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageAwayError, match=r"No space left on device.*result\.json"):
        evaluate_trial(candidate, tmp_path / "0", Done(), None)


def test_patience_counts_from_the_first_failure_and_but_once(tmp_path):
    """Beyond it an outer wait does not begin anew."""
    calls = []

    def write():
        calls.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with patience(wait_s=0.2) as waits, pytest.raises(StorageAwayError):
        persist(lambda: persist(write, place="a"), is_storage=False)
    n = len(calls)
    assert waits.total_s() >= 0.2
    # Pauses double, from 0.05 s: an outer wait that begins anew would try it four times more.
    assert n <= 5


def test_what_is_waited_for_does_not_count_for_a_trials_time(tmp_path, monkeypatch):
    """Or else a full disk would fail each trial that has a time limit shorter than patience."""
    monkeypatch.setenv("JOULENAS_PATIENCE_S", "2.5")
    candidate = make_session(tmp_path, trials=1).next_candidate()
    ended = []
    monkeypatch.setattr("nas.cluster.trial_worker.os._exit", ended.append)
    with pytest.raises(StorageAwayError):
        evaluate_trial(candidate, tmp_path / "0", Raises(meet_full_disk), None, timeout_s=1.0)
    assert ended == [] and result_in(tmp_path / "0") is None


def test_the_mark_of_storage_survives_what_wraps_it():
    with pytest.raises(StorageAwayError, match="weights must fit"), naming_storage():
        raise wrapped(OSError(errno.EIO, "Input/output error"))
    assert not is_of_storage(wrapped(OSError(errno.EPIPE, "Broken pipe")))
