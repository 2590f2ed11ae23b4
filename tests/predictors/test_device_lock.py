"""One lock for a board on a machine, whoever asks and whatever it is called there."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes import FakeClock, FakeGpu, FakeNvml

from predictors.measurement import exclusive
from predictors.measurement.exclusive import DeviceLock, lock_folder
from predictors.meters.base import MeterError
from predictors.meters.nvml import NvmlMeter, board_uuid


def takes(lock, seconds=10.0):
    """Whether ``lock`` can be had alone within so many seconds."""
    got = threading.Event()

    def take():
        with lock.exclusive():
            got.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(seconds)
    return got.is_set()


def test_the_folder_is_the_machines_and_not_the_callers(monkeypatch, tmp_path):
    monkeypatch.delenv("JOULENAS_LOCK_FOLDER")
    here = lock_folder()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    code = "from predictors.measurement.exclusive import lock_folder; print(lock_folder())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert Path(there.strip()) == here == lock_folder()
    monkeypatch.setenv("JOULENAS_LOCK_FOLDER", str(tmp_path / "own"))
    assert lock_folder() == tmp_path / "own"


def test_a_relative_folder_is_another_one_in_each_process_and_refused(monkeypatch):
    monkeypatch.setenv("JOULENAS_LOCK_FOLDER", "locks")
    with pytest.raises(MeterError, match="JOULENAS_LOCK_FOLDER must be an absolute path"):
        DeviceLock(None, "cpu")


def test_what_others_put_beside_a_lock_is_no_process_of_ours(tmp_path):
    lock = DeviceLock(tmp_path, "cpu")
    with lock.shared():
        pass
    strange = tmp_path / "cpu.process-strange"
    strange.touch()
    # As long as nobody writes to a pipe, opening it to read waits.
    os.mkfifo(tmp_path / "cpu.process-123")
    with strange.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock.processes() == {os.getpid()}


def test_every_user_of_the_machine_may_lock(tmp_path):
    before = os.umask(0o077)
    try:
        with DeviceLock(tmp_path / "locks", "cpu").shared():
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o1777
    files = list((tmp_path / "locks").iterdir())
    assert len(files) >= 2 and all(stat.S_IMODE(f.stat().st_mode) == 0o644 for f in files)
    # Another user cannot write them, and need not.
    for file in files:
        file.chmod(0o444)
    assert takes(DeviceLock(tmp_path / "locks", "cpu"))


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MeterError, match="set JOULENAS_LOCK_FOLDER"),
        DeviceLock(tmp_path / "file" / "locks", "cpu").shared(),
    ):
        pass


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "cpu.turnstile").symlink_to(victim)
    with DeviceLock(tmp_path / "locks", "cpu").shared():
        pass
    # The processes of this user wait for each other all the same, in a folder of theirs.
    assert not victim.exists()
    assert (tmp_path / f"locks-{os.geteuid()}" / "cpu.turnstile").is_file()


def test_one_board_has_one_lock_whatever_processes_call_it(monkeypatch, tmp_path):
    driver = FakeNvml(FakeClock(), FakeGpu("GPU-aa-1"), FakeGpu("GPU-bb-2"))
    monkeypatch.setattr(exclusive, "board_uuid", lambda device: board_uuid(device, driver))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    second = DeviceLock(tmp_path, "cuda:1")
    for listed, device in (("1", "cuda:0"), ("GPU-bb", "cuda:0"), ("GPU-a,GPU-bb-2", "cuda:1")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        same = DeviceLock(tmp_path, device)
        with second.shared():
            assert not takes(same, 0.2), listed
        assert takes(same)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with second.shared():
        assert takes(DeviceLock(tmp_path, "cuda:0"))


def test_holding_it_twice_waits_for_nobody_and_lets_go_once(tmp_path):
    lock, other = DeviceLock(tmp_path, "cpu"), DeviceLock(tmp_path, "cpu")
    with lock.shared():
        waiting = threading.Thread(target=takes, args=(other,), daemon=True)
        waiting.start()
        # With somebody at the turnstile, waiting there would be for ever.
        waiting.join(0.2)
        with lock.shared():
            pass
        assert not takes(DeviceLock(tmp_path, "cpu"), 0.2)
    waiting.join(10)
    assert not waiting.is_alive()


def test_released_inside_shared_others_measure_meanwhile(tmp_path):
    lock, other = DeviceLock(tmp_path, "cpu"), DeviceLock(tmp_path, "cpu")
    with lock.shared():
        assert not takes(other, 0.2)
        with lock.released():
            assert takes(DeviceLock(tmp_path, "cpu"))
        assert not takes(DeviceLock(tmp_path, "cpu"), 0.2)


def test_our_processes_are_those_that_opened_the_lock_and_live(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from predictors.measurement.exclusive import DeviceLock\n"
        "with DeviceLock(Path(sys.argv[1]), 'cpu').shared():\n"
        "    pass\n"
        "print('open', flush=True)\n"
        "time.sleep(60)\n"
    )
    lock = DeviceLock(tmp_path, "cpu")
    assert lock.processes() == {os.getpid()}
    trainer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout.readline() == "open\n"
    try:
        assert lock.processes() == {os.getpid(), trainer.pid}
        assert DeviceLock(tmp_path, "cuda:3").processes() == {os.getpid()}
        clock = FakeClock()
        gpu = FakeGpu(pids=(os.getpid(), trainer.pid))
        driver = FakeNvml(clock, gpu)
        meter = NvmlMeter((0,), nvml=driver, clock=clock, background=False)

        def flags():
            meter.begin(lambda: driver.advance(0.003))
            driver.advance(0.5)
            return meter.end(lambda: driver.advance(0.003)).flags

        assert flags() == ("foreign_process",)
        meter.set_own_processes(lock.processes)
        assert flags() == ()
    finally:
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
    assert lock.processes() == {os.getpid()} and flags() == ("foreign_process",)


HOLDER = """
import sys, time
from pathlib import Path
from predictors.measurement.exclusive import DeviceLock
with getattr(DeviceLock(Path(sys.argv[1]), "cpu"), sys.argv[2])():
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder, kind):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), kind], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_measurement_waits_for_trainers_and_outlives_their_kill(tmp_path):
    trainer = hold(tmp_path, "shared")
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), "exclusive"], stdout=subprocess.PIPE
    )
    os.set_blocking(waiting.stdout.fileno(), False)
    time.sleep(1.0)
    assert not waiting.stdout.read()
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    os.set_blocking(waiting.stdout.fileno(), True)
    assert waiting.stdout.readline() == b"held\n"
    waiting.kill()
    waiting.wait()


def test_trainers_share_and_many_of_them_cannot_starve_a_measurement(tmp_path):
    code = (
        HOLDER.replace('print("held", flush=True)\n    time.sleep(60)', "pass")
        .replace("with getattr", "while True:\n  with getattr")
        .replace("    pass", "    time.sleep(.01)")
    )
    trainers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "shared"]) for _ in range(2)
    ]
    try:
        time.sleep(1.0)
        lock = DeviceLock(tmp_path, "cpu")
        with lock.shared():
            pass
        for _ in range(5):
            started = time.perf_counter()
            with lock.exclusive():
                waited_s = time.perf_counter() - started
            assert waited_s < 1.0
    finally:
        for trainer in trainers:
            trainer.kill()
            trainer.wait()


def test_a_gpu_has_one_lock_by_whatever_number_a_process_knows_it(tmp_path, monkeypatch):
    def names(visible, device):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with DeviceLock(tmp_path / visible / device, device).shared():
            return {path.name for path in (tmp_path / visible / device).iterdir()}

    # The trial was assigned the second of two GPUs; a measurement sees both.
    assert names("1", "cuda:0") == names("0,1", "cuda:1") != names("0,1", "cuda:0")
    # What is not there is still locked by a name; that it is not there others say.
    assert names("", "cuda:0")
