"""What is exported stands in its place whole, or not at all: whatever ends the process."""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from export_fakes import made_run

from nas.cli.main import main
from nas.exporting.staging import staged
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec

ARCHITECTURE = Architecture(32, (LayerSpec(AttentionSpec(2, 1, 16), FfnSpec(64)),), 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("runs") / "run", ARCHITECTURE, protocol="quick")


def fill(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "a").write_text("a")
    (folder / "b").write_text("b")


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_new_folder_appears_whole_and_readable_by_those_the_user_lets(tmp_path):
    before = os.umask(0o027)
    try:
        with staged(tmp_path / "x" / "to") as folder:
            fill(folder)
            (folder / "b").chmod(0o600)
            assert not (tmp_path / "x" / "to").exists()
    finally:
        os.umask(before)
    to = tmp_path / "x" / "to"
    assert names(tmp_path / "x") == ["to", "to/b", "to/deep", "to/deep/a"]
    rights = [path.stat().st_mode & 0o777 for path in (to, to / "deep", to / "b", to / "deep/a")]
    assert rights == [0o750, 0o750, 0o640, 0o640]


def test_an_empty_folder_stays_the_one_that_it_is(tmp_path, monkeypatch):
    to = tmp_path / "to"
    to.mkdir()
    inode = to.stat().st_ino
    monkeypatch.chdir(to)
    with staged(to.relative_to(to)) as folder:
        fill(folder)
        assert names(to) != []
    assert to.stat().st_ino == inode and names(to) == ["b", "deep", "deep/a"]
    assert os.listdir() and names(tmp_path)[0] == "to"


def test_what_is_there_is_not_touched(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(ValueError, match="new or empty"), staged(tmp_path / name):
            raise AssertionError("never here")
    assert names(tmp_path) == ["file", "full", "full/mine"]


@pytest.mark.parametrize("exists", [True, False])
def test_an_error_leaves_nothing(tmp_path, exists):
    if exists:
        (tmp_path / "to").mkdir()
    with pytest.raises(RuntimeError), staged(tmp_path / "to") as folder:
        fill(folder)
        raise RuntimeError
    assert names(tmp_path) == (["to"] if exists else [])


KILLED = """
import os, signal, sys
from pathlib import Path
from nas.exporting.staging import staged
with staged(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("exists", [True, False])
def test_what_a_killed_process_left_the_next_clears_away(tmp_path, exists):
    to = tmp_path / "to"
    if exists:
        to.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(to)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2 + exists and not (to / "half").exists()
    with staged(tmp_path / "other") as folder:
        fill(folder)
    with staged(to) as alive, staged(tmp_path / "third") as folder:
        fill(folder)
        (alive / "c").write_text("another process is at work here, and is let be")
    found = [name for name in names(tmp_path) if "/" not in name]
    assert found == ["other", "third", "to"] and names(to) == ["c"]


def words(run, to):
    return ["export", str(run.folder), "--trial", "0", "--to", str(to), "--quiet"]


# In a process of its own: other libraries of a test's process have handlers and stacks of signals.
ENDED = """
import os, signal, sys
from nas.cli.main import main
from nas.exporting import export
folder, *words = sys.argv[1:]
def ended(*_, **__):
    assert os.listdir(folder)
    os.kill(os.getpid(), signal.SIGTERM)
export.verify_artifact = ended
main(words)
"""


def test_a_kill_by_its_supervisor_leaves_nothing(run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ENDED, str(tmp_path), *words(run, tmp_path / "to")],
        check=False,
        timeout=200,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 128 + signal.SIGTERM and names(tmp_path) == []


@contextmanager
def files_of_at_most(n_bytes):
    """As a full disk: no file grows beyond that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(run, tmp_path, capsys):
    with files_of_at_most(10_000):
        code = main(words(run, tmp_path / "to"))
    error = capsys.readouterr().err.strip()
    assert code == 2 and len(error.splitlines()) == 1 and "File too large" in error
    assert names(tmp_path) == []


@pytest.mark.parametrize("given", ["inf", "nan", "0", "-1"])
def test_a_joule_tolerance_that_is_none_is_refused_before_anything(run, tmp_path, capsys, given):
    code = main([*words(run, tmp_path / "to"), f"--joule-tolerance={given}"])
    assert code == 2 and "joule_tolerance must be a finite number > 0" in capsys.readouterr().err
    assert names(tmp_path) == []
