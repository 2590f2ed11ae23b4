"""Studies in a real PostgreSQL server: many writers, and readers while they write."""

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from private_postgres import MISSING, binaries, running
from search_fakes import SPACE, drive, finished, make_session

import nas
from nas.core.retry import patience
from nas.records.config import SearchConfig
from nas.searching.writing import said_if_away
from nas.store.new_run import create
from nas.store.storage import StorageError, StudyStore

PROGRAMS = binaries()
pytestmark = pytest.mark.skipif(PROGRAMS is None, reason=MISSING)
TRIALS = 8


@pytest.fixture(scope="module")
def server():
    with running(PROGRAMS) as found:
        yield found


def new_run(folder, url):
    config = SearchConfig(task="digits", space=SPACE, trials=TRIALS, sampler="random", storage=url)
    return create(folder, config, "fake")


def write(url, folder, name):
    """A driver in a process of its own."""
    session = make_session(
        Path(folder), storage=url, run_name=name, trials=TRIALS, sampler="random"
    )
    drive(session)


def test_two_drivers_write_while_fronts_are_read(server, tmp_path, monkeypatch):
    url = server.url()
    # No run folder keeps it.
    monkeypatch.setenv("PGPASSWORD", server.password)
    runs = [new_run(tmp_path / str(i), url) for i in range(2)]
    with pytest.raises(StorageError, match="holds no study"):
        # Tables are made by whoever opens the database first.
        StudyStore.load(tmp_path, url, "none", SPACE)
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write, args=(url, str(r.folder), r.name)) for r in runs]
    for writer in writers:
        writer.start()
    seen = [[], []]
    deadline = time.monotonic() + 100
    while any(writer.is_alive() for writer in writers):
        assert time.monotonic() < deadline
        for counts, run in zip(seen, runs, strict=True):
            try:
                records = nas.load(run.folder).trials()
            except StorageError as error:
                # Before the driver has made its study.
                assert "holds no study" in str(error), error
                continue
            complete = sum(r.state == "complete" for r in records)
            counts.append(complete)
            assert not complete or len(run.front()) >= 1
        time.sleep(0.05)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for counts, run in zip(seen, runs, strict=True):
        assert server.password not in (run.folder / "run.json").read_text()
        # Read while it was being written, on a busy machine once, and never fewer than before.
        assert counts and counts == sorted(counts)
        trials = run.trials()
        assert [t.state for t in trials if t.state != "dropped"] == ["complete"] * TRIALS
        assert len(run.front()) >= 1


def test_a_search_goes_on_where_it_was(server, tmp_path):
    url = server.url()
    session = make_session(tmp_path, storage=url, run_name="again", trials=4, sampler="ehvi")
    begun = session.next_candidate()
    again = make_session(
        tmp_path, storage=url, run_name="again", trials=4, sampler="ehvi", create=False
    )
    assert again.next_candidate().number == begun.number
    assert [r.state for r in drive(again).searched()] == ["running", *["complete"] * 3]


def test_refusals_are_one_line_without_the_password(server, tmp_path):
    wrong = "not-the-pass-word"
    gone = server.url(wrong).replace("postgres?host=", "postgres?host=%2Fnowhere")
    for url in (server.url(wrong), gone):
        with pytest.raises(StorageError) as caught:
            StudyStore.load(tmp_path, url, "none", SPACE)
        said = str(caught.value)
        assert wrong not in said and "\n" not in said and "postgresql+psycopg://joule:***@" in said
    with pytest.raises(StorageError, match="no study"):
        StudyStore.load(tmp_path, server.url(), "none", SPACE)


def test_a_server_that_is_away_for_a_while_is_waited_for(server, tmp_path, monkeypatch):
    url = server.url()
    session = make_session(tmp_path, storage=url, run_name="away", trials=6, sampler="random")
    session.finish(finished(session.next_candidate()))
    in_flight = session.next_candidate()
    server.stop()
    with pytest.raises(StorageError, match="full or away"), said_if_away(new_run(tmp_path, url)):
        session.finish(finished(in_flight))
    told = []
    with ThreadPoolExecutor(1) as beside, patience(told.append, wait_s=60.0):
        back = beside.submit(lambda: (time.sleep(1.5), server.start()))
        session.finish(finished(in_flight))
        back.result()
        drive(session)
    assert told and server.password not in "".join(told)
    assert [r.state for r in session.records()] == ["complete"] * 6
    again = make_session(
        tmp_path, storage=url, run_name="away", trials=6, sampler="random", create=False
    )
    assert again.records() == session.records()
