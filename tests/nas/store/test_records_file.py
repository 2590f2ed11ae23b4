"""Studies in ``records.jsonl``: what is written is read back, half lines, faults of the disk."""

import json
import math

import pytest
from run_fakes import make_run
from search_fakes import drive, finished, make_session

from nas.store import records_file
from nas.store.optuna_trials import record_of
from nas.store.records_file import RecordsReader, StorageError
from nas.store.storage import StudyStore, read_trials, records_path


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", trials=9)


def facts(store):
    """Optuna's trials in a form that compares."""
    return [
        (t.number, t.state, t.params, t.values, t.constraints, t.system_attrs, record_of(t))
        for t in store.frozen_trials()
    ]


def loaded(folder, session):
    config = session._config
    return StudyStore.load(folder, None, "run", config.space, goals=config.goals)


@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe", "ehvi"])
def test_a_study_that_is_opened_again_is_the_one_that_was_left(tmp_path, sampler):
    """Samplers go on from all that they stored: NSGA-II from its generation."""
    session = make_session(
        tmp_path, trials=20, sampler=sampler, objectives=("latency",), max_latency_s=1.0
    )
    for number in range(16):
        candidate = session.next_candidate()
        if number % 5 == 4:
            session.save_attempts(candidate.number, {"deaths": number})
        else:
            session.finish(finished(candidate))
    mine = facts(session._store)
    assert facts(loaded(tmp_path, session)) == mine
    states = {str(state.name) for _, state, *_ in mine}
    assert states >= {"COMPLETE", "RUNNING"}
    assert any(constraints for *_, constraints, _, _ in mine)
    again = make_session(
        tmp_path,
        trials=20,
        sampler=sampler,
        objectives=("latency",),
        max_latency_s=1.0,
        create=False,
    )
    assert again.records() == session.records()
    assert again.attempts(again.in_flight()[0].number) == {"deaths": 4}


def test_what_is_enqueued_waits_in_a_study_that_is_opened_again(tmp_path):
    session = make_session(tmp_path, trials=20, sampler="random")
    waiting = session._store.waiting()
    assert waiting and loaded(tmp_path, session).waiting() == waiting


def test_every_prefix_of_a_file_is_read_alike_at_once_and_forward(run, monkeypatch):
    path = records_path(run.folder)
    lines = path.read_bytes().splitlines(keepends=True)
    forward = RecordsReader(path, run.config.space)
    parsed = []
    parse = records_file.parse_line
    monkeypatch.setattr(records_file, "parse_line", lambda x: parsed.append(x) or parse(x))
    for n in range(1, len(lines) + 1):
        path.write_bytes(b"".join(lines[:n]))
        parsed.clear()
        forward.read()
        assert len(parsed) == 1
        anew = RecordsReader(path, run.config.space)
        anew.read()
        assert anew.trials == forward.trials
    assert [trial.record for trial in anew.trials] == run.records()


def test_a_front_reads_a_file_once_and_another_in_its_place_anew(run, tmp_path, monkeypatch):
    run.front()
    monkeypatch.setattr(records_file, "parse_line", lambda _: pytest.fail("read again"))
    assert len(run.front()) >= 1
    monkeypatch.undo()
    other = make_run(tmp_path / "other", trials=12, seed=5)
    # Longer, and in the same file.
    records_path(run.folder).write_bytes(records_path(other.folder).read_bytes())
    assert run.records() == other.records()


def test_a_reader_ignores_half_a_line_until_it_is_whole(run):
    path, expected = records_path(run.folder), run.records()
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert run.records()[:-1] == expected[:-1] and run.records()[-1].state == "running"
    path.write_bytes(whole)
    assert run.records() == expected


@pytest.mark.parametrize("n", [1, 30, 400])
def test_half_a_line_is_cut_off_whenever_it_comes(tmp_path, n):
    session = make_session(tmp_path, trials=4, sampler="random")
    half = json.dumps({"trial": 0, "attempts": {"x": "y" * 9000}}).encode()
    while (candidate := session.next_candidate()) is not None:
        # As another program that meets a full disk, again and again while the search runs.
        with records_path(tmp_path).open("ab") as file:
            file.write(half[:n])
        session.finish(finished(candidate))
    with records_path(tmp_path).open("ab") as file:
        file.write(half[:n])
    again = make_session(tmp_path, trials=6, sampler="random", create=False)
    assert again.records() == session.records()
    drive(again)
    assert loaded(tmp_path, again).records() == again.records()


def test_a_last_line_that_lacks_its_end_alone_counts(run):
    path, expected = records_path(run.folder), run.records()
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    again = make_session(run.folder, trials=10, create=False, sampler="random")
    assert again.records() == expected
    drive(again)
    assert run.records() == again.records()


def test_line_ends_of_another_system_change_nothing(run):
    path, expected = records_path(run.folder), run.records()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert run.records() == expected
    make_session(run.folder, trials=30, create=False, sampler="random").next_candidate()
    assert len(run.trials()) == len(expected) + 1


@pytest.mark.parametrize(
    "how", ["a line less", "a line more", "an earlier copy", "emptied", "edited", "replaced"]
)
def test_a_study_that_is_changed_under_a_search_ends_it_unchanged(tmp_path, how):
    """As by ``sed -i``, an editor or a backup: the search must not append to another file."""
    path = records_path(tmp_path)
    session = make_session(tmp_path, trials=9, sampler="random")
    session.finish(finished(session.next_candidate()))
    earlier = path.read_bytes()
    candidate = session.next_candidate()
    lines = path.read_bytes().splitlines(keepends=True)
    whole = path.read_bytes()
    changed = {
        "a line less": b"".join(lines[:-2] + lines[-1:]),
        "a line more": whole + b'{"trial":1,"attempts":{}}\n',
        "an earlier copy": earlier,
        "emptied": b"",
        "edited": whole[:-20].replace(b'"state"', b'"STATE"') + whole[-20:-9] + b"#" * 9,
        "replaced": whole.replace(b"record", b"other record, and longer than before"),
    }[how]
    path.with_name("new").write_bytes(changed)
    path.with_name("new").replace(path)
    for _ in range(2):
        with pytest.raises(StorageError, match="changed by another program while this search ran"):
            session._store.save(finished(candidate))
        with pytest.raises(StorageError, match="changed by another program"):
            session._store.ask()
    assert path.read_bytes() == changed


def test_without_a_file_the_way_out_is_named(tmp_path, run):
    with pytest.raises(StorageError, match=r"has no records\.jsonl.*nas resume"):
        read_trials(tmp_path, None, "x", run.config.space)
    records_path(run.folder).write_bytes(b"")
    for read in (run.trials, lambda: make_session(run.folder, create=False)):
        with pytest.raises(StorageError, match=r"records\.jsonl is empty"):
            read()


def as_line(**line):
    return json.dumps(line).encode()


DAMAGED = {
    "garbage": b"garbage",
    "blank": b"",
    "binary": b"\x00\xff\x00",
    "half and another": b'{"trial":2,"attem' + as_line(trial=2, attempts={}),
    "a list": b"[1, 2]",
    "a number": b"3",
    "nested too deeply": b"[" * 100_000 + b"]" * 100_000,
    "no kind": b'{"a": 1}',
    "two kinds": as_line(trial=2, attempts={}, discarded=True),
    "a key too many": as_line(trial=2, attempts={}, more=1),
    "a key is missing": as_line(trial=2, record={}),
    "a key of another type": as_line(trial="2", attempts={}),
    "a trial that is a boolean": as_line(trial=True, attempts={}),
    "a trial below none": as_line(trial=-1, attempts={}),
    "a trial that no line has made": as_line(trial=99, attempts={}),
    "a record that is none": as_line(trial=2, record={"x": 1}, at=1.0),
    "a record that runs and is none": as_line(trial=2, record={"outcome": None}, at=1.0),
    "a record of another trial": b"ANOTHER",
    "a time that is a text": as_line(trial=2, record={"x": 1}, at="soon"),
    "a time that is none": as_line(trial=2, record={"x": 1}, at=None),
    "a time that is no number": as_line(trial=2, record={"x": 1}, at=math.nan),
    "a time beyond any date": as_line(trial=2, record={"x": 1}, at=1e300),
    "a time before any search": as_line(trial=2, record={"x": 1}, at=-5),
    "a value of megabytes": as_line(trial=2, record={"x" * 3_000_000: 1}, at=1.0),
    "attempts that are no counts": as_line(trial=2, attempts={"sure": "x"}),
    "attempts below none": as_line(trial=2, attempts={"sure": -5}),
    "a trial that is not discarded": as_line(trial=2, discarded=False),
    "genes that are there": as_line(trial=2, genes={}, sampler={}, at=1.0),
    "a second first line": as_line(study=["maximize", "minimize"]),
    "directions that are numbers": as_line(study=[1]),
    "a trial that has ended": as_line(trial=0, attempts={}),
    "cut inside a character": '{"trial":2,"attempts":{"é":1}}'.encode()[:-6],
    "a file system's zeros": b"\x00" * 5000,
    "zeros and another": b"\x00" * 100 + as_line(trial=2, attempts={}),
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("place", ["middle", "end"])
def test_every_reader_refuses_a_damaged_line_by_its_number(tmp_path, line, place):
    """A search that runs, one that resumes, and all that show a run: none passes it over."""
    run = make_run(tmp_path / "run", trials=6)
    path = records_path(run.folder)
    session = make_session(run.folder, trials=9, create=False, sampler="random")
    candidate = session.next_candidate()
    lines = path.read_bytes().splitlines(keepends=True)
    at, number = len(lines), candidate.number
    if place == "middle":
        # Just before trial 2 ends.
        ends = [b'"record"' in x and json.loads(x)["trial"] == 2 for x in lines]
        at, number = [n for n, is_of_2 in enumerate(ends) if is_of_2][-1], 2
    if line == b"ANOTHER":
        record = session.record(1).to_dict()
        line = as_line(trial=number, record=record, at=1.0)
    line = line.replace(b'"trial": 2', b'"trial": %d' % number)
    lines.insert(at, line + b"\n")
    whole = b"".join(lines)
    path.write_bytes(whole)
    said = rf"records\.jsonl is damaged at line {at + 1}: .*sed -i {at + 1}d"

    def go_on():
        make_session(run.folder, trials=9, create=False, sampler="random")

    for read in (run.trials, run.front, go_on, run.trials, go_on):
        if place == "middle" and b'"outcome": null' in line:
            # The final record of the trial counts, whatever is before it.
            continue
        with pytest.raises(StorageError, match=said) as error:
            read()
        assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    if place == "end":
        # The driver that is alive sees it when it writes, and each time after that.
        for _ in range(3):
            with pytest.raises(StorageError, match=said):
                session._store.save(finished(candidate))
    assert path.read_bytes() == whole
    # The way out that is named.
    del lines[at]
    path.write_bytes(b"".join(lines))
    assert len(run.trials()) == 7
    again = make_session(run.folder, trials=9, create=False, sampler="random")
    assert [r.state for r in drive(again).records() if r.state == "running"] == []


@pytest.mark.parametrize("key", ["value", "name"])
def test_genes_outside_of_the_space_are_refused_by_every_reader(run, key):
    path = records_path(run.folder)
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if b'"genes"' in line)
    line = json.loads(lines[at])
    line["genes"].update({"depth": 77} if key == "value" else {"colour": "red"})
    lines[at] = as_line(**line) + b"\n"
    path.write_bytes(b"".join(lines))
    for read in (run.trials, lambda: make_session(run.folder, create=False)):
        with pytest.raises(StorageError, match=rf"damaged at line {at + 1}: .*run's space"):
            read()


def test_a_line_that_is_gone_is_seen_by_those_after_it(run):
    path = records_path(run.folder)
    lines = path.read_bytes().splitlines(keepends=True)
    made = [n for n, line in enumerate(lines) if b'"genes"' in line]
    del lines[made[3]]
    path.write_bytes(b"".join(lines))
    for read in (run.trials, lambda: make_session(run.folder, create=False)):
        with pytest.raises(StorageError, match=r"damaged at line .*: the line that .* is gone"):
            read()


def test_a_place_with_a_line_end_in_its_name_is_shown_on_one_line(tmp_path):
    run = make_run(tmp_path / "a\nb" / "run", trials=3)
    with records_path(run.folder).open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(StorageError, match=r"a\\nb/run/records.jsonl is damaged") as error:
        run.trials()
    assert "\n" not in str(error.value)


def test_trials_of_a_study_share_what_is_the_same_in_them(tmp_path):
    session = drive(make_session(tmp_path, trials=6, sampler="random"))
    trials = loaded(tmp_path, session).frozen_trials()
    for name in trials[0].distributions:
        assert len({id(trial.distributions[name]) for trial in trials}) == 1
    assert len({id(name) for trial in trials for name in trial.params}) == len(trials[0].params)
