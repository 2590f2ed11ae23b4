"""What failed through nothing of the model's is told apart, so that it may be tried again."""

import io
import json
import queue
import threading
import time
from types import SimpleNamespace

import pytest

from predictors.measurement import worker
from predictors.measurement.process import (
    MeasureError,
    MeasureInterrupted,
    MeasureProcess,
    MeasureTimeout,
)
from predictors.meters.base import MeterError


def receive(line, code=0):
    process = MeasureProcess({}, 5.0)
    process._deadline_s = time.monotonic() + 5.0
    process._lines = queue.Queue()
    process._lines.put(line)
    process._process = SimpleNamespace(wait=lambda: code)
    process._stderr = io.StringIO("Traceback\nOSError: broken")
    return process.receive()


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [(MeterError("the energy counter was lost"), True), (ValueError("inputs must be"), False)],
)
def test_a_lost_sensor_is_told_apart(capfd, monkeypatch, error, is_lost):
    def fails(*_):
        raise error

    monkeypatch.setattr(worker, "_run", fails)
    monkeypatch.setattr("sys.stdin", io.StringIO("{}\n"))
    assert worker.main() == 1
    said = capfd.readouterr().out.splitlines()[0]
    assert json.loads(said)["cause"] == str(error)
    with pytest.raises(MeasureError, match=str(error)) as raised:
        receive(said)
    assert isinstance(raised.value, MeasureInterrupted) == is_lost


@pytest.mark.parametrize(
    ("code", "words", "is_lost"), [(-9, "signal SIGKILL", True), (1, "OSError: broken", False)]
)
def test_a_killed_process_is_told_apart(code, words, is_lost):
    with pytest.raises(MeasureError, match=words) as raised:
        receive(None, code)
    assert isinstance(raised.value, MeasureInterrupted) == is_lost


class Talking(MeasureProcess):
    """A measuring process that is only what it says, and when: lines after seconds."""

    def __init__(self, said, **limits):
        super().__init__({}, **limits)
        self._said = said

    def __enter__(self):
        def speak():
            for wait_s, message in self._said:
                time.sleep(wait_s)
                yield json.dumps(message) + "\n"

        now_s = time.monotonic()
        self._deadline_s = now_s + self._timeout_s
        self._last_s = now_s + self._total_timeout_s
        self._lines = queue.Queue()
        self._process = SimpleNamespace(stdout=speak())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_):
        self._reader.join()


def compiling(n_kinds, taking_s):
    return [
        (0.0, {"event": "compiling", "n_kinds": n_kinds}),
        (taking_s, {"event": "compiled", "compile_s": taking_s}),
    ]


READY = {"event": "ready"}


def test_compiling_is_no_part_of_the_time_that_a_measurement_has():
    with Talking([*compiling(2, 0.5), (0.1, READY)], timeout_s=0.4) as process:
        assert process.receive() == READY
    # Without compiling the same seconds are too many.
    with (
        Talking([*compiling(0, 0.5), (0.1, READY)], timeout_s=0.4) as process,
        pytest.raises(MeasureTimeout, match=r"measuring took longer than 0\.4 s"),
    ):
        process.receive()
    # And what follows has no more than it had.
    with (
        Talking([*compiling(1, 0.5), (0.6, READY)], timeout_s=0.4) as process,
        pytest.raises(MeasureTimeout, match=r"measuring took longer than 0\.4 s"),
    ):
        process.receive()


def test_compiling_that_hangs_ends_by_its_own_limit(monkeypatch):
    monkeypatch.setattr("predictors.measurement.process.COMPILE_TIMEOUT_S", 0.2)
    with Talking([*compiling(3, 0.4), (0.0, READY)], timeout_s=9) as process:
        assert process.receive() == READY
    with (
        Talking([*compiling(1, 1.5)], timeout_s=9) as process,
        pytest.raises(MeasureTimeout, match=r"compiling took longer than 0\.2 s"),
    ):
        process.receive()


def test_the_time_of_all_holds_for_compiling_too():
    with (
        Talking([*compiling(5, 0.8), (0.0, READY)], timeout_s=9, total_timeout_s=0.3) as process,
        pytest.raises(MeasureTimeout, match=r"longer than 0\.3 s"),
    ):
        process.receive()


def test_a_message_that_a_kill_cuts_off_is_none():
    process = MeasureProcess({}, 5.0)
    process._lines = queue.Queue()
    process._process = SimpleNamespace(stdout=iter(['{"event": "rea']), wait=lambda: -9)
    process._read()
    with pytest.raises(MeasureInterrupted, match="SIGKILL"):
        process.receive()


def test_messages_that_are_received_late_came_when_they_came():
    with Talking([*compiling(2, 0.5), (0.1, READY)], timeout_s=0.4) as process:
        time.sleep(1.2)
        assert process.receive() == READY
