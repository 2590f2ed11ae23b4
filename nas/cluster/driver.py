"""An executor on Ray Tune, on the Ray that ``connect`` connects to.

Tune schedules trials and reports crashed workers. It runs in its own thread, which a ``Searcher``
feeds with candidates from a queue; events return through another. A worker runs
``trial_worker``. Trials train on nodes with CPUs or GPUs (``roles``), and are measured by tasks
on nodes with meters (``measuring``).

The two threads take turns: Tune waits while the loop handles an event, so that the loop's next
candidate starts in the same step of Tune.
"""

from __future__ import annotations

import functools
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, Self, TypeVar

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nas.cluster.measuring import measures_of
from nas.cluster.roles import Trainers
from nas.cluster.trial_worker import AWAY, ENDED, PROGRESS, run_trial, worker_ids
from nas.cluster.tune_memory import ForgetEnded
from nas.core import interrupts
from nas.core.files import Place
from nas.core.plain import from_plain, to_plain
from nas.core.retry import StorageAwayError
from nas.core.scratch import scratch
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.executor import Ended, Judge, Lost, Measuring, Stopped
from nas.evaluation.outcome import finished_in, folder_of
from nas.records.candidate import Candidate, Outcome
from nas.records.rungs import Progress
from nas.store.driver import Driver

F = TypeVar("F", bound=Callable[..., Any])


class TuneExecutor:
    """Executor of candidates as trials of one Ray Tune experiment, begun by the first."""

    def __init__(
        self, evaluator: Evaluator, trials_folder: Place, measuring: Measuring, driver: Driver
    ) -> None:
        """Each trial takes a CPU and a part of a GPU; see ``Driver`` for its limits."""
        self.slots = driver.workers
        self._evaluator, self._folder, self._driver = evaluator, trials_folder, driver
        self._measuring = measuring
        self._feed = _Feed(trials_folder)
        self._thread: threading.Thread | None = None

    def submit(self, candidate: Candidate) -> None:
        """See ``Executor``."""
        self._feed.submit(candidate)
        if self._thread is None:
            run = copy_context().run
            self._thread = threading.Thread(
                target=run, args=(self._run,), name="joulenas-tune", daemon=True
            )
            self._thread.start()

    def wait(self, judge: Judge) -> Ended | Stopped | Lost:
        """See ``Executor``."""
        while True:
            event = self._feed.next_event()
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, Ended | Stopped | Lost):
                return event
            self._feed.answer(judge(event.candidate, event.progress))

    def close(self) -> None:
        """See ``Executor``."""
        self._feed.close()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        """Run Tune until the feed is closed, and restart it if Tune itself fails."""
        feed = self._feed
        try:
            trainable = self._trainable()
            while not feed.is_closed:
                with scratch("tune") as folder:
                    error = _failure(self._tuner(trainable, str(folder)))
                if error is not None:
                    feed.lose_all(error)
                elif not feed.is_closed:
                    raise RuntimeError("Ray Tune ended before the search did")
        except BaseException as error:
            feed.post(error)

    def _trainable(self) -> Any:
        driver, measuring = self._driver, self._measuring
        measure, *further = measures_of(measuring, driver)
        trainable = tune.with_parameters(
            run_trial,
            evaluator=self._evaluator,
            measure=measure,
            folder=self._folder,
            timeout_s=driver.trial_timeout_s,
            further=further,
        )
        trainers = Trainers.here(driver.workers, measuring.device)
        gpus = trainers.gpu_share(driver.gpus_per_trial)
        return tune.with_resources(trainable, {"cpu": 1, "gpu": gpus})

    def _tuner(self, trainable: Any, folder: str) -> tune.Tuner:
        return tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=self._feed,
                scheduler=_RungScheduler(self._feed.judge),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                name="trials",
                verbose=0,
                stop=_StopAll(self._feed),
                callbacks=[ForgetEnded()],
            ),
        )


def _failure(tuner: tune.Tuner) -> ray.exceptions.RayError | None:
    """Run ``tuner`` and return the Ray error that ended it, ``None`` at its regular end.

    If Ray's memory monitor ends one worker, Tune ends all of them with an error.
    """
    try:
        tuner.fit()
    except RuntimeError as error:
        if not isinstance(error.__cause__, ray.exceptions.RayError):
            raise
        return error.__cause__
    return None


class _Reached:
    """A candidate that has reached a rung, and whose worker waits for the verdict."""

    def __init__(self, candidate: Candidate, progress: Progress) -> None:
        self.candidate, self.progress = candidate, progress


def _ending_at_error(otherwise: Any) -> Callable[[F], F]:
    """Decorate a method of ``_Feed``: an error ends the search, and ``otherwise`` is returned.

    Tune would turn an error of a searcher into a failure of the trial, or into another error that
    contains the first as text only.
    """

    def wrap(method: F) -> F:
        @functools.wraps(method)
        def run(feed: _Feed, *arguments: Any, **named: Any) -> Any:
            if feed.is_failed:
                return otherwise
            try:
                return method(feed, *arguments, **named)
            except Exception as error:
                feed.fail(error)
                return otherwise

        return run  # type: ignore[return-value]

    return wrap


class _Feed(Searcher):
    """Searcher that passes candidates to Tune, and Tune's events to the loop's thread."""

    def __init__(self, trials_folder: Place) -> None:
        super().__init__()
        self.is_closed = self.is_failed = False
        self._trials_folder = trials_folder
        # Tune's thread waits for its turn; the loop's thread only on the queue of events, which
        # Ctrl-C interrupts.
        self._turn = threading.Condition()
        self._is_idle = False
        self._submitted: deque[Candidate] = deque()
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._verdict: bool | None = None
        # Used only by Tune's thread.
        self._running: dict[str, Candidate] = {}

    def submit(self, candidate: Candidate) -> None:
        """Queue ``candidate`` for Tune."""
        with self._turn:
            self._submitted.append(candidate)
            self._turn.notify_all()

    def next_event(self) -> Any:
        """Wait for the next event from Tune's thread."""
        with self._turn:
            self._is_idle = self._events.empty()
            self._turn.notify_all()
        with interrupts.allowed():
            return self._events.get()

    def answer(self, goes_on: bool) -> None:
        """Set the verdict on the trial that last reached a rung."""
        with self._turn:
            self._verdict = goes_on
            self._turn.notify_all()

    def close(self) -> None:
        """End Tune's experiment and all of its trials."""
        with self._turn:
            self.is_closed = True
            self._turn.notify_all()

    def fail(self, error: Exception) -> None:
        """End the experiment; the loop's thread raises ``error``."""
        self.is_failed = True
        self.close()
        self.post(error)

    def post(self, event: Any) -> None:
        """Queue ``event`` for the loop's thread."""
        with self._turn:
            self._is_idle = False
            self._events.put(event)

    def lose_all(self, error: BaseException) -> None:
        """Report running trials as lost after the ``error`` of one worker ended them all."""
        running, self._running = list(self._running.values()), {}
        died = []
        for candidate in running:
            outcome = finished_in(candidate, self._trials_folder)
            if outcome is None:
                died.append(candidate)
            else:
                self.post(Ended(candidate, outcome))
        named = [
            candidate
            for candidate in died
            if any(
                name in str(error)
                for name in worker_ids(folder_of(candidate, self._trials_folder))
            )
        ]
        if died:
            self.post(Lost(tuple(died), tuple(named)))

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    @_ending_at_error(None)
    def suggest(self, trial_id: str) -> Any:
        def has_turn() -> bool:
            # Tune sleeps for a second if it has nothing to run.
            is_idle = self._is_idle and bool(self._running)
            return self.is_closed or bool(self._submitted) or is_idle

        with self._turn:
            self._turn.wait_for(has_turn)
            if self.is_closed:
                return str(Searcher.FINISHED)
            if not self._submitted:
                return None
            candidate = self._submitted.popleft()
        self._running[trial_id] = candidate
        return {"candidate": json.dumps(to_plain(candidate))}

    @_ending_at_error(True)
    def judge(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Return whether a trial continues; a stopped one is in the study on return."""
        candidate = self._running.get(trial_id)
        if candidate is None or PROGRESS not in result:
            return True
        self._verdict = None
        self.post(
            _Reached(candidate, from_plain(Progress, json.loads(result[PROGRESS]), PROGRESS))
        )
        with self._turn:
            self._turn.wait_for(lambda: self.is_closed or self._verdict is not None)
            goes_on = self._verdict is not False
        if not goes_on:
            del self._running[trial_id]
            self.post(Stopped(candidate))
        return goes_on

    @_ending_at_error(None)
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        candidate = self._running.pop(trial_id, None)
        if candidate is None:
            return
        reported = result or {}
        if not error and AWAY in reported:
            # The trial stays unfinished: the next driver that runs it needs the same storage.
            raise StorageAwayError(reported[AWAY])
        # Read its report, since the disk may be away, or its file if it died after writing it.
        if ENDED in reported:
            self.post(Ended(candidate, from_plain(Outcome, json.loads(reported[ENDED]), ENDED)))
        elif (outcome := finished_in(candidate, self._trials_folder)) is not None:
            self.post(Ended(candidate, outcome))
        elif error:
            self.post(Lost((candidate,)))
        # Neither: the executor was closed, and the trial stays in flight.

    def __getstate__(self) -> dict[str, Any]:
        """Return no state: Tune pickles its searcher for a restore that is never used here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is durable."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save``."""


class _StopAll(tune.Stopper):
    """Stops all trials once the feed is closed."""

    def __init__(self, feed: _Feed | None = None) -> None:
        self._feed = feed

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._feed is not None and self._feed.is_closed

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: Tune copies it, and the copy must see the same feed."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Return an empty one: Tune pickles it for a restore that is never used here."""
        return type(self), ()


class _RungScheduler(FIFOScheduler):
    """Scheduler that starts trials in order, and stops them by their verdict at a rung."""

    def __init__(self, judge: Callable[[str, Mapping[str, Any]], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._judge = judge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        goes_on = self._judge(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)
