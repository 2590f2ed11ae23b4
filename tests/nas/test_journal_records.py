"""Records read out of a journal against those of the study that Optuna replays."""

import json

import optuna
import pytest
from run_fakes import make_run
from search_fakes import drive, make_session

from nas.searching import journal_records
from nas.searching.journal_records import ForeignJournalError, JournalRecords, read_journal
from nas.searching.storage import StorageError, StudyStore, journal_path, read_trials


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
    take = JournalRecords._take
    monkeypatch.setattr(JournalRecords, "_take", lambda self, x: taken.append(x) or take(self, x))
    reader = JournalRecords()
    before = reader.read(path)[0]
    n_lines = len(path.read_bytes().splitlines())
    assert len(taken) == n_lines
    drive(make_session(run.folder, trials=11, create=False, sampler="random"))
    after = reader.read(path)[0]
    assert len(taken) == len(path.read_bytes().splitlines()) > n_lines
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


@pytest.mark.parametrize(
    "line", ['{"op_code": 0}', "garbage", '{"op_code":99}', '{"op_code":1,"study_id":0}']
)
def test_what_searches_do_not_write_is_left_to_optuna(run, line):
    path = journal_path(run.folder)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ForeignJournalError):
        JournalRecords().read(path)


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
    take = JournalRecords._take
    monkeypatch.setattr(JournalRecords, "_take", lambda self, x: reads.append(x) or take(self, x))
    assert len(run.front()) >= 1 and not reads


def test_a_line_that_lost_a_key_is_for_optuna_to_judge(tmp_path):
    from nas.searching.journal_records import ForeignJournalError, read_journal

    path = tmp_path / "study.journal"
    path.write_text('{"op_code": 6, "worker_id": "w", "trial_id": 0}\n')
    with pytest.raises(ForeignJournalError, match="as Optuna writes it"):
        read_journal(path)
