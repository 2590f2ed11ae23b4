"""Runs and task files that were moved, and what a search leaves: rights, folders, scratch."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_fakes import make_run
from search_fakes import SPACE

import nas
from nas.cli.main import main
from nas.core.files import write_atomic, write_json
from nas.core.scratch import clear_abandoned, scratch
from nas.records.config import SearchConfig
from nas.store import new_run, run_file, run_folders

CONFIG = SearchConfig(task="digits", space=SPACE, trials=2)
TASK = "name: words\nkind: text_classification\ntrain: {0}/train.txt\nvalidation: {0}/train.txt\n"


def fill(folder, text=TASK, data="data"):
    (folder / "data").mkdir(parents=True)
    (folder / "words.yaml").write_text(text.format(data))
    (folder / "data" / "train.txt").write_text("good a fine film\nbad a dull film\n")


@pytest.fixture
def old(tmp_path):
    """A run whose task file and data are beside it."""
    fill(tmp_path / "old")
    config = replace(CONFIG, task=str(tmp_path / "old" / "words.yaml"))
    new_run.create(tmp_path / "old" / "run", config, "fake")
    return tmp_path / "old"


def gone_on_with(folder, task):
    run = run_file.load(folder)
    return run_file.resumed(run, replace(run.config, task=str(task)), run.driver)


def test_a_run_goes_on_where_it_and_its_task_were_moved_to(old, tmp_path):
    new = old.rename(tmp_path / "new")
    with pytest.raises(ValueError, match="words.yaml of run .* is gone.*--task"):
        nas.resume(new / "run")
    run = gone_on_with(new / "run", new / "words.yaml")
    assert run.config.task == str(new / "words.yaml")
    run_file.go_on(run)
    # From now on it knows the place, and what must not change there.
    again = run_file.load(new / "run")
    assert run_file.resumed(again, again.config, again.driver) == again
    (new / "data" / "train.txt").write_text("other\n")
    with pytest.raises(ValueError, match=r"data of the task .*new/data/train\.txt has changed"):
        run_file.resumed(again, again.config, again.driver)


def test_paths_in_a_moved_task_file_may_be_mended(old, tmp_path):
    (old / "data").rename(tmp_path / "elsewhere")
    moved = tmp_path / "mine.yaml"
    moved.write_text("# mended\n" + TASK.format(tmp_path / "elsewhere"))
    (old / "words.yaml").unlink()
    assert gone_on_with(old / "run", moved).config.task == str(moved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "data" / "train.txt").write_text("other\n"), "train.txt differ from"),
        (lambda f: (f / "data" / "train.txt").unlink(), "train.txt must exist"),
        (lambda f: (f / "words.yaml").write_text(TASK.format("data") + "seed: 3\n"), "words.yaml"),
        (lambda f: (f / "words.yaml").unlink(), "task must be where"),
    ],
)
def test_another_task_is_refused_by_name(old, tmp_path, capsys, change, words):
    new = old.rename(tmp_path / "new")
    change(new)
    before = (new / "run" / "run.json").read_bytes()
    for verb in (["resume"], ["export", "--trial", "0", "--to", str(tmp_path / "to")]):
        arguments = [*verb, str(new / "run"), "--task", str(new / "words.yaml"), "--quiet"]
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert (new / "run" / "run.json").read_bytes() == before


def test_a_run_of_a_task_that_is_no_file_takes_none(tmp_path, capsys):
    new_run.create(tmp_path / "run", CONFIG, "fake")
    assert main(["resume", str(tmp_path / "run"), "--task", "a.yaml", "--quiet"]) == 2
    assert "digits, which is no file" in capsys.readouterr().err


def test_a_renamed_run_is_shown(tmp_path, capsys):
    make_run(tmp_path / "run", trials=4)
    (tmp_path / "run").rename(tmp_path / "other")
    assert main(["front", str(tmp_path / "other")]) == 0
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_rights_that_the_umask_gives(tmp_path, mask):
    from safetensors.numpy import save_file

    before = os.umask(mask)
    try:
        write_json(tmp_path / "a.json", {})
        tensors = {"x": np.zeros(3)}
        write_atomic(tmp_path / "b.safetensors", lambda beside: save_file(tensors, str(beside)))
    finally:
        os.umask(before)
    rights = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert rights == {0o666 & ~mask} and len(list(tmp_path.iterdir())) == 2


def test_searches_that_begin_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "quickstart-3").mkdir(parents=True)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(run_folders._reserved, ["quickstart"] * 8, ["--run"] * 8))
    assert sorted(folder.name for folder in folders) == sorted(
        f"quickstart-{n}" for n in range(4, 12)
    )


def test_no_place_for_runs_is_one_line_that_names_the_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("a file")
    assert main(["search", "quickstart", "--trials", "1", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "run folder must be writable, got runs/quickstart-1" in said and "--run" in said
    assert Path("runs").read_text() == "a file"


def test_a_search_that_is_refused_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["search", "quickstart", "--meter", "nonsense", "--quiet"]
    assert main(arguments) == 2
    assert not list(tmp_path.rglob("quickstart-*"))
    assert main([*arguments, "--resume"]) == 2


ABANDONED = """
import os, signal, sys
from nas.core.scratch import scratch
with scratch("test") as folder:
    (folder / "data").write_text("x")
    print(folder, flush=True)
    if len(sys.argv) > 1:
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_dead_processes_left_is_cleared_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = subprocess.run(
        [sys.executable, "-c", ABANDONED], capture_output=True, text=True, check=False
    )
    assert left.returncode == -signal.SIGKILL
    dead = Path(left.stdout.strip())
    for name in ("joulenas-locks-0", "joulenas-mine", "other"):
        (tmp_path / name).mkdir()
    foreign = tmp_path / "joulenas-foreign"
    foreign.mkdir()
    owner = json.loads((dead / ".joulenas-owner").read_text())
    (foreign / ".joulenas-owner").write_text(json.dumps(owner | {"boot": "x", "host": "another"}))
    command = [sys.executable, "-c", ABANDONED, "waits"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as alive, scratch("own") as own:
        living = Path(alive.stdout.readline().strip())
        assert dead.is_dir() and living.is_dir()
        clear_abandoned()
        assert not dead.exists() and living.is_dir() and own.is_dir() and foreign.is_dir()
        alive.stdin.close()
    clear_abandoned()
    assert not living.exists() and not own.exists()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"joulenas-locks-0", "joulenas-mine", "joulenas-foreign", "other"}
