"""Run a session's trials on Ray Tune, on the Ray that ``ray_cluster`` connects to.

Tune schedules the trials and reports crashed workers; our ``Searcher`` feeds it from the session,
which owns the study, and ``ray_trial`` is what a worker does. Trials train on nodes with CPUs (or
GPUs), of which ``ray_roles`` tells, and are measured by tasks on nodes with meters
(``ray_measure``).

A worker that dies takes no trial with it: the trial is dispatched again, from the state that it
kept, and only fails when that has happened ``ATTEMPTS`` times. So are measuring tasks.

Where trials are stopped early, a worker reports at each rung and waits; ``HalvingScheduler`` asks
the session's ``Stopper``, whose verdict is in the study before Tune ends the worker's trial.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# First: it sets what Ray reads when it is imported.
from nas.searching import ray_cluster  # noqa: F401

# isort: split
import ray
from ray import tune
from ray.tune.search import Searcher

from nas.files import Place, write_json
from nas.patience import patience
from nas.searching.evaluator import Evaluator, forget_unfinished, unfinished
from nas.searching.halving_scheduler import HalvingScheduler
from nas.searching.measure_on import MeterFound
from nas.searching.ray_logging import TensorBoardLog
from nas.searching.ray_measure import ATTEMPTS, RayMeasure
from nas.searching.ray_memory import ForgetEnded
from nas.searching.ray_roles import Trainers
from nas.searching.ray_trial import ENDED, PROGRESS, evaluate_trial, is_of, run_trial
from nas.searching.refine import Refinement
from nas.searching.replicas import RESULT, replica_folder, result_in
from nas.searching.session import Listener, Session, failed
from nas.searching.stopping import Progress, Stopper
from nas.searching.trial import TrialRecord
from predictors.campaign.protocol import Protocol

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
    the cluster has are used. A trial that takes longer than ``timeout_s``, all its waiting
    included, fails. With ``stopper`` trials are judged at the rungs that ``evaluator`` tells of.
    ``log`` hears of every trial.
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
    is_over = False
    while not is_over:
        with tempfile.TemporaryDirectory(prefix="joulenas-tune-") as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": 1, "gpu": gpus}),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=HalvingScheduler(judge=searcher.judge),
                    num_samples=-1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    name="trials",
                    verbose=0,
                    callbacks=[ForgetEnded(), *([] if log is None else [log])],
                ),
            )
            is_over = _fitted(tuner)
        if not is_over:
            searcher.lose_all()


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


def _fitted(tuner: tune.Tuner) -> bool:
    """Run ``tuner``; whether it came to its end.

    Where Ray's memory monitor ends one worker, Tune ends all of them with an error.
    """
    try:
        tuner.fit()
    except RuntimeError as error:
        if not isinstance(error.__cause__, ray.exceptions.RayError):
            raise
        return False
    return True


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
        except ray.exceptions.RayError:
            folder = replica_folder(trials_folder / str(replica.number), replica.replica)
            folder.mkdir(parents=True, exist_ok=True)
            if result_in(folder) is None:
                write_json(folder / RESULT, failed(replica, _DIED).to_dict())
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
        with patience():
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
        self._deaths: Counter[int] = Counter()

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if len(self._running) >= self._workers:
            return None
        candidate = self._session.next_candidate()
        if candidate is None:
            # Nothing is left, unless one of those that still run dies.
            return None if self._running else str(Searcher.FINISHED)
        self._running[trial_id] = candidate
        return {"candidate": json.dumps(candidate.to_dict())}

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
        forget_unfinished(self._trials_folder / str(candidate.number))
        return False

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        candidate = self._running.pop(trial_id, None)
        if candidate is None or self._session.record(candidate.number).state != "running":
            return
        folder = self._trials_folder / str(candidate.number)
        # What it reported, since the disk may be away just now; what it wrote, where it died then.
        told = (result or {}).get(ENDED)
        found = result_in(folder) if told is None else TrialRecord.from_dict(json.loads(told))
        if found is not None:
            self._session.finish(found)
        elif error:
            self._lose(candidate)
        # Neither: Ctrl-C stopped it half-way. It stays in flight, for a resumed search.

    def lose_all(self) -> None:
        """Dispatch again what was running: the workers of all of it are gone."""
        running, self._running = list(self._running.values()), {}
        for candidate in running:
            found = result_in(self._trials_folder / str(candidate.number))
            if found is not None and is_of(found, candidate):
                self._session.finish(found)
            elif self._session.record(candidate.number).state == "running":
                self._lose(candidate)

    def _lose(self, candidate: TrialRecord) -> None:
        self._deaths[candidate.number] += 1
        if self._deaths[candidate.number] < ATTEMPTS:
            self._session.dispatch_again(candidate)
        else:
            self._session.finish(failed(candidate, _DIED))
            forget_unfinished(self._trials_folder / str(candidate.number))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore that is never used here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is durable, and Tune's own restore is not used."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save``."""
