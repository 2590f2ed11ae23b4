"""Run a worker in a fresh process: a job on its stdin, findings on its stdout, both as JSON."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from nas.exporting.formats.base import ExportError


def findings_of(
    command: Sequence[str],
    job: Mapping[str, Any],
    what: str,
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run ``command`` on ``job`` and return its findings, the last line that it prints.

    Args:
        command: Starts the worker, program first.
        job: Plain data.
        what: The subject of errors, such as ``format onnx``.
        timeout_s: The worker is killed after so many seconds.
        environment: The worker's variables; by default those of this process.

    Raises:
        ExportError: the worker failed, with its last line on stderr or the signal that ended it,
            or ran out of time.
    """
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"{what} took longer than {timeout_s:g} s to verify") from None
    if done.returncode != 0:
        raise ExportError(f"{what} cannot be run: {_cause(done.returncode, done.stderr)}")
    # Imports may print lines before.
    findings: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return findings


def _cause(code: int, errors: str) -> str:
    """Return why a worker failed: the signal that ended it, else its last line on stderr."""
    if code < 0:
        # Its last line would be one of progress.
        memory = "; memory may have run out" if code == -signal.SIGKILL else ""
        return f"ended by signal {-code} ({signal.strsignal(-code)}){memory}"
    lines = errors.strip().splitlines()
    return lines[-1] if lines else "no cause"
