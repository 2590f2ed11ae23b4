"""Records read out of a journal against those of the study that Optuna replays."""

import json

import optuna
import pytest
from run_fakes import make_run
from search_fakes import drive, finished, make_session

from nas.store import journal_records
from nas.store.journal_records import ForeignJournalError, JournalRecords, read_journal
from nas.store.storage import StorageError, StudyStore, journal_path, read_trials


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", trials=9)


def replayed(run):
    """What Optuna's replay of the study says."""
    store = StudyStore.load(run.folder, None, run.name)
    return store.records(), store.ended_at_s()


def test_what_is_read_is_what_optuna_replays(run):
    records, ended = read_journal(journal_path(run.folder))
    assert len(records) >= 9 and {r.state for r in records} >= {"complete"}
    expected, expected_ended = replayed(run)
    assert records == expected
    assert ended == {n: s for n, s in expected_ended.items() if n in ended}
    assert set(ended) == {r.number for r in records}


def test_every_prefix_of_a_journal_is_read_as_optuna_replays_it(run, tmp_path):
    path = journal_path(run.folder)
    lines = path.read_bytes().splitlines(keepends=True)
    reader = JournalRecords()
    for n in range(1, len(lines) + 1):
        # Appended to, as a search does, so that one reader only reads what is new.
        path.write_bytes(b"".join(lines[:n]))
        expected = replayed(run)[0]
        assert reader.read(path)[0] == expected
        assert JournalRecords().read(path)[0] == expected


def test_of_a_journal_that_grew_only_what_is_new_is_read(run, monkeypatch):
    path, taken = journal_path(run.folder), []
    parse = journal_records.parse_line
    monkeypatch.setattr(journal_records, "parse_line", lambda x: taken.append(x) or parse(x))
    reader = JournalRecords()
    before = reader.read(path)[0]
    n_lines = len(path.read_bytes().splitlines())
    assert len(taken) == n_lines
    session = make_session(run.folder, trials=11, create=False, sampler="random")
    taken.clear()
    drive(session)
    after = reader.read(path)[0]
    assert 0 < len(taken) == len(path.read_bytes().splitlines()) - n_lines
    assert after[: len(before)] == before and len(after) > len(before)


def test_half_a_line_is_read_when_it_is_whole(run):
    path = journal_path(run.folder)
    whole = path.read_bytes()
    reader = JournalRecords()
    path.write_bytes(whole[:-30])
    assert reader.read(path)[0] == replayed(run)[0]
    path.write_bytes(whole)
    assert reader.read(path)[0] == replayed(run)[0]


def test_another_journal_in_its_place_is_read_anew(run, tmp_path):
    path = journal_path(run.folder)
    read_journal(path)
    other = make_run(tmp_path / "other", trials=12, seed=5)
    # Longer, and in the same file.
    path.write_bytes(journal_path(other.folder).read_bytes())
    assert read_journal(path)[0] == replayed(other)[0]


def test_a_record_written_after_its_trial_ended_counts_for_nothing(run):
    path = journal_path(run.folder)
    lines = path.read_bytes().splitlines(keepends=True)
    late = next(json.loads(x) for x in lines if b'"user_attr":{"joulenas":{' in x)
    late["user_attr"]["joulenas"]["reason"] = "too late"
    late["worker_id"] = "another"
    path.write_bytes(b"".join(lines) + json.dumps(late, separators=(",", ":")).encode() + b"\n")
    records = read_journal(path)[0]
    assert records == replayed(run)[0] and all(r.reason != "too late" for r in records)


def test_a_study_that_was_deleted_is_left_to_optuna(run):
    path = journal_path(run.folder)
    line = {"op_code": 1, "worker_id": "w", "study_id": 0}
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(ForeignJournalError):
        JournalRecords().read(path)
    with pytest.raises(StorageError, match="holds no study of this run"):
        run.front()


def test_a_copied_study_is_read_with_its_records(run, tmp_path):
    storage = StudyStore.load(run.folder, None, run.name)._study._storage
    target = tmp_path / "copy"
    target.mkdir()
    backend = optuna.storages.journal.JournalFileBackend(str(journal_path(target)))
    optuna.copy_study(
        from_study_name="joulenas",
        from_storage=storage,
        to_storage=optuna.storages.JournalStorage(backend),
    )
    assert JournalRecords().read(journal_path(target))[0] == replayed(run)[0]


def test_a_study_with_a_second_beside_it_is_read_by_optuna(run):
    storage = StudyStore.load(run.folder, None, run.name)._study._storage
    expected = replayed(run)
    optuna.create_study(storage=storage, study_name="another", direction="minimize")
    with pytest.raises(ForeignJournalError):
        JournalRecords().read(journal_path(run.folder))
    assert read_trials(run.folder, None, run.name) == expected


def test_without_a_journal_the_sentence_is_as_before(tmp_path):
    with pytest.raises(StorageError, match=r"has no study\.journal"):
        read_trials(tmp_path, None, "x")


def test_a_front_reads_a_journal_once(run, monkeypatch):
    journal_records._kept.clear()
    monkeypatch.setattr(StudyStore, "load", lambda *_: pytest.fail("replayed by Optuna"))
    assert len(run.front()) >= 1
    reads = []
    parse = journal_records.parse_line
    monkeypatch.setattr(journal_records, "parse_line", lambda x: reads.append(x) or parse(x))
    assert len(run.front()) >= 1 and not reads


def as_line(**entry):
    return json.dumps({"worker_id": "another"} | entry).encode()


DAMAGED = {
    "garbage": b"garbage",
    "blank": b"",
    "binary": b"\x00\xff\x00",
    "half and another": b'{"op_code":2,"worker_id":"dash' + as_line(op_code=2, study_id=0),
    "a list": b"[1, 2]",
    "a number": b"3",
    "nested too deeply": b"[" * 100_000 + b"]" * 100_000,
    "no operation": b'{"a": 1}',
    "no writer": b'{"op_code": 5}',
    "an operation that is not known": as_line(op_code=99),
    "an operation that is a text": as_line(op_code="8"),
    "a key is missing": as_line(op_code=6, trial_id=0),
    "a key of another type": as_line(op_code=8, trial_id="0", user_attr={}),
    "a state that is not known": as_line(op_code=6, trial_id=2, state=99, values=None),
    "a record that is none": as_line(op_code=8, trial_id=2, user_attr={"joulenas": {"x": 1}}),
    "a time that is none": as_line(
        op_code=6, trial_id=2, state=1, values=[1, 2], datetime_complete="soon"
    ),
    "a time that is a number": as_line(
        op_code=6, trial_id=2, state=1, values=[1, 2], datetime_complete=5
    ),
    "no time": as_line(op_code=6, trial_id=2, state=1, values=[1, 2]),
    "a value that is a text": as_line(
        op_code=6, trial_id=2, state=1, values=["1", 2], datetime_complete="2026-01-01"
    ),
    "a state that is a list": as_line(op_code=6, trial_id=2, state=[1], values=None),
    "no distribution": as_line(
        op_code=5, trial_id=2, param_name="a", param_value_internal=0, distribution="none"
    ),
    "a value out of its distribution": as_line(
        op_code=5,
        trial_id=2,
        param_name="a",
        param_value_internal=7,
        distribution='{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}',
    ),
    "a trial whose parameters are a text": as_line(
        op_code=4, study_id=0, datetime_start=None, params="a"
    ),
    "a trial whose parameters have no distributions": as_line(
        op_code=4, study_id=0, datetime_start=None, params={"a": 1}
    ),
    "a trial whose values are a number": as_line(
        op_code=4, study_id=0, datetime_start=None, state=1, values=3
    ),
    "a trial of a time that is a list": as_line(
        op_code=4, study_id=0, datetime_start=None, datetime_complete=[1]
    ),
    "two attributes": as_line(op_code=8, trial_id=2, user_attr={"a": 1, "b": 2}),
    "cut inside a character": '{"op_code":2,"worker_id":"é"}'.encode()[:-3],
    "a file system's zeros": b"\x00" * 5000,
    "zeros and another": b"\x00" * 100 + as_line(op_code=2, study_id=0, user_attr={"a": 1}),
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("place", ["middle", "end"])
def test_every_reader_refuses_a_damaged_line_by_its_number(tmp_path, line, place):
    """A search that runs, one that resumes, and all that show a run: none passes it over."""
    run = make_run(tmp_path / "run", trials=6)
    path = journal_path(run.folder)
    session = make_session(run.folder, trials=9, create=False, sampler="random")
    candidate = session.next_candidate()
    lines = path.read_bytes().splitlines(keepends=True)
    at = len(lines)
    if place == "middle":
        # Just before trial 2 ends.
        ends = [x.startswith(b'{"op_code":6') and b'"trial_id":2' in x for x in lines]
        at = ends.index(True)
    else:
        line = line.replace(b'"trial_id": 2', b'"trial_id": %d' % candidate.number)
    lines.insert(at, line + b"\n")
    whole = b"".join(lines)
    path.write_bytes(whole)
    said = rf"study\.journal is damaged at line {at + 1}: .*sed -i {at + 1}d"

    def go_on():
        make_session(run.folder, trials=9, create=False, sampler="random")

    journal_records._kept.clear()
    for read in (run.trials, run.front, go_on, run.trials, go_on):
        with pytest.raises(StorageError, match=said) as error:
            read()
        assert "\n" not in str(error.value)
    if place == "end" and b"joulenas" not in line:
        # The driver that is alive sees it when it comes to it, and each time after that.
        for _ in range(3):
            with pytest.raises(StorageError, match=said):
                session.finish(finished(candidate))
    assert path.read_bytes() == whole
    # The way out that is named.
    del lines[at]
    path.write_bytes(b"".join(lines))
    assert len(run.trials()) == 7
    again = make_session(run.folder, trials=9, create=False, sampler="random")
    assert [r.state for r in drive(again).records() if r.state == "running"] == []


def test_a_line_that_is_gone_is_seen_by_the_trials_after_it(run):
    path = journal_path(run.folder)
    lines = path.read_bytes().splitlines(keepends=True)
    made = [n for n, line in enumerate(lines) if line.startswith(b'{"op_code":4')]
    del lines[made[3]]
    path.write_bytes(b"".join(lines))
    journal_records._kept.clear()
    for read in (run.trials, lambda: make_session(run.folder, create=False)):
        with pytest.raises(StorageError, match=r"damaged at line .*: .* made trial .* is gone"):
            read()


def test_a_record_of_a_trial_that_is_not_there_ends_the_search_that_runs(tmp_path):
    run = make_run(tmp_path / "run", trials=3)
    session = make_session(run.folder, trials=9, create=False, sampler="random")
    candidate = session.next_candidate()
    with journal_path(run.folder).open("ab") as file:
        file.write(as_line(op_code=8, trial_id=99, user_attr={"joulenas": {"number": 99}}) + b"\n")
    for read in (lambda: session.finish(finished(candidate)), run.trials):
        with pytest.raises(StorageError, match="the line that made trial 99 is gone"):
            read()


def test_a_place_with_a_line_end_in_its_name_is_shown_on_one_line(tmp_path):
    run = make_run(tmp_path / "a\nb" / "run", trials=3)
    with journal_path(run.folder).open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(StorageError, match=r"a\\nb/run/study.journal is damaged at line") as error:
        run.trials()
    assert "\n" not in str(error.value)


def test_line_ends_of_another_system_change_nothing(run):
    path = journal_path(run.folder)
    expected = replayed(run)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    journal_records._kept.clear()
    assert read_trials(run.folder, None, run.name) == expected == replayed(run)
    make_session(run.folder, trials=30, create=False, sampler="random").next_candidate()
    assert len(run.trials()) == len(expected[0]) + 1 == len(replayed(run)[0])


def test_operations_on_what_is_not_there_change_nothing_for_any_reader(run):
    path = journal_path(run.folder)
    expected = replayed(run)
    for entry in (
        {"op_code": 8, "trial_id": 999, "user_attr": {"note": "from a dashboard"}},
        {"op_code": 8, "trial_id": 0, "user_attr": {"joulenas": {"x": 1}}},
        {"op_code": 6, "trial_id": 999, "state": 1, "values": [1, 2]},
        {"op_code": 4, "study_id": 7, "datetime_start": None},
        {"op_code": 2, "study_id": 0, "user_attr": {"note": "from a dashboard"}},
    ):
        with path.open("ab") as file:
            file.write(as_line(**entry) + b"\n")
    assert read_trials(run.folder, None, run.name) == expected == replayed(run)
