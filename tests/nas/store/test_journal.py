"""The embedded study against Optuna's own reading of it."""

import errno
import json
import os
import tracemalloc
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nas.core.retry import patience
from nas.store.journal import JournalFile, JournalStudies
from nas.store.journal_lines import StorageError
from nas.store.journal_memory import PackedTrial, Packer

SPACE = {f"gene{i}": CategoricalDistribution(("a", "b", 3, True)) for i in range(4)}


def opened(path):
    return JournalStudies(JournalFile(path))


def new_study(path, sampler=None):
    return optuna.create_study(
        storage=opened(path), directions=["maximize", "minimize"], sampler=sampler
    )


def ask(study):
    with study._storage._backend.as_one_entry():
        return study.ask(SPACE)


def facts(trials):
    return [
        (t.number, t.state, t.params, t.distributions, t.values, t.user_attrs, t.system_attrs)
        for t in trials
    ]


def by_optuna(path):
    """What Optuna's own classes make of the file."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    return facts(storage.get_all_trials(0))


@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe"])
def test_optuna_reads_what_we_wrote_and_so_do_we(tmp_path, sampler):
    path = tmp_path / "study.journal"
    made = {
        "random": optuna.samplers.RandomSampler,
        "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=3),
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=4),
    }[sampler](seed=1)
    study = new_study(path, made)
    study.enqueue_trial({"gene0": "b"}, user_attrs={"from": "us"})
    for number in range(14):
        trial = ask(study)
        trial.set_user_attr("record", {"n": number})
        if number % 5 == 4:
            study.tell(trial, state=TrialState.PRUNED)
        elif number < 12:
            study.tell(trial, [number / 20, float(trial.params["gene1"] == "a")])
    mine = facts(study.get_trials(deepcopy=False))
    assert mine == by_optuna(path) == facts(opened(path).get_all_trials(0, deepcopy=False))
    assert mine[0][2]["gene0"] == "b" and {state for _, state, *_ in mine} == {
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.RUNNING,
    }
    # One line for a proposal, one for its record, one for its end.
    assert len(path.read_text().splitlines()) < 14 * 3 + 10 + (
        14 * 2 if sampler != "random" else 0
    )


def test_lists_of_trials_are_those_that_optuna_gives_at_every_step(tmp_path):
    study = new_study(tmp_path / "s", optuna.samplers.RandomSampler(seed=0))
    storage, running = study._storage, []
    for step in range(40):
        running.append(ask(study))
        # Trials end out of order, some of them never.
        if step % 3 == 2:
            study.tell(running.pop(step % len(running)), [0.5, 1.0])
        if step == 20:
            study.enqueue_trial({"gene2": 3})
        for states in (None, (TrialState.RUNNING,), (TrialState.WAITING,), (TrialState.COMPLETE,)):
            expected = JournalStorage.get_all_trials(storage, 0, False, states)
            assert facts(storage.get_all_trials(0, False, states)) == facts(expected)


def test_what_another_process_wrote_is_read_in_its_place(tmp_path):
    path = tmp_path / "s"
    study = new_study(path)
    ask(study)
    other = optuna.load_study(
        study_name=None, storage=JournalStorage(JournalFileBackend(str(path)))
    )
    other.set_user_attr("note", "from a dashboard")
    trial = ask(study)
    trial.set_user_attr("a", 1)
    study.tell(trial, [1.0, 2.0])
    assert study.user_attrs == {"note": "from a dashboard"}
    assert facts(study.get_trials()) == by_optuna(path)


@pytest.mark.parametrize("whole", [True, False])
def test_half_a_line_left_by_a_kill_is_cut_off_by_the_next_writer(tmp_path, whole):
    path = tmp_path / "s"
    study = new_study(path)
    study.tell(ask(study), [0.1, 0.2])
    before = path.read_bytes()
    half = json.dumps({"op_code": 8, "trial_id": 0, "user_attr": {"x": "y" * 9000}})[:-5]
    path.write_bytes(before + half.encode() if whole else before[:-7])
    again = optuna.load_study(study_name=None, storage=opened(path))
    n = len(again.get_trials())
    again.tell(ask(again), [0.3, 0.4])
    assert len(by_optuna(path)) == n + 1 and by_optuna(path)[-1][1] == TrialState.COMPLETE


def test_what_could_not_be_written_was_not_or_goes_before_the_next(tmp_path, monkeypatch):
    path = tmp_path / "s"
    study = new_study(path)
    trial = ask(study)
    before = path.read_bytes()
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(_):
        raise full

    with monkeypatch.context() as patch:
        patch.setattr("nas.store.journal.os.fsync", fails)
        with pytest.raises(OSError, match="No space"):
            trial.set_user_attr("record", 1)
    assert path.read_bytes() == before and study.get_trials()[0].user_attrs == {}
    trial.set_user_attr("record", 1)
    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "_append", lambda *_: fails(None))
        with pytest.raises(OSError, match="No space"):
            ask(study)
    later = ask(study)
    later.set_user_attr("record", 3)
    # The proposal that failed to be written has its place: numbers mean the same in both.
    assert facts(study.get_trials()) == by_optuna(path)
    assert later.number == 2 and by_optuna(path)[2][5] == {"record": 3}


@pytest.mark.parametrize("n", [1, 30, 400])
def test_half_a_line_of_another_writer_is_cut_off_whenever_it_comes(tmp_path, n):
    path = tmp_path / "s"
    study = new_study(path)
    study.tell(ask(study), [0.1, 0.2])
    half = json.dumps({"op_code": 2, "worker_id": "dash", "user_attr": {"x": "y" * 9000}}).encode()
    for tell in range(3):
        # As a dashboard that meets a full disk, again and again while the search runs.
        with path.open("ab") as file:
            file.write(half[:n])
        study.tell(ask(study), [0.3, float(tell)])
    assert facts(study.get_trials()) == by_optuna(path) and len(by_optuna(path)) == 4


@pytest.mark.parametrize("reopened", [False, True])
def test_a_line_that_lacks_its_end_alone_is_kept(tmp_path, reopened):
    path = tmp_path / "s"
    study = new_study(path)
    trial = ask(study)
    trial.set_user_attr("record", 1)
    before = path.read_bytes()
    if reopened:
        # An editor has taken it off.
        path.write_bytes(before.removesuffix(b"\n"))
        study = optuna.load_study(study_name=None, storage=opened(path))
    else:
        line = json.dumps({"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"a": 1}})
        path.write_bytes(before + line.encode())
    ask(study)
    assert facts(study.get_trials()) == by_optuna(path) and len(by_optuna(path)) == 2
    assert study.get_trials()[0].user_attrs == {"record": 1}
    assert study.user_attrs == ({} if reopened else {"a": 1})


class Broken:
    """A file of a disk that takes ``n`` bytes, flushes nothing, and lets nothing be cut off."""

    def __init__(self, file, n):
        self.file, self.n = file, n

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def write(self, data):
        self.file.write(data[: self.n])
        raise OSError(errno.EIO, "Input/output error")

    def truncate(self, size):
        raise OSError(errno.ESTALE, "Stale file handle")


@pytest.mark.parametrize("n", [0, 5, 40, 100_000])
@pytest.mark.parametrize("follows", ["nothing", "half a line", "a line"])
@pytest.mark.parametrize("again", ["at once", "later"])
def test_a_write_that_failed_and_could_not_be_undone_leaves_no_trace(
    tmp_path, monkeypatch, n, follows, again
):
    path = tmp_path / "s"
    study = new_study(path)
    trial = ask(study)
    note = {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"a": 1}}
    line = json.dumps(note, separators=(",", ":")).encode()
    opens, broken = Path.open, [n]

    def breaks(self, mode="r", *arguments, **named):
        file = opens(self, mode, *arguments, **named)
        return Broken(file, broken.pop()) if mode == "ab" and broken else file

    def other_writes():
        with opens(path, "ab") as file:
            file.write({"nothing": b"", "half a line": line[:30], "a line": line + b"\n"}[follows])

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", breaks)
        if again == "at once":
            patch.setattr("nas.core.retry.time.sleep", lambda _: other_writes())
            with patience(wait_s=5.0):
                study.enqueue_trial({"gene0": "b"})
        else:
            with pytest.raises(OSError, match="Input/output"):
                study.enqueue_trial({"gene0": "b"})
            other_writes()
            study.enqueue_trial({"gene0": "b"})
    trial.set_user_attr("record", 1)
    # Not once more than was asked for, nor damaged.
    assert facts(study.get_trials()) == by_optuna(path) and len(by_optuna(path)) == 2
    assert study.user_attrs == ({"a": 1} if follows == "a line" else {})
    assert optuna.load_study(study_name=None, storage=opened(path)).user_attrs == study.user_attrs


@pytest.mark.parametrize("target", ["a/study.journal", "study.journal", "/gone/study.journal"])
def test_a_lock_that_a_killed_driver_left_is_taken_away(tmp_path, monkeypatch, target):
    """Also where the link leads nowhere, as with a relative path or in a run that was moved."""
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    path = Path("a/study.journal")
    study = new_study(path)
    monkeypatch.setattr("nas.store.journal_lock._STALE_S", 0.2)
    os.symlink(target, "a/study.journal.lock")
    study.tell(ask(study), [0.1, 0.2])
    assert len(by_optuna(path)) == 1 and not os.path.lexists("a/study.journal.lock")


def test_the_lock_leads_to_the_journal_from_anywhere(tmp_path, monkeypatch):
    """Other programs look at the age of what it names, and wait for ever where that is gone."""
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    file = JournalFile(Path("a/study.journal"))
    new_study(Path("a/study.journal"))
    file._lock.acquire()
    assert Path("a/study.journal.lock").samefile("a/study.journal")
    file._lock.release()


@pytest.mark.parametrize(
    "how", ["a line less", "an earlier copy", "emptied", "edited", "replaced"]
)
def test_a_study_that_is_changed_under_a_search_ends_it_unchanged(tmp_path, how):
    """As by ``sed -i``, an editor or a backup: what the search would append has no place there."""
    path = tmp_path / "s"
    study = new_study(path)
    study.tell(ask(study), [0.1, 0.2])
    earlier = path.read_bytes()
    trial = ask(study)
    trial.set_user_attr("record", 1)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "a line less": b"".join(lines[:-2] + lines[-1:]),
        "an earlier copy": earlier,
        "emptied": b"",
        "edited": path.read_bytes().replace(b'"record":1', b'"record":2'),
        "replaced": b"".join(lines).replace(b"record", b"other record, and longer than before"),
    }[how]
    path.with_name("new").write_bytes(changed)
    path.with_name("new").replace(path)
    for _ in range(2):
        with pytest.raises(StorageError, match="changed by another program while this search ran"):
            trial.set_user_attr("record", 2)
        with pytest.raises(StorageError, match="changed by another program"):
            ask(study)
    assert path.read_bytes() == changed


def test_finished_trials_are_packed_and_say_what_they_said(tmp_path):
    study = new_study(tmp_path / "s", optuna.samplers.RandomSampler(seed=0))
    for number in range(6):
        trial = ask(study)
        trial.set_user_attr("record", {"n": number, "of": ["a", None, 0.1]})
        if number < 4:
            study.tell(trial, [0.5, 1.0])
    mine = study.get_trials(deepcopy=False)
    assert [type(trial) is PackedTrial for trial in mine] == [True] * 4 + [False] * 2
    optunas = JournalStorage(JournalFileBackend(str(tmp_path / "s"))).get_all_trials(0)
    assert mine[:4] == optunas[:4] and mine[0] != optunas[1]
    assert len({id(trial.distributions) for trial in mine[:4]}) == 1
    # Whoever copies a study, or changes his copy of a trial, meets nothing unusual.
    copied = study.get_trials()[0]
    copied.set_user_attr("mine", 1)
    assert copied.user_attrs == {"record": {"n": 0, "of": ["a", None, 0.1]}, "mine": 1}
    other = new_study(tmp_path / "other")
    other.add_trials(mine[:4])
    assert facts(other.get_trials()) == facts(optunas[:4])


def test_a_packed_trial_takes_a_fraction_of_the_memory():
    """What a search of ours keeps of a trial: two dozen genes, and its record."""
    genes = {f"gene{i}": CategoricalDistribution(("fp32", "int8", i)) for i in range(24)}
    record = {"record": {f"figure{i}": [{"value": i / 7, "unit": "J"}] * 3 for i in range(20)}}

    def replayed(number):
        """A trial as it comes out of lines of JSON, with nothing shared."""
        own = {
            name: optuna.distributions.json_to_distribution(
                optuna.distributions.distribution_to_json(one)
            )
            for name, one in genes.items()
        }
        return optuna.trial.create_trial(
            params={name: own[name].choices[number % 3] for name in own},
            distributions=own,
            values=[0.5, number],
            user_attrs=json.loads(json.dumps(record)),
        )

    def bytes_of_100(made):
        tracemalloc.start()
        kept = [made(number) for number in range(100)]
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(kept) == 100
        return size

    packer = Packer()
    packer.packed(replayed(0))
    whole = bytes_of_100(replayed)
    assert bytes_of_100(lambda number: packer.packed(replayed(number))) < whole / 5
