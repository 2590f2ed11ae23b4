"""How commands end: by a signal, with nothing complete, and what they say can be done next."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_fakes import wait_for
from forking import nas_command
from run_fakes import make_run
from search_fakes import SPACE, failed, finished

from nas.cli.commands.search import report
from nas.cli.main import main
from nas.core import interrupts
from nas.records.config import SearchConfig
from nas.store import new_run, run_file

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
WAITS = """
import sys, time
from nas.core import interrupts
with interrupts.handled():
    try:
        {before}
        print("ready", flush=True)
        time.sleep(30)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    {after}
    print("code", interrupts.exit_code(), flush=True)
"""


def waiting(*, before="pass", after="pass"):
    code = WAITS.format(before=before, after=after)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_all_signals_interrupt(number, code):
    with waiting() as process:
        process.send_signal(number)
        assert process.stdout.read() == f"interrupted\ncode {code}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number):
    with waiting(after="time.sleep(30)") as process:
        process.send_signal(number)
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143


DEFERRED = """
        with interrupts.deferred():
            print("ready", flush=True)
            while not interrupts.is_ending():
                time.sleep(0.01)
            print("written whole", flush=True)
            with interrupts.allowed():
                print("never", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_until_it_is_allowed(number):
    with waiting(before=DEFERRED.strip()) as process:
        process.send_signal(number)
        text = process.stdout.read()
        assert text == f"written whole\ninterrupted\ncode {128 + number}\n"


def test_a_second_signal_does_not_wait():
    with waiting(before=DEFERRED.strip().replace("0.01", "30")) as process:
        # Of one kind, two that are sent at once may arrive as one; of two, either may come first.
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (130, 143)


def test_handlers_are_as_before_afterwards_and_others_stay():
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with interrupts.handled():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with interrupts.handled():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_page_that_is_served_ends_by_others_as_by_ctrl_c(tmp_path, number):
    make_run(tmp_path / "run", trials=3)
    with nas_command("report", "run", "--watch", "--port", "0", cwd=tmp_path) as process:
        assert process.stdout.readline().startswith("http://")
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0 and errors == ""


@pytest.mark.usefixtures("measured_eagerly")
def test_sigterm_while_measuring_is_one_line(tmp_path):
    space = {**SPACE.to_dict(), "attention_precision": ["fp32"], "ffn_precision": ["fp32"]}
    (tmp_path / "space.yaml").write_text(json.dumps(space))
    words = ["measure", "--space", "space.yaml", "--sample", "50", "--meter", "estimate"]
    with nas_command(*words, "--protocol", "quick", cwd=tmp_path) as process:
        wait_for(lambda: process.stderr.readline())
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)
        assert process.returncode in (143, 2), line + errors
        assert "Traceback" not in errors


def without_weights(done, capsys):
    code = report(done, as_json=False)
    return code, capsys.readouterr().out


def proposed(text):
    (line,) = [line for line in text.splitlines() if line.startswith("Next: ")]
    return line.removeprefix("Next: ").split("; ")


@pytest.mark.parametrize("name", ["a run's", "-dash", '$(id) "é"'])
def test_what_is_proposed_next_works(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    done = make_run(Path(name), trials=5)
    code, text = without_weights(done, capsys)
    assert code == 0
    # There are no weights to export.
    (front,) = proposed(text)
    assert main(shlex.split(front)[1:]) == 0
    place = done.weights_path(done.front().recommended().trial)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"weights")
    (tmp_path / "model").mkdir()
    code, text = without_weights(done, capsys)
    assert any(step.startswith("nas export") for step in proposed(text))
    assert not any(re.search(r"--to model(\s|$)", step) for step in proposed(text))


def test_where_nothing_is_complete_the_exit_code_is_1_and_reasons_are_printed(tmp_path, capsys):
    done = make_run(
        tmp_path / "run",
        trials=3,
        judge=lambda c: failed(c, "no g++" if c.number else "it took longer than 3 s"),
    )
    code, text = without_weights(done, capsys)
    assert code == 1
    assert "failed: trials 1, 2: no g++" in text
    assert "failed: trial 0: it took longer than 3 s" in text
    assert "--knee" not in text and "export" not in text
    assert report(done, as_json=True) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["failures"][0] == {"reason": "no g++", "trials": [1, 2]}


def test_an_interrupted_search_says_how_to_go_on(tmp_path, capsys):
    from search_fakes import make_session

    config = SearchConfig(task="digits", space=SPACE, trials=6, sampler="random")
    new_run.create(tmp_path / "run", config, "fake")
    session = make_session(tmp_path / "run", trials=6, sampler="random")
    session.next_candidate()
    code, text = without_weights(run_file.load(tmp_path / "run"), capsys)
    assert code == 130 and proposed(text) == [f"nas resume {tmp_path / 'run'}"]
    session.finish(finished(session.next_candidate()))
    code, text = without_weights(run_file.load(tmp_path / "run"), capsys)
    assert code == 130 and len(proposed(text)) == 2


@pytest.mark.e2e
@pytest.mark.thorough
def test_sigterm_ends_a_search_as_ctrl_c_does(tmp_path):
    words = ["search", "quickstart", "--trials", "3", "--epochs", "400", "--run", "run"]
    with nas_command(*words, cwd=tmp_path) as process:
        wait_for(lambda: (tmp_path / "run" / "trials" / "0").exists())
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "interrupted" in out and "Next: nas resume run" in out
    assert "Traceback" not in errors and "***" not in errors
    assert not Path("/proc", str(process.pid)).exists()
