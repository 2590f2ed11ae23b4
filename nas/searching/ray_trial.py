"""One trial in a Ray worker: evaluated, measured on a node that measures, its record on disk."""

from __future__ import annotations

import faulthandler
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# First: it sets what Ray reads when it is imported.
from nas.searching import ray_cluster  # noqa: F401

# isort: split
import ray
from ray import tune

from nas.files import Place, write_json
from nas.patience import is_os_error, patience, persist
from nas.remote import RemoteError
from nas.searching.evaluator import Evaluator, Measure, forget_unfinished
from nas.searching.ray_measure import Measurements, RayMeasure
from nas.searching.replicas import RESULT, result_in
from nas.searching.session import failed
from nas.searching.spent import with_spent
from nas.searching.stopping import Progress, Tell
from nas.searching.trial import TrialRecord

# Of what a worker reports to Tune.
PROGRESS, ENDED = "progress", "record"
# Between the end of a trial's time and that of its process, if even its threads hang.
_GRACE_S = 10.0


def run_trial(
    config: dict[str, Any],
    evaluator: Evaluator,
    measure: Measure,
    folder: Place,
    timeout_s: float | None = None,
    further: Sequence[RayMeasure] = (),
) -> None:
    """One trial, in a Ray worker: its record is on disk before Tune hears that it ended."""
    candidate = TrialRecord.from_dict(json.loads(config["candidate"]))
    own = folder / str(candidate.number)
    record = evaluate_trial(candidate, own, evaluator, measure, _tell, timeout_s, further)
    tune.report({ENDED: json.dumps(record.to_dict())})


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

    Of each of ``further`` it has a reading beside that of ``measure``. Where ``folder`` is in a
    store that refuses, the trial failed by it, and only the caller hears of it.
    """
    try:
        return _evaluated(candidate, folder, evaluator, measure, tell, timeout_s, further)
    except RemoteError as error:
        return failed(candidate, str(error))


def _evaluated(
    candidate: TrialRecord,
    folder: Place,
    evaluator: Evaluator,
    measure: Measure,
    tell: Tell | None,
    timeout_s: float | None,
    further: Sequence[RayMeasure],
) -> TrialRecord:
    with patience(), _time_limit(candidate, folder, timeout_s) as may_end:
        _prepare(folder)
        known = result_in(folder)
        if known is not None and is_of(known, candidate):
            # It had ended, as where its time was over; Ray runs again what dies.
            return known
        try:
            # Again from what it kept, where storage was away: the candidate is not to blame.
            measuring = Measurements(measure, further)
            record = persist(lambda: evaluator.evaluate(candidate, folder, measuring, tell))
            record = measuring.added_to(record)
        except MemoryError:
            record = with_spent(failed(candidate, "out of memory"), folder)
        except Exception as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
            if isinstance(cause, ray.exceptions.RayError):
                # The cluster failed, not the candidate. A driver that lives dispatches it again;
                # one that was killed, and its node with it, must find the trial unfinished when
                # it resumes.
                raise
            record = with_spent(failed(candidate, f"{type(cause).__name__}: {cause}"), folder)
        with may_end:
            write_json(folder / RESULT, record.to_dict())
    forget_unfinished(folder)
    return record


def _prepare(folder: Place) -> None:
    """Make a trial's folder, or rid it of what a killed worker was writing just then."""
    if not isinstance(folder, Path):
        return
    persist(lambda: folder.mkdir(parents=True, exist_ok=True), is_os_error)
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


@contextmanager
def _time_limit(
    candidate: TrialRecord, folder: Place, timeout_s: float | None
) -> Iterator[threading.Lock]:
    """End the process of a trial that takes longer than ``timeout_s``, recorded as failed.

    Whoever writes the trial's result holds the lock meanwhile.
    """
    is_over = threading.Lock()
    if timeout_s is None:
        yield is_over
        return

    def end() -> None:
        with is_over:
            ended = result_in(folder)
            if ended is None or not is_of(ended, candidate):
                reason = f"it took longer than {timeout_s:g} s"
                record = with_spent(failed(candidate, reason), folder)
                with suppress(OSError, RemoteError):
                    write_json(folder / RESULT, record.to_dict())
                os._exit(1)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    # Needs no Python to run: what hangs may hold the interpreter's lock.
    faulthandler.dump_traceback_later(timeout_s + _GRACE_S, exit=True, file=2)
    try:
        yield is_over
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()


def _tell(progress: Progress) -> None:
    """Report, and wait for the verdict: if it is to stop, this ends the thread."""
    tune.report({PROGRESS: json.dumps(progress.to_dict())})


def is_of(result: TrialRecord, candidate: TrialRecord) -> bool:
    """Whether ``result`` is what became of ``candidate``."""
    return (result.number, result.replica, result.architecture) == (
        candidate.number,
        candidate.replica,
        candidate.architecture,
    )
