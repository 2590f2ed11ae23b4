"""One trial in a Ray worker: evaluated, measured on a node that measures, its record on disk."""

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

# First: it sets what Ray reads when it is imported.

# isort: split
import ray
from ray import tune

from nas.cluster.measuring import Measurements, RayMeasure
from nas.cluster.waits import tell_driver
from nas.core.files import Place, read_json, write_json
from nas.core.retry import AwayError, Waits, naming_storage, patience
from nas.evaluation.evaluator import Evaluator, Measure, forget_unfinished
from nas.evaluation.outcome import folder_of, is_of, local, outcome
from nas.records.failures import failed
from nas.records.replicas import RESULT, result_in
from nas.records.rungs import Progress, Tell
from nas.records.spent import with_spent
from nas.records.trial import TrialRecord

# Keys of the results that a worker reports to Tune.
PROGRESS, ENDED, AWAY = "progress", "record", "storage"
# Which process runs a trial, by Ray's names.
_WORKER = "worker.json"
# Between the end of a trial's time and that of its process, if even its threads hang.
_GRACE_S = 10.0
# How often it is looked whether a trial's time is over, since waiting for storage moves that.
_LOOK_S = 1.0


def run_trial(
    config: dict[str, Any],
    evaluator: Evaluator,
    measure: Measure,
    folder: Place,
    timeout_s: float | None = None,
    further: Sequence[RayMeasure] = (),
) -> None:
    """One trial, in a Ray worker: its record is on disk before Tune hears that it ended.

    Where storage was away for too long Tune hears of that instead: the trial is unfinished.
    """
    candidate = TrialRecord.from_dict(json.loads(config["candidate"]))
    own = folder_of(candidate, folder)
    _say_who(own)
    # A replica repeats a whole evaluation: it is not stopped early.
    tell = None if candidate.replica else _tell
    try:
        record = evaluate_trial(candidate, own, evaluator, measure, tell, timeout_s, further)
    except AwayError as error:
        tune.report({AWAY: f"trial {candidate.number}: {error}"})
    else:
        tune.report({ENDED: json.dumps(record.to_dict())})


def worker_ids(folder: Place) -> list[str]:
    """Ray's names for the worker that last ran the trial in ``folder``, where they are known."""
    with suppress(ValueError):
        data = read_json(folder / _WORKER)
        if isinstance(data, list):
            return [name for name in data if isinstance(name, str) and name]
    return []


def _say_who(folder: Place) -> None:
    """Write down what Ray calls this worker: its memory monitor names the workers that it ends."""
    if not isinstance(folder, Path) or not ray.is_initialized():
        # Outside of a worker, Ray may start a cluster to answer for its own context.
        return
    context = ray.get_runtime_context()
    names = [context.get_actor_id(), context.get_worker_id()]
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _WORKER, names)


def evaluate_trial(
    candidate: TrialRecord,
    folder: Place,
    evaluator: Evaluator,
    measure: Measure,
    tell: Tell | None = None,
    timeout_s: float | None = None,
    further: Sequence[RayMeasure] = (),
) -> TrialRecord:
    """What became of ``candidate``, which is in ``folder`` as well when this returns.

    Of each of ``further`` it has a reading beside that of ``measure``.

    Raises:
        AwayError: storage was full, away or refusing for too long; the trial is unfinished.
        RayError: the cluster failed, and so it is.
    """
    with naming_storage(local(folder)):
        return _evaluated(candidate, folder, evaluator, measure, tell, timeout_s, further)


def _evaluated(
    candidate: TrialRecord,
    folder: Place,
    evaluator: Evaluator,
    measure: Measure,
    tell: Tell | None,
    timeout_s: float | None,
    further: Sequence[RayMeasure],
) -> TrialRecord:
    telling = tell_driver(f"trial {candidate.number} waits for storage")
    measuring = Measurements(measure, further)

    def evaluate() -> TrialRecord:
        return measuring.added_to(evaluator.evaluate(candidate, folder, measuring, tell))

    with (
        patience(telling) as waits,
        _time_limit(candidate, folder, timeout_s, waits) as may_end,
    ):
        record = outcome(candidate, folder, evaluate, cause_of=_cause, may_end=may_end)
    forget_unfinished(folder)
    return record


def _cause(error: Exception) -> BaseException:
    """What a task of the trial raised.

    Raises:
        RayError: the cluster failed, not the candidate. A driver that lives dispatches it again;
            one that was killed, and its node with it, must find the trial unfinished when it
            resumes.
    """
    cause: BaseException = error
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
    if isinstance(cause, ray.exceptions.RayError):
        raise error
    return cause


@contextmanager
def _time_limit(
    candidate: TrialRecord, folder: Place, timeout_s: float | None, waits: Waits | None = None
) -> Iterator[threading.Lock]:
    """End the process of a trial that takes longer than ``timeout_s``, recorded as failed.

    What it ``waits`` for storage does not count. Whoever writes the trial's result holds the lock
    meanwhile.
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
            # Needs no Python to run: what hangs may hold the interpreter's lock.
            faulthandler.dump_traceback_later(remaining_s + _GRACE_S, exit=True, file=2)
            if is_over.wait(min(remaining_s, _LOOK_S)):
                return
        with may_end:
            if is_over.is_set():
                return
            ended = result_in(folder)
            if ended is None or not is_of(ended, candidate):
                reason = f"it took longer than {timeout_s:g} s"
                record = with_spent(failed(candidate, reason), folder)
                with suppress(OSError, AwayError):
                    write_json(folder / RESULT, record.to_dict())
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
    """Report, and wait for the verdict: if it is to stop, this ends the thread."""
    tune.report({PROGRESS: json.dumps(progress.to_dict())})
