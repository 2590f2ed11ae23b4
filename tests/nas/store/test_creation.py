"""A search killed at any write while its run is made: resume makes what is missing."""

import errno
import gc
import os
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from run_fakes import make_run
from search_fakes import SPACE

import nas
from nas.cli.main import main
from nas.records.config import SearchConfig
from nas.searching import study
from nas.store import new_run, run_file
from nas.store.driver import Driver
from nas.store.lock import sole_writer
from nas.store.storage import StorageError
from nas.tasks.registry import get_task

CONFIG = SearchConfig(
    task="digits", space=SPACE, trials=2, meter="estimate", sampler="random", batch_size=16
)
# What of the interpreter's events changes a file system.
_CHANGES = {"os.rename", "os.mkdir", "os.symlink", "os.link", "os.remove", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@pytest.fixture
def drives(monkeypatch):
    """Runs that searches came to drive: no Ray, and no trial."""
    driven = []
    monkeypatch.setattr("nas.cluster.connect.cluster", lambda *_: nullcontext())
    monkeypatch.setattr(study, "_drive", lambda run, store, *_: driven.append((run, store)))
    return driven


def changes(event, arguments, below):
    """Whether an audit event changes a file below one of the folders ``below``."""
    if event == "open":
        path, _, flags = arguments
        is_change = bool(flags & _WRITES)
    else:
        path, is_change = arguments[0], event in _CHANGES
        if event == "os.symlink":
            path = arguments[1]
    return is_change and isinstance(path, str | os.PathLike) and str(path).startswith(below)


def killed_at(n, begin, *below):
    """Call ``begin`` in a process that dies before its change number ``n``; whether it did."""
    child = os.fork()
    if child == 0:
        left = [n]

        def hook(event, arguments):
            if (event == "open" or event in _CHANGES) and changes(event, arguments, below):
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1

        # Nothing of the parent's may be ended here.
        gc.disable()
        sys.addaudithook(hook)
        try:
            begin()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def check_whole(run, config):
    """All that a search needs is there, as an undisturbed one makes it."""
    assert run.is_created and run_file.load(run.folder) == run
    inputs = get_task("digits").split("train").inputs[: config.batch_size]
    for place in (run.inputs_path, run.inputs_place):
        assert np.array_equal(np.load(place), inputs)
    assert (run.folder / "trials").is_dir() and run.trials() == []
    assert not (run.folder / "creating.json").exists()
    if config.warm_start:
        assert (run.folder / "warm_start.json").is_file()


@pytest.mark.parametrize("kind", ["plain", "files elsewhere", "warm start", "database"])
def test_a_kill_at_each_write_of_creation_costs_nothing(tmp_path, drives, kind):
    config = CONFIG
    if kind == "files elsewhere":
        config = replace(config, files_at=str(tmp_path / "files"))
    elif kind == "warm start":
        make_run(tmp_path / "earlier", trials=4)
        config = replace(config, warm_start=(str(tmp_path / "earlier"),))
    elif kind == "database":
        config = replace(config, storage=f"sqlite:///{tmp_path}/study.db")
    n, seen = 0, set()
    while True:
        folder = tmp_path / f"run{n}"
        below = (str(folder), str(tmp_path / "files"))
        if not killed_at(n, lambda folder=folder: nas.search(config, folder), *below):
            break
        drives.clear()
        if run_file.is_run(folder):
            # A database elsewhere is for the user to name again.
            run = nas.resume(folder, storage=config.storage)
            seen.add("resumed")
        else:
            # It had not written what it was to do: the same line begins anew.
            run = nas.search(config, folder)
            seen.add("begun anew")
        assert len(drives) == 1
        check_whole(run, config)
        n += 1
    assert n > 10 and seen == {"resumed", "begun anew"}
    check_whole(run_file.load(folder, storage=config.storage), config)


@pytest.mark.parametrize("name", ["inputs.npy", "warm_start.json", "trials"])
def test_what_is_gone_from_a_run_is_made_again(tmp_path, drives, name):
    make_run(tmp_path / "earlier", trials=4)
    config = replace(CONFIG, warm_start=(str(tmp_path / "earlier"),))
    run = nas.search(config, tmp_path / "run")
    path = run.folder / name
    before = path.read_bytes() if path.is_file() else None
    path.rmdir() if path.is_dir() else path.unlink()
    check_whole(nas.resume(run.folder), config)
    assert before is None or path.read_bytes() == before


def test_inputs_are_those_that_earlier_trials_were_measured_with(tmp_path, drives):
    run = nas.search(replace(CONFIG, files_at=str(tmp_path / "files")), tmp_path / "run")
    measured = np.load(run.inputs_place) + 1
    np.save(run.inputs_place, measured)
    run.inputs_path.unlink()
    nas.resume(run.folder)
    assert np.array_equal(np.load(run.inputs_path), measured)


def test_a_study_that_is_gone_is_not_begun_anew_where_trials_are_kept(tmp_path, drives):
    run = nas.search(CONFIG, tmp_path / "run")
    journal = run.folder / "records.jsonl"
    journal.unlink()
    (run.folder / "trials" / "0").mkdir()
    with pytest.raises(StorageError, match=r"has no records\.jsonl"):
        nas.resume(run.folder)
    assert not journal.exists()
    (run.folder / "trials" / "0").rmdir()
    check_whole(nas.resume(run.folder), CONFIG)


def test_a_folder_with_anything_else_is_no_new_one(tmp_path, drives):
    for name in ("notes.txt", ".hidden", "trials", "records.jsonl"):
        folder = tmp_path / name / "run"
        folder.mkdir(parents=True)
        (folder / name).touch()
        with pytest.raises(ValueError, match="must be new or empty"):
            nas.search(CONFIG, folder)
        assert [path.name for path in folder.iterdir()] == [name]


def test_a_search_beside_one_that_begins_there_is_refused(tmp_path, drives):
    (tmp_path / "run").mkdir()
    with sole_writer(tmp_path / "run"):
        with pytest.raises(Exception, match="is being written by another search"):
            nas.search(CONFIG, tmp_path / "run")
        assert (tmp_path / "run").is_dir()


def test_what_shows_a_run_says_that_it_was_not_made_whole(tmp_path, capsys):
    new_run.begin(tmp_path / "run", CONFIG, "estimate")
    assert main(["front", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "records.jsonl" in line and "nas resume" in line


class Notes:
    def __init__(self):
        self.notes = []

    def on_wait(self, reason):
        self.notes.append(reason)


@pytest.mark.parametrize(
    "name", ["torch", "torchao", "ray", "optuna", "numpy", "joulenas", "python"]
)
def test_resume_says_what_libraries_differ_from_the_last_start(
    tmp_path, drives, monkeypatch, name
):
    run = nas.search(CONFIG, tmp_path / "run")
    heard = Notes()
    nas.resume(run.folder, listener=heard)
    assert heard.notes == []
    true = nas.core.versions.versions()
    monkeypatch.setattr(nas.core.versions, "versions", lambda: true | {name: "99.1"})
    nas.resume(run.folder, listener=heard)
    (note,) = heard.notes
    assert f"{name} {true[name]}, now 99.1" in note and note.count(", now ") == 1
    nas.resume(run.folder, listener=heard)
    assert len(heard.notes) == 1
    again = run_file.load(run.folder)
    assert [start.versions[name] for start in again.starts] == [true[name]] * 2 + ["99.1"] * 2
    assert again.versions == true and again.driver == Driver()


def test_resume_without_a_listener_logs_it(tmp_path, drives, monkeypatch, caplog):
    run = nas.search(CONFIG, tmp_path / "run")
    true = nas.core.versions.versions()
    monkeypatch.setattr(nas.core.versions, "versions", lambda: true | {"torch": "99.1"})
    nas.resume(run.folder)
    assert "torch" in caplog.text and "now 99.1" in caplog.text


@pytest.mark.parametrize(
    ("n", "number"),
    [(n, (errno.ENOSPC, errno.EROFS, errno.EACCES)[n % 3]) for n in range(12)],
)
def test_a_folder_that_cannot_be_written_is_one_line_and_nothing_is_lost(
    tmp_path, drives, monkeypatch, number, n
):
    """Whichever write of a new search or of ``nas resume`` it is that fails."""
    # Where it is the study that cannot be written, the search waits for storage first.
    monkeypatch.setenv("JOULENAS_PATIENCE_S", "0.2")
    run = make_run(tmp_path / "run", trials=3)
    folder = {"search": tmp_path / "new", "resume": run.folder}
    before = run.trials()
    fails = [n]

    def hook(event, arguments):
        below = tuple(map(str, folder.values()))
        if fails and (event == "open" or event in _CHANGES) and changes(event, arguments, below):
            fails[0] -= 1
            if fails[0] < 0 and event != "os.remove":
                raise OSError(number, os.strerror(number), str(arguments[0]))

    hooks.append(hook)
    for verb, words in (
        ("search", "run folder must be writable, got "),
        ("resume", "run folder "),
    ):
        fails[:] = [n]
        try:
            if verb == "search":
                nas.search(CONFIG, folder[verb])
            else:
                nas.resume(folder[verb], trials=5)
        except (ValueError, StorageError) as error:
            said = str(error)
            assert said.startswith((words, "storage of run ")) and os.strerror(number) in said
            assert said.count("must be writable") <= 1 and ".tmp" not in said.split("(")[0]
        fails.clear()
    hooks.remove(hook)
    assert nas.load(run.folder).trials() == before
    assert nas.resume(run.folder, trials=5).config.trials == 5
    if not run_file.is_run(folder["search"]):
        nas.search(CONFIG, folder["search"])
    check_whole(run_file.load(folder["search"]), CONFIG)


# Of the interpreter, hooks cannot be taken away.
hooks = []
sys.addaudithook(lambda event, arguments: [hook(event, arguments) for hook in list(hooks)])
