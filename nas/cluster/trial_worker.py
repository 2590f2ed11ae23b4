"""One trial in a Ray worker: evaluate it, measure it on a node that measures, write its record."""

from __future__ import annotations

import faulthandler
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune

from nas.cluster.measuring import Measurements, RayMeasure
from nas.cluster.waits import tell_driver
from nas.core.files import Place, read_json
from nas.core.plain import from_plain, to_plain
from nas.core.retry import AwayError, Waits, naming_storage, patience
from nas.evaluation.evaluator import Evaluator, forget_unfinished
from nas.evaluation.in_runtimes import Measure
from nas.evaluation.outcome import failed_in, folder_of, local, outcome, outcome_in
from nas.records.candidate import Candidate, Outcome
from nas.records.replicas import write_result
from nas.records.rungs import OnProgress, Progress
from nas.records.trial import Trial

# Keys of the results that a worker reports to Tune.
PROGRESS, ENDED, AWAY = "progress", "record", "storage"
# Ray's names for the process that runs a trial.
_WORKER = "worker.json"
# From a trial's time limit to the end of its process, where even its threads hang.
_GRACE_S = 10.0
# The interval of checking the time limit, which waiting for storage moves.
_LOOK_S = 1.0


def run_trial(
    config: dict[str, Any],
    evaluator: Evaluator,
    measure: Measure,
    folder: Place,
    timeout_s: float | None = None,
    further: Sequence[RayMeasure] = (),
) -> None:
    """Run one trial in a Ray worker, and report its record to Tune once it is on disk.

    If storage was away for too long, that is reported instead, and the trial is unfinished.
    """
    candidate = from_plain(Candidate, json.loads(config["candidate"]), "candidate")
    own = folder_of(candidate, folder)
    _record_worker(own)
    # A replica repeats a whole evaluation: it is not stopped early.
    tell = None if candidate.replica else _tell
    try:
        ended = evaluate_trial(candidate, own, evaluator, measure, tell, timeout_s, further)
    except AwayError as error:
        tune.report({AWAY: f"trial {candidate.number}: {error}"})
    else:
        tune.report({ENDED: json.dumps(to_plain(ended))})


def worker_ids(folder: Place) -> list[str]:
    """Return Ray's names for the worker that last ran the trial in ``folder``, if recorded."""
    with suppress(ValueError):
        data = read_json(folder / _WORKER)
        if isinstance(data, list):
            return [name for name in data if isinstance(name, str) and name]
    return []


def _record_worker(folder: Place) -> None:
    """Write Ray's names for this worker: its memory monitor names the workers that it ends."""
    if not isinstance(folder, Path) or not ray.is_initialized():
        # Outside of a worker, Ray may start a cluster to answer for its own context.
        return
    context = ray.get_runtime_context()
    names = [context.get_actor_id(), context.get_worker_id()]
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        # Not flushed to disk, since it is useless after a loss of power.
        (folder / _WORKER).write_text(json.dumps(names))


def evaluate_trial(
    candidate: Candidate,
    folder: Place,
    evaluator: Evaluator,
    measure: Measure,
    tell: OnProgress | None = None,
    timeout_s: float | None = None,
    further: Sequence[RayMeasure] = (),
) -> Outcome:
    """Evaluate ``candidate`` and return its outcome, which ``folder`` then contains too.

    The outcome has the reading of ``measure`` and one of each device in ``further``.

    Raises:
        AwayError: storage was full, away or refusing for too long; the trial is unfinished.
        RayError: the cluster failed, and the trial is unfinished.
    """
    waiting = tell_driver(f"trial {candidate.number} waits for storage")
    measuring = Measurements(measure, further)

    def evaluate() -> Outcome:
        return measuring.added_to(evaluator.evaluate(candidate, folder, measuring, tell))

    with naming_storage(local(folder)):
        with (
            patience(waiting) as waits,
            _time_limit(candidate, folder, timeout_s, waits) as may_end,
        ):
            ended = outcome(candidate, folder, evaluate, cause_of=_cause, may_end=may_end)
        forget_unfinished(folder)
    return ended


def _cause(error: Exception) -> BaseException:
    """Return what a task of the trial raised.

    Raises:
        RayError: the cluster failed, not the candidate, whose trial must stay unfinished: the
            driver dispatches it again, or a resumed search does.
    """
    cause: BaseException = error
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
    if isinstance(cause, ray.exceptions.RayError):
        raise error
    return cause


@contextmanager
def _time_limit(
    candidate: Candidate, folder: Place, timeout_s: float | None, waits: Waits | None = None
) -> Iterator[threading.Lock]:
    """Record a trial that takes longer than ``timeout_s`` as failed, and end its process.

    The time that it ``waits`` for storage does not count. The trial's result is written under the
    lock.
    """
    may_end, is_over, waits = threading.Lock(), threading.Event(), waits or Waits()
    if timeout_s is None:
        yield may_end
        return
    started_s = time.monotonic()

    def left_s() -> float:
        return timeout_s - (time.monotonic() - started_s - waits.total_s())

    def watch() -> None:
        while (remaining_s := left_s()) > 0:
            # Runs without Python: what hangs may hold the interpreter's lock.
            faulthandler.dump_traceback_later(remaining_s + _GRACE_S, exit=True, file=2)
            if is_over.wait(min(remaining_s, _LOOK_S)):
                return
        with may_end:
            if is_over.is_set():
                return
            if outcome_in(folder, candidate) is None:
                failed = failed_in(folder, f"it took longer than {timeout_s:g} s")
                with suppress(OSError, AwayError):
                    write_result(folder, Trial(candidate, failed))
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield may_end
    finally:
        is_over.set()
        watcher.join()
        faulthandler.cancel_dump_traceback_later()


def _tell(progress: Progress) -> None:
    """Report progress and wait for the verdict; to stop, Tune ends the thread in this call."""
    tune.report({PROGRESS: json.dumps(to_plain(progress))})
