"""Caches are closed to other users and need no home; locks are shared and hold nothing."""

import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nas.core.user_folders import (
    ForeignFolderError,
    cache_folder,
    private_folder,
    shared_folder,
    use_private_compiler_caches,
)
from predictors.measurement.exclusive import DeviceLock


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def environment(monkeypatch, tmp_path):
    monkeypatch.delenv("JOULENAS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield monkeypatch
    os.environ.pop("JOULENAS_CACHE", None)


def test_a_cache_is_closed_to_others_whatever_the_umask(environment, tmp_path):
    before = os.umask(0)
    try:
        folder = cache_folder("tasks")
    finally:
        os.umask(before)
    assert folder == tmp_path / "cache" / "joulenas" / "tasks"
    assert mode(folder) == mode(folder.parent) == 0o700
    folder.chmod(0o777)
    assert mode(cache_folder("tasks")) == 0o700


@pytest.mark.parametrize("xdg", [None, "", "relative", "{tmp}/file/below", "/proc/nowhere"])
@pytest.mark.parametrize("home", [None, "/proc/nowhere", "{tmp}/file"])
def test_without_a_home_there_is_a_private_folder(xdg, home, environment, tmp_path):
    (tmp_path / "file").touch()
    for name, value in (("XDG_CACHE_HOME", xdg), ("HOME", home)):
        if value is None:
            environment.delenv(name)
        else:
            environment.setenv(name, value.format(tmp=tmp_path))
    if home is None:
        # As for a user id that is not among the users.
        environment.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    environment.chdir(tmp_path)
    folder = cache_folder("tasks")
    assert folder.parent.name.startswith("joulenas-cache-") and mode(folder.parent) == 0o700
    # Processes that this one starts find the same.
    assert cache_folder("tasks") == folder and os.environ["JOULENAS_CACHE"] == str(folder.parent)
    assert not (tmp_path / "relative").exists() and not (tmp_path / "~").exists()


def test_a_cache_made_for_want_of_a_home_goes_with_its_process(tmp_path):
    code = (
        "from nas.core.user_folders import cache_folder; import os;"
        "print(cache_folder('tasks')); os.fork() or os._exit(0)"
    )
    environment = os.environ | {"XDG_CACHE_HOME": "/proc/nowhere", "TMPDIR": str(tmp_path)}
    environment.pop("JOULENAS_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path)) and list(tmp_path.iterdir()) == []


def test_a_folder_that_may_be_somebody_elses_is_not_used(environment, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "joulenas").symlink_to(theirs)
    folder = cache_folder("plugins")
    assert list(theirs.iterdir()) == [] and folder.parent.name.startswith("joulenas-cache-")
    said = capsys.readouterr().err
    assert str(tmp_path / "cache" / "joulenas") in said and said.count("\n") == 1
    (tmp_path / "file").touch()
    for path in (tmp_path / "cache" / "joulenas", tmp_path / "file"):
        with pytest.raises(ForeignFolderError):
            private_folder(path)
        with pytest.raises(ForeignFolderError):
            shared_folder(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_a_cache_of_another_user_is_not_used(environment, tmp_path):
    theirs = tmp_path / "cache" / "joulenas"
    theirs.mkdir(parents=True)
    os.chown(theirs, 12345, 12345)
    assert cache_folder().name.startswith("joulenas-cache-") and list(theirs.iterdir()) == []


def hold(folder, ready, end):
    # Without an entry among the users, so that nothing depends on a name.
    if os.geteuid() == 0:
        os.setgid(12345)
        os.setuid(12345)
    os.umask(0o077)
    with DeviceLock(folder, "cpu").exclusive():
        ready.set()
        end.wait(20)


def test_users_share_the_locks_of_a_device(environment, tmp_path):
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    folder = tmp_path / "joulenas-locks"
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(folder, ready, end))
    other.start()
    assert ready.wait(20)
    mine = context.Event()

    def wait():
        with DeviceLock(folder, "cpu").exclusive():
            mine.set()

    waiting = context.Process(target=wait)
    waiting.start()
    assert not mine.wait(0.5)
    end.set()
    assert mine.wait(20)
    waiting.join()
    other.join()
    assert mode(folder) == 0o1777
    assert all(path.stat().st_size == 0 for path in folder.iterdir())


def test_a_lock_that_is_a_link_is_not_opened(environment, tmp_path):
    folder, target = tmp_path / "joulenas-locks", tmp_path / "target"
    shared_folder(folder)
    (folder / "cpu.turnstile").symlink_to(target)
    with DeviceLock(folder, "cpu").exclusive():
        pass
    assert not target.exists()
    own = tmp_path / f"joulenas-locks-{os.geteuid()}"
    assert mode(own) == 0o700 and len(list(own.glob("cpu.[td]*"))) == 2


@pytest.mark.thorough
def test_compiled_code_is_not_kept_where_others_could_have_put_it(tmp_path):
    code = """
import torch
from search_spaces.compression.torch_internals import use_private_caches
import torch._dynamo
use_private_caches()
print(torch.compile(lambda x: torch.relu(x) * 2 + 1)(torch.ones(64)).sum().item())
"""
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "tmp"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "JOULENAS_CACHE"):
        environment.pop(name, None)
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "192.0\n", done.stderr
    kept = [p for p in (tmp_path / "cache" / "joulenas" / "inductor").rglob("*") if p.is_file()]
    left = [p for p in (tmp_path / "tmp").rglob("*") if p.is_file()]
    assert kept and left == [], left


def test_versions_of_torch_share_no_compiled_code(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COMPILER_PATH", "")
    monkeypatch.delenv("JOULENAS_CACHE", raising=False)
    folders = set()
    for version in ("2.13.0", "2.14.0"):
        monkeypatch.setattr("nas.core.user_folders.metadata.version", lambda _, v=version: v)
        for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
            monkeypatch.delenv(name, raising=False)
        use_private_compiler_caches()
        folders |= {os.environ["TORCHINDUCTOR_CACHE_DIR"], os.environ["TRITON_CACHE_DIR"]}
    assert len(folders) == 4 and all(mode(Path(folder)) == 0o700 for folder in folders)


@pytest.mark.skipif(
    not (shutil.which("ld.gold") and shutil.which("g++")), reason="needs GCC and gold"
)
def test_compiled_code_is_linked_by_gold_and_a_users_own_tools_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPILER_PATH", "/opt/tools")
    monkeypatch.delenv("JOULENAS_CACHE", raising=False)
    use_private_compiler_caches()
    use_private_compiler_caches()
    own, *others = os.environ["COMPILER_PATH"].split(os.pathsep)
    assert others == ["/opt/tools"] and own.startswith(str(tmp_path))
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(tmp_path / "code.so")]
    subprocess.run(command, input="int answer() { return 42; }", text=True, check=True)
    assert b".note.gnu.gold-version" in (tmp_path / "code.so").read_bytes()
