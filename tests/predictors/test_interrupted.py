"""What failed through nothing of the model's is told apart, so that it may be tried again."""

import io
import json
import queue
import time
from types import SimpleNamespace

import pytest

from predictors.campaign import worker
from predictors.campaign.process import MeasureError, MeasureInterrupted, MeasureProcess
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
