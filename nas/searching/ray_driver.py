"""Run a session's trials on Ray Tune. Beside ``halving_scheduler`` the only file that imports ray.

Tune schedules the trials and reports crashed workers; our ``Searcher`` feeds it from the session,
which owns the study. Measuring is a Ray task on a node with the custom resource ``joule_meter``,
of which each measuring device has 1. A task takes half of it: while one holds the device's
exclusive lock and measures, the next may import and compile, which takes several times as long as
measuring does. The lock (``predictors.campaign.exclusive``) is what keeps windows from overlapping
with each other and with training.

A worker that dies takes no trial with it: the trial is dispatched again, from the state that it
kept, and only fails when that has happened ``ATTEMPTS`` times. So are measuring tasks.

Where trials are stopped early, a worker reports at each rung and waits; ``HalvingScheduler`` asks
the session's ``Stopper``, whose verdict is in the study before Tune ends the worker's trial.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Tune's loggers write CSV, JSON and TensorBoard files for each trial: the study has it all.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# A task that runs out of memory is run again like any other that dies, not for ever.
os.environ.setdefault("RAY_task_oom_retries", "2")

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from nas.files import write_json
from nas.patience import is_os_error, patience, persist
from nas.searching.evaluator import Evaluator, forget_unfinished, unfinished
from nas.searching.halving_scheduler import HalvingScheduler
from nas.searching.refine import Refinement
from nas.searching.replicas import RESULT as _RESULT
from nas.searching.replicas import replica_folder, result_in
from nas.searching.session import Listener, Session, failed
from nas.searching.stopping import Progress, Stopper, Tell
from nas.searching.trial import TrialRecord
from predictors.campaign.process import MeasureInterrupted
from predictors.campaign.protocol import Protocol
from predictors.campaign.records import EnergyRecord
from predictors.campaign.runner import measure_fresh
from search_spaces.architecture import Architecture
from search_spaces.plugins import environment
from search_spaces.workload import Workload

METER_RESOURCE = "joule_meter"
_METER_SHARE = 0.5
_PROGRESS, _ENDED = "progress", "record"
_CONNECT_TIMEOUT_S = 5.0
# How often progress is looked at while one task runs alone.
_LOOK_S = 0.5
# How often what dies is tried before it counts as failed.
ATTEMPTS = 3
# Between the end of a trial's time and that of its process, if even its threads hang.
_GRACE_S = 10.0
_DIED = "its worker died (out of memory, a signal, or a lost node)"


class ClusterError(RuntimeError):
    """The Ray cluster cannot run the search; the message says why in one line."""


@contextmanager
def cluster(address: str | None, workers: int, device: str) -> Iterator[None]:
    """A local Ray for ``workers`` trials, or a connection to the one at ``address``.

    Raises:
        ClusterError: there is no cluster at ``address``, or it has no ``joule_meter``.
    """
    with _listening(address is not None), _connected(address, workers, device):
        yield


@contextmanager
def _listening(to_network: bool) -> Iterator[None]:
    """Where the servers listen that Ray starts meanwhile: at loopback alone, or to the network.

    They run what anybody asks for who reaches them. On Linux they listen to the network, elsewhere
    they do not, and Ray has no option for it.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = to_network
    try:
        yield
    finally:
        # A cluster that this process starts later would be one that nothing else can reach.
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _connected(address: str | None, workers: int, device: str) -> Iterator[None]:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if environment():
        # So that workers, wherever they are, load the plug-ins that this process has loaded.
        quiet["runtime_env"] = {"env_vars": environment()}
    _quieten()
    try:
        if address is None:
            ray.init(
                # Of its own, even where another Ray runs here: without a word it would join that.
                address="local",
                num_cpus=workers,
                num_gpus=1 if device.startswith("cuda") else 0,
                resources={METER_RESOURCE: 1},
                include_dashboard=False,
                # The sampler and the study need little: Ray's default is 30% of memory.
                object_store_memory=200 * 1024 * 1024,
                **quiet,
            )
        else:
            _check_reachable(address)
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"address must be that of a running Ray cluster, got {address!r}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if resources.get(METER_RESOURCE, 0) < 1:
            raise ClusterError(
                f"the cluster must have a node with the resource {METER_RESOURCE}: start it with "
                f"ray start --resources '{{\"{METER_RESOURCE}\": 1}}'"
            )
        yield
    finally:
        ray.shutdown()


def _quieten() -> None:
    """Keep Ray from printing what is in records, and from showing what is secret."""
    # What becomes of a trial is in its record; Tune would show tracebacks besides.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Ray has no option for these two. A worker's death is printed to stdout, amid our results; the
    # driver's command line, which may hold a password, is shown to all of the cluster.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    ray._private.utils.get_entrypoint_name = lambda: "nas"


def _check_reachable(address: str) -> None:
    """Raise ``OSError`` if nothing listens at ``host:port``: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def run_trials(
    session: Session,
    evaluator: Evaluator,
    trials_folder: Path,
    *,
    workers: int,
    device: str,
    meter: str,
    protocol: Protocol,
    lock_folder: Path,
    timeout_s: float | None = None,
    stopper: Stopper | None = None,
) -> None:
    """Run until the session has no more candidates, or until Ctrl-C ends it.

    A trial that takes longer than ``timeout_s``, all its waiting included, fails. With ``stopper``
    trials are judged at the rungs that ``evaluator`` tells of.
    """
    if stopper is not None:
        for record in session.in_flight():
            progress = unfinished(trials_folder / str(record.number))
            if progress is not None:
                stopper.reach(record.number, progress.curve)
    searcher = _SessionSearcher(session, trials_folder, workers, stopper)
    measure = _RayMeasure(device, meter, protocol, lock_folder)
    trainable = tune.with_parameters(
        _run_trial,
        evaluator=evaluator,
        measure=measure,
        folder=trials_folder,
        timeout_s=timeout_s,
    )
    # On a GPU each trial takes its share, so that ``workers`` of them train abreast.
    gpus = 1 / workers if device.startswith("cuda") else 0
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
                run_config=tune.RunConfig(storage_path=scratch, name="trials", verbose=0),
            )
            is_over = _fitted(tuner)
        if not is_over:
            searcher.lose_all()


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
    trials_folder: Path,
    *,
    workers: int,
    device: str,
    meter: str,
    protocol: Protocol,
    lock_folder: Path,
    timeout_s: float | None = None,
    listener: Listener | None = None,
) -> None:
    """Evaluate again what ``refinement`` asks for, until it asks no more or Ctrl-C ends it."""
    measure = _RayMeasure(device, meter, protocol, lock_folder)
    gpus = 1 / workers if device.startswith("cuda") else 0
    task: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(_evaluate)
    running: dict[Any, TrialRecord] = {}
    while True:
        while len(running) < workers and (replica := refinement.next_replica()) is not None:
            folder = replica_folder(trials_folder / str(replica.number), replica.replica)
            running[task.remote(replica, folder, evaluator, measure, None, timeout_s)] = replica
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
                write_json(folder / _RESULT, failed(replica, _DIED).to_dict())
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


def adopt_results(session: Session, trials_folder: Path) -> None:
    """Finish trials that a killed driver dispatched and whose worker still got to the end."""
    for record in session.in_flight():
        found = result_in(trials_folder / str(record.number))
        if found is not None and _is_of(found, record):
            session.finish(found)


def _is_of(result: TrialRecord, candidate: TrialRecord) -> bool:
    """Whether ``result`` is what became of ``candidate``."""
    return (result.number, result.replica, result.architecture) == (
        candidate.number,
        candidate.replica,
        candidate.architecture,
    )


def _patient(function: Callable[..., object]) -> Callable[..., object]:
    """``function``, which waits for storage that is away."""

    def run(*arguments: object) -> object:
        with patience():
            return function(*arguments)

    return run


class _SessionSearcher(Searcher):
    """Hands Tune the session's candidates, and the session Tune's results."""

    def __init__(
        self, session: Session, trials_folder: Path, workers: int, stopper: Stopper | None
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
        if candidate is None or self._stopper is None or _PROGRESS not in result:
            return True
        progress = Progress.from_dict(json.loads(result[_PROGRESS]))
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
        told = (result or {}).get(_ENDED)
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
            if found is not None and _is_of(found, candidate):
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


@dataclass(frozen=True, slots=True)
class _RayMeasure:
    """``Measure`` as a Ray task on a node that measures."""

    device: str
    meter: str
    protocol: Protocol
    lock_folder: Path
    function: Callable[..., EnergyRecord] = measure_fresh

    def __call__(
        self, architecture: Architecture, workload: Workload, weights: Path, inputs: Path
    ) -> EnergyRecord:
        options: dict[str, Any] = {
            "num_cpus": 0,
            "resources": {METER_RESOURCE: _METER_SHARE},
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


def _run_trial(
    config: dict[str, Any],
    evaluator: Evaluator,
    measure: _RayMeasure,
    folder: Path,
    timeout_s: float | None = None,
) -> None:
    """One trial, in a Ray worker: its record is on disk before Tune hears that it ended."""
    candidate = TrialRecord.from_dict(json.loads(config["candidate"]))
    own = folder / str(candidate.number)
    record = _evaluate(candidate, own, evaluator, measure, _tell, timeout_s)
    tune.report({_ENDED: json.dumps(record.to_dict())})


def _evaluate(
    candidate: TrialRecord,
    folder: Path,
    evaluator: Evaluator,
    measure: _RayMeasure,
    tell: Tell | None = None,
    timeout_s: float | None = None,
) -> TrialRecord:
    """What became of ``candidate``, which is in ``folder`` as well when this returns."""
    with patience(), _time_limit(candidate, folder, timeout_s) as may_end:
        _prepare(folder)
        known = result_in(folder)
        if known is not None and _is_of(known, candidate):
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
            write_json(folder / _RESULT, record.to_dict())
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
            if not timer.finished.is_set():
                reason = f"it took longer than {timeout_s:g} s"
                with suppress(OSError):
                    write_json(folder / _RESULT, failed(candidate, reason).to_dict())
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
    tune.report({_PROGRESS: json.dumps(progress.to_dict())})
