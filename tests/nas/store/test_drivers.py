"""Several drivers, one after another or at once: who may write, and which trials they end."""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from contextlib import suppress

import pytest
from executor_fakes import DriverDiedError, Scripted
from s3_fakes import CREDENTIALS, s3_server, url
from search_fakes import finished, make_session

from nas.core.files import place_at, write_json
from nas.core.plain import to_plain
from nas.core.process_identity import ProcessIdentity
from nas.core.retry import StorageAwayError
from nas.evaluation.executor import Ended, Lost
from nas.records.config import SearchConfig
from nas.searching.loop import search
from nas.store import lock as lock_module
from nas.store import new_run
from nas.store.lock import NAME, RunBusyError, sole_writer
from nas.training.checkpoint import CheckpointManager
from search_spaces.space.presets import get_space


@pytest.fixture
def no_flock(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def owner(**changes):
    return json.dumps({"since": "2026-01-01"} | to_plain(ProcessIdentity.here()) | changes)


def test_a_lock_file_that_is_removed_lets_nobody_else_in(tmp_path):
    with sole_writer(tmp_path) as lock:
        (tmp_path / NAME).unlink()
        with pytest.raises(RunBusyError, match="wait for it or stop it"), sole_writer(tmp_path):
            raise AssertionError("two writers")
        lock.check()
        assert json.loads((tmp_path / NAME).read_text())["token"] == lock.token
    with sole_writer(tmp_path):
        pass


def test_a_driver_whose_lock_was_taken_writes_no_more(tmp_path):
    session = make_session(tmp_path, trials=3)
    with sole_writer(tmp_path) as lock:
        session._store.fence(lock.check, lock.token)
        candidate = session.next_candidate()
        (tmp_path / NAME).write_text(owner(token="other", pid=7, host="elsewhere"))
        before = (tmp_path / "records.jsonl").read_bytes()
        with pytest.raises(RunBusyError, match="process 7 on elsewhere.* this one stops"):
            session.finish(finished(candidate))
        with pytest.raises(RunBusyError):
            session.next_candidate()
        assert (tmp_path / "records.jsonl").read_bytes() == before
    # Nor does it take the lock from its new holder.
    assert json.loads((tmp_path / NAME).read_text())["token"] == "other"


def test_a_copy_of_a_run_that_shares_its_database_ends_the_first_driver(tmp_path):
    shared = {"storage": f"sqlite:///{tmp_path}/study.db", "trials": 3}
    first = make_session(tmp_path, **shared)
    first._store.fence(lambda: None, "first")
    candidate = first.next_candidate()
    second = make_session(tmp_path, create=False, **shared)
    second._store.fence(lambda: None, "second")
    with pytest.raises(RunBusyError, match="copy of the run"):
        first.finish(finished(candidate))
    second.finish(finished(second.next_candidate()))


@pytest.mark.parametrize(
    ("changes", "age_s", "is_free"),
    [
        # Killed a moment ago in another container of the same host name.
        ({"namespace": "pid:[1]", "pid": 1}, 0, False),
        ({"boot": None, "namespace": None, "started": None, "pid": 4_000_000}, 0, False),
        # Process 1 of a container that is long gone.
        ({"namespace": "pid:[1]", "pid": 1}, 3600, True),
        ({"boot": None, "namespace": None, "started": None, "pid": 1}, 3600, True),
        # Here, where it can be seen: its number is another process's now, or its own.
        ({"pid": os.getpid(), "started": 1}, 0, True),
        ({}, 3600, False),
    ],
)
def test_a_lock_by_age_looks_at_more_than_host_and_number(
    tmp_path, monkeypatch, no_flock, changes, age_s, is_free
):
    monkeypatch.setattr(lock_module, "_SETTLE_S", 0.01)
    path = tmp_path / NAME
    path.write_text(owner(**changes))
    os.utime(path, (time.time() - age_s,) * 2)
    if is_free:
        with sole_writer(tmp_path) as lock:
            lock.check()
    else:
        with pytest.raises(RunBusyError, match=socket.gethostname()), sole_writer(tmp_path):
            raise AssertionError("two writers")


def test_half_a_lock_file_is_somebodys_until_it_is_old(tmp_path, monkeypatch, no_flock):
    monkeypatch.setattr(lock_module, "_SETTLE_S", 0.01)
    (tmp_path / NAME).write_text('{"pid": 1')
    with pytest.raises(RunBusyError), sole_writer(tmp_path):
        raise AssertionError("two writers")
    os.utime(tmp_path / NAME, (0, 0))
    with sole_writer(tmp_path):
        pass


def test_of_drivers_that_start_at_once_without_flock_one_writes(tmp_path, no_flock):
    barrier, ends, outcomes = threading.Barrier(4), threading.Event(), []

    def start():
        barrier.wait(5)
        try:
            with sole_writer(tmp_path) as lock:
                outcomes.append("writes")
                ends.wait(5)
                lock.check()
        except RunBusyError:
            outcomes.append("busy")
            if len(outcomes) == 4:
                ends.set()

    starts = [threading.Thread(target=start) for _ in range(4)]
    for each in starts:
        each.start()
    for each in starts:
        each.join()
    assert sorted(outcomes) == ["busy"] * 3 + ["writes"]


def test_a_holder_on_a_machine_that_flock_does_not_reach_is_seen_by_its_heartbeat(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(lock_module, "TOUCH_EACH_S", 0.2)
    path = tmp_path / NAME
    path.write_text(owner(token="other", boot="another", host="elsewhere"))
    ended = threading.Event()

    def beat():
        while not ended.wait(0.1):
            os.utime(path)

    beating = threading.Thread(target=beat)
    beating.start()
    told = []
    with pytest.raises(RunBusyError, match="elsewhere"), sole_writer(tmp_path, told.append):
        raise AssertionError("two writers")
    # It takes seconds: whoever waits is told why.
    assert len(told) == 1 and "whether the last driver" in told[0] and "elsewhere" in told[0]
    ended.set()
    beating.join()
    # Killed, as a job that is queued again on another node finds it.
    with sole_writer(tmp_path) as lock:
        lock.check()


def test_a_lock_file_that_somebody_else_wrote_is_shown_on_one_line(tmp_path, no_flock):
    text = owner(token="other", boot="another", host="else\n\x1b[2Jwhere" + 500 * "x")
    (tmp_path / NAME).write_text(text)
    with pytest.raises(RunBusyError) as error, sole_writer(tmp_path):
        raise AssertionError("two writers")
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_an_object_store_has_one_writer_too(tmp_path, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lock_module, "TOUCH_EACH_S", 0.01)
    with s3_server() as server:
        place = place_at(url(server)) / "run"
        with sole_writer(place) as lock:
            with pytest.raises(RunBusyError, match="s3://"), sole_writer(place):
                raise AssertionError("two writers")
            time.sleep(0.1)
            lock.check()
        with sole_writer(place):
            pass


def test_runs_of_one_folder_name_in_one_second_have_names_of_their_own(tmp_path):
    config = SearchConfig(task="digits", space=get_space("digits-tiny"), trials=1)
    names = {new_run.create(tmp_path / str(n) / "run", config, "estimate").name for n in range(3)}
    assert len(names) == 3


def driven(folder, events, *, workers, create=False, trials=4):
    """One driver, from where the study is; returns the session, and whether the driver died."""
    session = make_session(folder, trials=trials, create=create, sampler="random")
    with suppress(DriverDiedError):
        search(session, Scripted(workers, events), folder / "trials")
    return session


def states(session):
    return [record.state for record in session.records()]


def ended(running):
    candidate = next(iter(running.values()))
    return Ended(candidate, finished(candidate).outcome)


def test_a_trial_that_ends_every_driver_fails_and_the_search_goes_on(tmp_path):
    first = []

    def dies(running):
        first.extend(running)
        raise DriverDiedError

    for n in range(4):
        session = driven(tmp_path, dies, workers=1, create=n == 0)
    assert first == [0, 0, 0, 1]
    assert "worker died" in session.record(0).reason


def test_beside_an_innocent_trial_the_one_that_ends_every_driver_is_found(tmp_path):
    poison = 1

    def events(running):
        if poison in running:
            # It takes the driver with it, before any other trial comes to its end.
            raise DriverDiedError
        return ended(running)

    for n in range(12):
        session = driven(tmp_path, events, workers=2, create=n == 0)
        if states(session)[poison] == "failed":
            break
    assert states(session)[poison] == "failed" and states(session)[0] == "complete"


def test_events_that_name_nobody_fail_nobody(tmp_path):
    seen = []

    def events(running):
        seen.append(sorted(running))
        if len(seen) <= 2 or 1 in running:
            return Lost(tuple(running.values()))
        return ended(running)

    session = driven(tmp_path, events, workers=2, create=True, trials=3)
    # Whichever it is, it shows alone.
    assert seen[:6] == [[0, 1], [0, 1], [0], [1], [1], [1]]
    assert states(session) == ["complete", "failed", "complete"]


def test_an_event_that_names_a_worker_blames_its_trial_alone(tmp_path):
    seen = []

    def events(running):
        seen.append(sorted(running))
        if 1 in running:
            return Lost(tuple(running.values()), (running[1],))
        return ended(running)

    session = driven(tmp_path, events, workers=2, create=True, trials=3)
    assert seen[:4] == [[0, 1], [0, 1], [0], [1]]
    assert states(session)[:2] == ["complete", "failed"]


def test_a_driver_that_ends_by_itself_blames_nobody(tmp_path):
    def interrupted(running):
        assert list(running) == [0]
        raise KeyboardInterrupt

    def away(running):
        assert list(running) == [0]
        raise StorageAwayError(errno.ENOSPC, "No space left on device")

    for n in range(5):
        session = driven(tmp_path, interrupted, workers=1, create=n == 0)
    for _ in range(5):
        with pytest.raises(StorageAwayError):
            driven(tmp_path, away, workers=1)
    session = driven(tmp_path, interrupted, workers=1)
    assert states(session) == ["running"]


def test_what_ended_as_the_driver_was_interrupted_is_told(tmp_path):
    def interrupted(running):
        (candidate,) = running.values()
        (tmp_path / "trials" / "0").mkdir(parents=True)
        write_json(tmp_path / "trials" / "0" / "result.json", finished(candidate).to_dict())
        raise KeyboardInterrupt

    session = driven(tmp_path, interrupted, workers=1, create=True)
    assert states(session) == ["complete"] and not session.in_flight()


def test_progress_begins_the_count_anew(tmp_path):
    import torch

    class State:
        def tensors(self):
            return {"weights": torch.zeros(1)}

    def dies(running):
        assert list(running) == [0]
        raise DriverDiedError

    session = driven(tmp_path, dies, workers=1, create=True)
    for epoch in range(1, 6):
        CheckpointManager(tmp_path / "trials" / "0" / "loop.safetensors", interval_s=0.0).save(
            epoch, State()
        )
        session = driven(tmp_path, dies, workers=1)
    assert states(session) == ["running"]
    session = driven(tmp_path, dies, workers=1)
    assert states(session)[0] == "running"
    session = driven(tmp_path, lambda running: ended(running), workers=1)
    assert states(session)[0] == "failed"
