"""Writes to ``records.jsonl`` that fail: nothing is half-written, and the search goes on."""

import errno
import os
from pathlib import Path

import pytest
from search_fakes import drive, finished, make_session
from test_records_file import facts, loaded

from nas.core.retry import patience
from nas.store.storage import records_path


def test_a_write_that_failed_leaves_nothing_and_proposals_go_before_the_next(
    tmp_path, monkeypatch
):
    session = make_session(tmp_path, trials=9, sampler="random")
    candidate = session.next_candidate()
    path = records_path(tmp_path)
    before = path.read_bytes()

    def fails(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = session._store
    with monkeypatch.context() as patch:
        patch.setattr("nas.store.records_writer.os.fsync", fails)
        with pytest.raises(OSError, match="No space"):
            store.save(finished(candidate))
        # Proposals are written with the next record.
        proposal = store.ask()
    assert path.read_bytes() == before and store.records()[0].state == "running"
    store.save(finished(candidate))
    assert [t[0] for t in facts(loaded(tmp_path, session))] == [t[0] for t in facts(store)]
    assert facts(loaded(tmp_path, session))[proposal.number][2] == proposal.genes


class Broken:
    """A file of a disk that takes ``n`` bytes, flushes nothing, and lets nothing be cut off."""

    def __init__(self, file, n):
        self.file, self.n = file, n

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.file.write(data[: self.n])
        raise OSError(errno.EIO, "Input/output error")

    def truncate(self, size):
        raise OSError(errno.ESTALE, "Stale file handle")


@pytest.mark.parametrize("n", [0, 5, 40, 100_000])
@pytest.mark.parametrize("follows", [b"", b'{"trial": 0, "att'])
@pytest.mark.parametrize("again", ["at once", "later"])
def test_a_write_that_failed_and_could_not_be_undone_leaves_no_trace(
    tmp_path, monkeypatch, n, follows, again
):
    session = make_session(tmp_path, trials=3, sampler="random")
    candidate = session.next_candidate()
    path = records_path(tmp_path)
    opens, broken = Path.open, [n]

    def breaks(self, mode="r", *arguments, **named):
        file = opens(self, mode, *arguments, **named)
        return Broken(file, broken.pop()) if mode == "r+b" and broken else file

    def other_writes():
        with opens(path, "ab") as file:
            file.write(follows)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", breaks)
        if again == "at once":
            patch.setattr("nas.core.retry.time.sleep", lambda _: other_writes())
            with patience(wait_s=5.0):
                session.finish(finished(candidate))
        else:
            with pytest.raises(OSError, match="Input/output"):
                session._store.save(finished(candidate))
            other_writes()
            session.finish(finished(candidate))
    drive(session)
    assert loaded(tmp_path, session).records() == session.records()
    n_records = path.read_bytes().count(b'"state":"complete"')
    assert n_records == sum(r.state == "complete" for r in session.records())


def test_a_full_file_system_writes_less_than_it_was_given(tmp_path, monkeypatch):
    session = make_session(tmp_path, trials=3, sampler="random")
    candidate = session.next_candidate()
    before, opens = records_path(tmp_path).read_bytes(), Path.open

    class Short(Broken):
        def write(self, data):
            return self.file.write(data[: self.n])

        def truncate(self, size):
            return self.file.truncate(size)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *a, **k: Short(opens(self, *a, **k), 12))
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            session._store.save(finished(candidate))
    assert records_path(tmp_path).read_bytes() == before
