"""Run a session's trials on Ray Tune, on the Ray that ``ray_cluster`` connects to.

Tune schedules the trials and reports crashed workers; our ``Searcher`` feeds it from the session,
which owns the study, and ``ray_trial`` is what a worker does. Trials train on nodes with CPUs (or
GPUs), of which ``ray_roles`` tells, and are measured by tasks on nodes with meters
(``ray_measure``).

A worker that dies takes no trial with it: the trial is dispatched again, from the state that it
kept, and only fails when that has surely been its doing ``ATTEMPTS`` times (``attempts``).
Measuring tasks are tried as often.

Where trials are stopped early, a worker reports at each rung and waits; ``HalvingScheduler`` asks
the session's ``Stopper``, whose verdict is in the study before Tune ends the worker's trial.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# First: it sets what Ray reads when it is imported.

# isort: split
import ray
from ray import tune
from ray.tune.search import Searcher

from nas.cluster.attempts import Attempts
from nas.cluster.ending import Ending, or_end
from nas.cluster.measuring import ATTEMPTS, RayMeasure
from nas.cluster.roles import Trainers
from nas.cluster.scheduler import HalvingScheduler
from nas.cluster.tensorboard import TensorBoardLog
from nas.cluster.trial_worker import (
    AWAY,
    ENDED,
    PROGRESS,
    evaluate_trial,
    is_of,
    run_trial,
    worker_ids,
)
from nas.cluster.tune_memory import EachStep, ForgetEnded
from nas.cluster.waits import tell_driver
from nas.core import interrupts
from nas.core.files import Place, write_json
from nas.core.retry import StorageAwayError, is_of_storage, naming_storage, patience
from nas.core.scratch import scratch
from nas.evaluation.evaluator import Evaluator, forget_unfinished, unfinished
from nas.records.device_names import MeterFound
from nas.records.replicas import RESULT, replica_folder, result_in
from nas.records.rungs import Progress
from nas.records.spent import with_spent
from nas.records.trial import TrialRecord
from nas.searching.controller.refine import Refinement
from nas.searching.controller.session import Listener, Session, failed
from nas.searching.early_stopping.stopping import Stopper
from nas.store.storage import is_away
from predictors.measurement.protocol import Protocol

# How often progress is looked at while one task runs alone.
_LOOK_S = 0.5
_DIED = "its worker died (out of memory, a signal, or a lost node)"


def run_trials(
    session: Session,
    evaluator: Evaluator,
    trials_folder: Place,
    *,
    workers: int,
    device: str,
    meter: str,
    protocol: Protocol,
    lock_folder: Path | None,
    measured: Sequence[MeterFound] = (),
    gpus_per_trial: float | None = None,
    timeout_s: float | None = None,
    stopper: Stopper | None = None,
    log: TensorBoardLog | None = None,
) -> None:
    """Run until the session has no more candidates, or until Ctrl-C ends it.

    Trials train on ``device`` and are measured on it by ``meter``, or on each of ``measured``,
    where there are any. Each takes ``gpus_per_trial`` of a GPU, by default such that all GPUs that
    the cluster has are used. A trial that takes longer than ``timeout_s`` fails, what it waits
    for storage not counted. With ``stopper`` trials are judged at the rungs that ``evaluator``
    tells of. ``log`` hears of every trial.

    Raises:
        StorageAwayError: a worker's storage was away for too long; its trial is unfinished.
        Exception: what the study or storage raised here; trials under way are unfinished.
    """
    if stopper is not None:
        for record in session.in_flight():
            progress = unfinished(trials_folder / str(record.number))
            if progress is not None:
                stopper.reach(record.number, progress.curve)
    searcher = _SessionSearcher(session, trials_folder, workers, stopper)
    measure, *further = _measures(measured, device, meter, protocol, lock_folder)
    trainable = tune.with_parameters(
        run_trial,
        evaluator=evaluator,
        measure=measure,
        folder=trials_folder,
        timeout_s=timeout_s,
        further=further,
    )
    gpus = Trainers.here(workers, device).gpu_share(gpus_per_trial)
    with searcher.marks_interrupted():
        _tune(searcher, trainable, gpus, log)


def _tune(
    searcher: _SessionSearcher, trainable: Any, gpus: float, log: TensorBoardLog | None
) -> None:
    """Have Tune run ``trainable`` on what ``searcher`` suggests, anew where Tune itself fails."""
    is_over = False
    while not is_over:
        with scratch("tune") as folder, interrupts.told_to_library() as take_over:
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": 1, "gpu": gpus}),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=HalvingScheduler(judge=searcher.judge),
                    num_samples=-1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=str(folder),
                    name="trials",
                    verbose=0,
                    stop=searcher.ending,
                    callbacks=[
                        ForgetEnded(),
                        EachStep(take_over),
                        *([] if log is None else [log]),
                    ],
                ),
            )
            error = _failure(tuner)
        searcher.ending.check()
        is_over = error is None
        if error is not None:
            searcher.lose_all(error)


def _measures(
    measured: Sequence[MeterFound],
    device: str,
    meter: str,
    protocol: Protocol,
    lock_folder: Path | None,
) -> list[RayMeasure]:
    """How trials are measured; by the first they are judged."""
    if not measured:
        return [RayMeasure(device, meter, protocol, lock_folder)]
    return [
        RayMeasure(found.device, found.meter, protocol, lock_folder, name=found.name)
        for found in measured
    ]


def _failure(tuner: tune.Tuner) -> ray.exceptions.RayError | None:
    """Run ``tuner`` and return what ended it, ``None`` where it came to its end.

    Where Ray's memory monitor ends one worker, Tune ends all of them with an error.
    """
    try:
        tuner.fit()
    except RuntimeError as error:
        if not isinstance(error.__cause__, ray.exceptions.RayError):
            raise
        return error.__cause__
    return None


def run_replicas(
    refinement: Refinement,
    evaluator: Evaluator,
    trials_folder: Place,
    *,
    workers: int,
    device: str,
    meter: str,
    protocol: Protocol,
    lock_folder: Path | None,
    measured: Sequence[MeterFound] = (),
    gpus_per_trial: float | None = None,
    timeout_s: float | None = None,
    listener: Listener | None = None,
) -> None:
    """Evaluate again what ``refinement`` asks for, until it asks no more or Ctrl-C ends it."""
    measure, *further = _measures(measured, device, meter, protocol, lock_folder)
    gpus = Trainers.here(workers, device).gpu_share(gpus_per_trial)
    task: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(evaluate_trial)
    running: dict[Any, TrialRecord] = {}
    while True:
        while len(running) < workers and (replica := refinement.next_replica()) is not None:
            folder = replica_folder(trials_folder / str(replica.number), replica.replica)
            what = (replica, folder, evaluator, measure, None, timeout_s, further)
            running[task.remote(*what)] = replica
        if listener is not None:
            listener.on_refine(refinement.done, refinement.budget)
        if not running:
            return
        ready = ray.wait(list(running))[0][0]
        replica = running.pop(ready)
        try:
            ray.get(ready)
        except ray.exceptions.RayError as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
            if cause is not None and is_of_storage(cause):
                raise cause from error
            folder = replica_folder(trials_folder / str(replica.number), replica.replica)
            folder.mkdir(parents=True, exist_ok=True)
            if result_in(folder) is None:
                lost = with_spent(failed(replica, _DIED), folder)
                write_json(folder / RESULT, lost.to_dict())
        refinement.ended(replica)


def run_alone(
    function: Callable[..., object],
    *arguments: object,
    device: str,
    while_waiting: Callable[[], None],
) -> None:
    """Run ``function`` once where trials run, and wait for it.

    Raises:
        Exception: what ``function`` raised, or a ``RayError`` where its worker died.
    """
    gpus = 1 if device.startswith("cuda") else 0
    task: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(_patient(function))
    running = task.remote(*arguments)
    while not ray.wait([running], timeout=_LOOK_S)[0]:
        while_waiting()
    try:
        ray.get(running)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def adopt_results(session: Session, trials_folder: Place) -> None:
    """Finish trials that a killed driver dispatched and whose worker still got to the end."""
    for record in session.in_flight():
        found = result_in(trials_folder / str(record.number))
        if found is not None and is_of(found, record):
            session.finish(found)


def _patient(function: Callable[..., object]) -> Callable[..., object]:
    """``function``, which waits for storage that is away."""

    def run(*arguments: object) -> object:
        with naming_storage(), patience(tell_driver("a worker waits for storage")):
            return function(*arguments)

    return run


class _SessionSearcher(Searcher):
    """Hands Tune the session's candidates, and the session Tune's results."""

    def __init__(
        self, session: Session, trials_folder: Place, workers: int, stopper: Stopper | None
    ) -> None:
        super().__init__()
        self._stopper = stopper
        self._session = session
        self._trials_folder = trials_folder
        self._workers = workers
        self._running: dict[str, TrialRecord] = {}
        self.ending = Ending()
        self._is_alone = False
        self._attempts = Attempts(session, trials_folder)
        self._take_up()

    def _take_up(self) -> None:
        """Dispatch what an earlier driver left running, what may have killed it last."""
        in_flight = self._session.in_flight()
        self._attempts.driver_died(in_flight)
        in_flight.sort(key=lambda record: self._attempts.of(record.number).is_suspect)
        for record in in_flight:
            self._again_or_failed(record)

    @contextmanager
    def marks_interrupted(self) -> Iterator[None]:
        """Keep that what runs at the end of the context was not killed by itself.

        So is a search that ends by Ctrl-C or for want of storage. Any other error may be a
        trial's doing, as where it took Ray's processes with it.
        """
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or is_away(error):
                with suppress(Exception), patience(wait_s=0.0):
                    self._interrupted()
            raise
        self._interrupted()

    def _interrupted(self) -> None:
        self._attempts.interrupted([record.number for record in self._session.in_flight()])

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    @or_end(None)
    def suggest(self, trial_id: str) -> Any:
        self._is_alone = self._is_alone and bool(self._running)
        if len(self._running) >= self._workers or self._is_alone:
            return None
        candidate = self._session.next_candidate()
        if candidate is None:
            # Nothing is left, unless one of those that still run dies.
            return None if self._running else str(Searcher.FINISHED)
        if self._attempts.is_suspect(candidate.number):
            if self._running:
                self._session.dispatch_again(candidate, last=True)
                return None
            self._is_alone = True
        self._attempts.begin(candidate.number)
        self._running[trial_id] = candidate
        return {"candidate": json.dumps(candidate.to_dict())}

    @or_end(True)
    def judge(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether a trial goes on; a stopped one is in the study when this returns."""
        candidate = self._running.get(trial_id)
        if candidate is None or self._stopper is None or PROGRESS not in result:
            return True
        progress = Progress.from_dict(json.loads(result[PROGRESS]))
        stopped = self._stopper.judge(candidate.number, progress)
        if stopped is None:
            return True
        self._session.finish(stopped)
        self._attempts.ended(candidate.number)
        forget_unfinished(self._trials_folder / str(candidate.number))
        return False

    @or_end(None)
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        candidate = self._running.pop(trial_id, None)
        if candidate is None or self._session.record(candidate.number).state != "running":
            return
        if not error and AWAY in (result or {}):
            # Unfinished, for a resumed search: whoever runs it next meets the same storage.
            raise StorageAwayError((result or {})[AWAY])
        folder = self._trials_folder / str(candidate.number)
        # What it reported, since the disk may be away just now; what it wrote, where it died then.
        told = (result or {}).get(ENDED)
        found = result_in(folder) if told is None else TrialRecord.from_dict(json.loads(told))
        if found is not None:
            self._session.finish(found)
            self._attempts.ended(candidate.number)
        elif error:
            self._lose(candidate, is_sure=True)
        # Neither: Ctrl-C stopped it half-way; it stays in flight.

    def lose_all(self, error: BaseException | None = None) -> None:
        """Dispatch again what was running: all its workers are gone, by the ``error`` of one."""
        running, self._running = list(self._running.values()), {}
        died = []
        for candidate in running:
            found = result_in(self._trials_folder / str(candidate.number))
            if found is not None and is_of(found, candidate):
                self._session.finish(found)
                self._attempts.ended(candidate.number)
            elif self._session.record(candidate.number).state == "running":
                died.append(candidate)
        named = [candidate for candidate in died if self._is_named(candidate, error)]
        is_sure = len(died) == 1 or len(named) == 1
        for candidate in died:
            if is_sure and named and candidate not in named:
                # Ended by Tune with the one that Ray names.
                self._attempts.interrupted([candidate.number])
                self._again_or_failed(candidate)
            else:
                self._lose(candidate, is_sure=is_sure)

    def _is_named(self, candidate: TrialRecord, error: BaseException | None) -> bool:
        names = worker_ids(self._trials_folder / str(candidate.number))
        return error is not None and any(name in str(error) for name in names)

    def _lose(self, candidate: TrialRecord, *, is_sure: bool) -> None:
        self._attempts.worker_died(candidate.number, is_sure=is_sure)
        self._again_or_failed(candidate)

    def _again_or_failed(self, candidate: TrialRecord) -> None:
        tried = self._attempts.of(candidate.number)
        if tried.is_spent:
            folder = self._trials_folder / str(candidate.number)
            self._session.finish(with_spent(failed(candidate, _DIED), folder))
            self._attempts.ended(candidate.number)
            forget_unfinished(folder)
        else:
            self._session.dispatch_again(candidate, last=True)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore that is never used here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is durable."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save``."""
