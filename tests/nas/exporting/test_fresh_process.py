"""Findings of a fresh process are its last line; its failures are errors of one line."""

import os
import signal
import sys

import pytest

from nas.exporting.formats.base import ExportError
from nas.exporting.formats.fresh_process import findings_of

DOUBLE = """
import json, os, sys
print("a library prints this")
job = json.load(sys.stdin)
print(json.dumps({"twice": 2 * job["n"], "of": os.environ.get("OF")}))
"""


def run(code, job=None, *, timeout_s=60.0, environment=None):
    command = [sys.executable, "-I", "-c", code]
    return findings_of(
        command, job or {}, "format x", timeout_s=timeout_s, environment=environment
    )


def test_the_last_line_is_the_findings():
    assert run(DOUBLE, {"n": 4}) == {"twice": 8, "of": os.environ.get("OF")}
    assert run(DOUBLE, {"n": 4}, environment={"OF": "mine"}) == {"twice": 8, "of": "mine"}


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("print('{}'); raise ValueError('no weights')", "ValueError: no weights"),
        ("import sys; sys.exit(3)", "no cause"),
    ],
)
def test_a_failure_is_its_last_line(code, cause):
    with pytest.raises(ExportError, match=f"^format x cannot be run: {cause}$"):
        run(code)


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGKILL, r"ended by signal 9 \(Killed\); memory may have run out"),
        (signal.SIGSEGV, r"ended by signal 11 \(Segmentation fault\)"),
    ],
)
def test_a_signal_is_the_cause_rather_than_a_line_of_progress(number, cause):
    code = "import os, sys; print('Loading weights: 3%', file=sys.stderr, flush=True)"
    with pytest.raises(ExportError, match=f"^format x cannot be run: {cause}$"):
        run(f"{code}; os.kill(os.getpid(), {int(number)})")


def test_a_worker_that_hangs_is_killed():
    with pytest.raises(ExportError, match=r"^format x took longer than 0\.2 s to verify$"):
        run("import time; time.sleep(60)", timeout_s=0.2)
