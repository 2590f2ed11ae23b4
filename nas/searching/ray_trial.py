"""One trial in a Ray worker: evaluated, measured on a node that measures, its record on disk."""

from __future__ import annotations

import faulthandler
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# First: it sets what Ray reads when it is imported.
from nas.searching.ray_cluster import METER_RESOURCE, METER_SHARE

# isort: split
import ray
from ray import tune
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from nas.files import write_json
from nas.patience import is_os_error, patience, persist
from nas.searching.evaluator import Evaluator, forget_unfinished
from nas.searching.replicas import RESULT, result_in
from nas.searching.session import failed
from nas.searching.stopping import Progress, Tell
from nas.searching.trial import TrialRecord
from predictors.campaign.process import MeasureInterrupted
from predictors.campaign.protocol import Protocol
from predictors.campaign.records import EnergyRecord
from predictors.campaign.runner import measure_fresh
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# Of what a worker reports to Tune.
PROGRESS, ENDED = "progress", "record"
# How often what dies is tried before it counts as failed.
ATTEMPTS = 3
# Between the end of a trial's time and that of its process, if even its threads hang.
_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class RayMeasure:
    """``Measure`` as a Ray task on a node that measures."""

    device: str
    meter: str
    protocol: Protocol
    lock_folder: Path
    function: Callable[..., EnergyRecord] = measure_fresh

    def __call__(
        self, architecture: Architecture, workload: Workload, weights: Path, inputs: Path
    ) -> EnergyRecord:
        """See ``Measure``."""
        options: dict[str, Any] = {
            "num_cpus": 0,
            "resources": {METER_RESOURCE: METER_SHARE},
            "max_retries": ATTEMPTS - 1,
            "retry_exceptions": [MeasureInterrupted],
            # Outside the trial's own placement group, which holds no meter.
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                placement_group=None  # type: ignore[arg-type]
            ),
        }
        task: Any = ray.remote(**options)(self.function)
        record: EnergyRecord = ray.get(
            task.remote(
                architecture,
                workload,
                device=self.device,
                meter=self.meter,
                protocol=self.protocol,
                weights=weights,
                inputs=inputs,
                lock_folder=self.lock_folder,
            )
        )
        return record


def run_trial(
    config: dict[str, Any],
    evaluator: Evaluator,
    measure: RayMeasure,
    folder: Path,
    timeout_s: float | None = None,
) -> None:
    """One trial, in a Ray worker: its record is on disk before Tune hears that it ended."""
    candidate = TrialRecord.from_dict(json.loads(config["candidate"]))
    own = folder / str(candidate.number)
    record = evaluate_trial(candidate, own, evaluator, measure, _tell, timeout_s)
    tune.report({ENDED: json.dumps(record.to_dict())})


def evaluate_trial(
    candidate: TrialRecord,
    folder: Path,
    evaluator: Evaluator,
    measure: RayMeasure,
    tell: Tell | None = None,
    timeout_s: float | None = None,
) -> TrialRecord:
    """What became of ``candidate``, which is in ``folder`` as well when this returns."""
    with patience(), _time_limit(candidate, folder, timeout_s) as may_end:
        _prepare(folder)
        known = result_in(folder)
        if known is not None and is_of(known, candidate):
            # It had ended, as where its time was over; Ray runs again what dies.
            return known
        try:
            # Again from what it kept, where storage was away: the candidate is not to blame.
            record = persist(lambda: evaluator.evaluate(candidate, folder, measure, tell))
        except MemoryError:
            record = failed(candidate, "out of memory")
        except Exception as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
            if isinstance(cause, ray.exceptions.RayError):
                # The cluster failed, not the candidate. A driver that lives dispatches it again;
                # one that was killed, and its node with it, must find the trial unfinished when
                # it resumes.
                raise
            record = failed(candidate, f"{type(cause).__name__}: {cause}")
        with may_end:
            write_json(folder / RESULT, record.to_dict())
    forget_unfinished(folder)
    return record


def _prepare(folder: Path) -> None:
    """Make a trial's folder, or rid it of what a killed worker was writing just then."""
    persist(lambda: folder.mkdir(parents=True, exist_ok=True), is_os_error)
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


@contextmanager
def _time_limit(
    candidate: TrialRecord, folder: Path, timeout_s: float | None
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
                with suppress(OSError):
                    write_json(folder / RESULT, failed(candidate, reason).to_dict())
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
