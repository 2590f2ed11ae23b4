"""Going on with a run: what it remembers, what must not have changed, and who may write to it."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from search_fakes import SPACE, drive, make_session

import nas
from nas.cli.main import main
from nas.records.config import SearchConfig
from nas.searching import study
from nas.store import lock as lock_module
from nas.store import new_run, run_file
from nas.store.driver import Driver
from nas.store.lock import RunBusyError, sole_writer

CONFIG = SearchConfig(task="digits", space=SPACE, trials=2)
TASK = (
    "name: words\nkind: text_classification\ntrain: train.txt\nvalidation: train.txt\ntest: data\n"
)


@pytest.fixture
def files(tmp_path):
    """A task of a user's, its data, and a file that the configuration does not name."""
    (tmp_path / "words.yaml").write_text(TASK)
    (tmp_path / "train.txt").write_text("good a fine film\nbad a dull film\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.txt").write_text("good film\n")
    (tmp_path / "space.yaml").write_text("name: mine\n")
    return tmp_path


def made(folder, **changes):
    config = replace(CONFIG, task=str(folder / "words.yaml"), **changes)
    new_run.create(folder / "run", config, "fake", files=[folder / "space.yaml"])
    return run_file.load(folder / "run")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("words.yaml", "task file"),
        ("train.txt", "data of the task"),
        ("data/test.txt", "data of the task"),
        ("space.yaml", "file"),
    ],
)
def test_a_search_does_not_go_on_with_changed_files(files, name, kind):
    run = made(files)
    assert run_file.resumed(run, run.config, run.driver) == run
    path = files / name
    path.write_text(path.read_text() + "# more\n")
    with pytest.raises(
        ValueError, match=rf"the {kind} .* has changed since run .* began"
    ) as error:
        run_file.resumed(run, run.config, run.driver)
    assert str(path if path.parent == files else path.parent) in str(error.value)


def test_files_that_are_gone_are_for_those_who_need_them_to_miss(files):
    run = made(files)
    (files / "space.yaml").unlink()
    (files / "train.txt").unlink()
    assert run_file.resumed(run, run.config, run.driver) == run


def test_a_space_edited_in_the_run_folder_is_refused(tmp_path):
    run = new_run.create(tmp_path / "run", CONFIG, "fake")
    drive(make_session(run.folder, trials=2))
    data = json.loads((run.folder / "run.json").read_text())
    data["config"]["space"]["depth"] = [1, 2]
    (run.folder / "run.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="the space in .* has changed"):
        nas.resume(run.folder)


def test_a_large_file_is_read_in_part_and_a_change_of_its_ends_is_seen(tmp_path, monkeypatch):
    from nas.records import fingerprints

    monkeypatch.setattr(fingerprints, "_BLOCK_BYTES", 16)
    path = tmp_path / "large.bin"
    hashes = set()
    for first, last in ((b"a", b"a"), (b"b", b"a"), (b"a", b"b")):
        path.write_bytes(first + b"." * 3000 + last)
        hashes.add(fingerprints._of_path(path))
    assert len(hashes) == 3


@pytest.mark.parametrize("key", ["fingerprints", "driver", "workload", "schema"])
def test_a_run_file_has_every_key(files, key):
    path = made(files).folder / "run.json"
    data = json.loads(path.read_text())
    del data[key]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"run.json must have exactly the keys .*{key}"):
        run_file.load(path.parent)


def test_resume_remembers_how_it_was_driven_and_takes_what_is_given_anew(tmp_path, monkeypatch):
    driver = Driver(3, "10.0.0.7:6379")
    new_run.create(tmp_path / "run", CONFIG, "fake", driver)
    asked = []
    monkeypatch.setattr(study, "_run_search", lambda *given: asked.append(given))
    nas.resume(tmp_path / "run")
    nas.resume(tmp_path / "run", trials=9, refine=4, workers=1, address="local")
    (config, _, before, *_), (more, folder, now, *_) = asked
    assert (config, before) == (CONFIG, driver)
    assert more == replace(CONFIG, trials=9, refine=4) and now == Driver(1)
    assert folder == tmp_path / "run"


def test_a_run_goes_on_without_ray_whatever_it_was_driven_with(tmp_path, monkeypatch):
    driver = Driver(3, "10.0.0.7:6379", 60.0, "tensorboard", 0.5)
    new_run.create(tmp_path / "run", CONFIG, "fake", driver)
    asked = []
    monkeypatch.setattr(study, "_run_search", lambda *given: asked.append(given[2]))
    nas.resume(tmp_path / "run", workers=0)
    assert asked == [Driver(0, trial_timeout_s=60.0)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["{tmp}/nowhere"], ["run must be the folder of a search"]),
        (["{tmp}/run", "--workers", "-1"], ["workers", "-1"]),
        (["{tmp}/run", "--workers", "0", "--log", "tensorboard"], ["workers", "log"]),
        (["{tmp}/run", "--trials", "0"], ["trials", "0"]),
        (["{tmp}/run", "--storage", "postgresql://h/d"], ["storage", "in its folder"]),
        (["{tmp}/run", "--address", "127.0.0.1:1"], ["address", "127.0.0.1:1"]),
    ],
)
def test_what_cannot_be_gone_on_with_is_one_line(tmp_path, capsys, options, words):
    new_run.create(tmp_path / "run", replace(CONFIG, meter="estimate"), "estimate")
    drive(make_session(tmp_path / "run", trials=2))
    kept = (tmp_path / "run" / "run.json").read_text()
    assert main(["resume", "--quiet", *(o.format(tmp=tmp_path) for o in options)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line
    assert (tmp_path / "run" / "run.json").read_text() == kept
    # Whoever was refused holds nothing.
    with sole_writer(tmp_path / "run"):
        pass


HOLD = """
import sys, time
from pathlib import Path
from nas.store.lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_names_its_holder_and_is_free_after_kill_9(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunBusyError, match=f"process {holder.pid} on "), sole_writer(tmp_path):
            raise AssertionError("two writers")
        holder.send_signal(signal.SIGKILL)
    with sole_writer(tmp_path):
        assert json.loads((tmp_path / "writer.lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / "writer.lock").read_text() == ""


def test_where_there_are_no_locks_age_stands_in(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock_module, "TOUCH_EACH_S", 0.01)
    path = tmp_path / "writer.lock"
    with sole_writer(tmp_path):
        os.utime(path, (0, 0))
        with pytest.raises(RunBusyError), sole_writer(tmp_path):
            raise AssertionError("two writers")
    # Held by another machine: alive while it touches the file, nobody's after a minute.
    other = {"pid": 1, "host": "elsewhere", "since": "2026-01-01"}
    path.write_text(json.dumps(other))
    with pytest.raises(RunBusyError, match="elsewhere"), sole_writer(tmp_path):
        raise AssertionError("two writers")
    os.utime(path, (0, 0))
    with sole_writer(tmp_path):
        pass


def test_a_lock_that_fails_otherwise_says_so(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output"), sole_writer(tmp_path):
        raise AssertionError("no lock")


def test_a_search_that_goes_on_forgets_why_it_ended_before(tmp_path):
    run = new_run.create(tmp_path / "run", CONFIG, "fake")
    run.end_early("8 trials in a row failed alike")
    assert run.stop_reason is not None
    run_file.go_on(run)
    assert run.stop_reason is None and run_file.load(run.folder) == run
