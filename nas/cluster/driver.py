"""An executor on Ray Tune, on the Ray that ``connect`` connects to.

Tune schedules the trials and reports crashed workers. It runs in a thread of its own, which our
``Searcher`` feeds with candidates from a queue; what becomes of them returns through another.
``trial_worker`` is what a worker does. Trials train on nodes with CPUs (or GPUs), see ``roles``,
and are measured by tasks on nodes with meters (``measuring``).

The two threads take turns: Tune waits while the loop handles an event, so that the candidate which
the loop then submits starts in the same step of Tune's.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Mapping
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any

# First: it sets what Ray reads when it is imported.

# isort: split
import ray
from ray import tune
from ray.tune.search import Searcher

from nas.cluster.ending import Ending, or_end
from nas.cluster.measuring import RayMeasure
from nas.cluster.roles import Trainers
from nas.cluster.scheduler import EarlyStoppingScheduler
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


class TuneExecutor:
    """Evaluates candidates as trials of one Ray Tune experiment, which begins with the first."""

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
        """Run Tune until the feed is closed, anew where Tune itself fails."""
        feed = self._feed
        try:
            trainable = self._trainable()
            while not feed.is_closed:
                with scratch("tune") as folder:
                    error = _failure(self._tuner(trainable, str(folder)))
                feed.ending.check()
                if error is not None:
                    feed.lose_all(error)
                elif not feed.is_closed:
                    raise RuntimeError("Ray Tune ended before the search did")
        except BaseException as error:
            feed.post(error)

    def _trainable(self) -> Any:
        driver, device = self._driver, self._measuring.device
        measure, *further = _measures(self._measuring)
        trainable = tune.with_parameters(
            run_trial,
            evaluator=self._evaluator,
            measure=measure,
            folder=self._folder,
            timeout_s=driver.trial_timeout_s,
            further=further,
        )
        gpus = Trainers.here(driver.workers, device).gpu_share(driver.gpus_per_trial)
        return tune.with_resources(trainable, {"cpu": 1, "gpu": gpus})

    def _tuner(self, trainable: Any, folder: str) -> tune.Tuner:
        return tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=self._feed,
                scheduler=EarlyStoppingScheduler(self._feed.judge),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                name="trials",
                verbose=0,
                stop=self._feed.ending,
                callbacks=[ForgetEnded()],
            ),
        )


def _measures(measuring: Measuring) -> list[RayMeasure]:
    """How trials are measured; by the first they are judged."""
    protocol, locks = measuring.protocol, measuring.lock_folder
    if not measuring.measured:
        return [RayMeasure(measuring.device, measuring.meter, protocol, locks)]
    return [
        RayMeasure(found.device, found.meter, protocol, locks, name=found.name)
        for found in measuring.measured
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


class _Reached:
    """A candidate has come to a rung, and its worker waits for the verdict."""

    def __init__(self, candidate: Candidate, progress: Progress) -> None:
        self.candidate, self.progress = candidate, progress


class _Feed(Searcher):
    """Hands Tune submitted candidates, and the loop's thread what becomes of them."""

    def __init__(self, trials_folder: Place) -> None:
        super().__init__()
        self.ending = Ending()
        self.is_closed = False
        self._trials_folder = trials_folder
        # Tune's thread waits for its turn; the loop's thread only on the queue of events, which
        # Ctrl-C interrupts.
        self._turn = threading.Condition()
        self._is_idle = False
        self._submitted: deque[Candidate] = deque()
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._verdict: bool | None = None
        # Tune's thread alone.
        self._running: dict[str, Candidate] = {}

    def submit(self, candidate: Candidate) -> None:
        """Queue ``candidate`` for Tune."""
        with self._turn:
            self._submitted.append(candidate)
            self._turn.notify_all()

    def next_event(self) -> Any:
        """Wait for what Tune's thread posts next."""
        with self._turn:
            self._is_idle = self._events.empty()
            self._turn.notify_all()
        with interrupts.allowed():
            return self._events.get()

    def answer(self, goes_on: bool) -> None:
        """Give the verdict on the trial that reached a rung last."""
        with self._turn:
            self._verdict = goes_on
            self._turn.notify_all()

    def close(self) -> None:
        """End Tune's experiment and all of its trials."""
        with self._turn:
            self.is_closed = self.ending.is_over = True
            self._turn.notify_all()

    def post(self, event: Any) -> None:
        """Tell the loop's thread of ``event``."""
        with self._turn:
            self._is_idle = False
            self._events.put(event)

    def lose_all(self, error: BaseException) -> None:
        """Report what was running as lost: all workers are gone, by the ``error`` of one."""
        running, self._running = list(self._running.values()), {}
        died = []
        for candidate in running:
            found = finished_in(candidate, self._trials_folder)
            if found is None:
                died.append(candidate)
            else:
                self.post(Ended(candidate, found))
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

    @or_end(None)
    def suggest(self, trial_id: str) -> Any:
        def has_turn() -> bool:
            # With nothing to run Tune would sleep for a second.
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

    @or_end(True)
    def judge(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether a trial goes on; a stopped one is in the study when this returns."""
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

    @or_end(None)
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        candidate = self._running.pop(trial_id, None)
        if candidate is None:
            return
        said = result or {}
        if not error and AWAY in said:
            # Unfinished, for a resumed search: whoever runs it next meets the same storage.
            raise StorageAwayError(said[AWAY])
        # What it reported, since the disk may be away just now; what it wrote, where it died then.
        if ENDED in said:
            self.post(Ended(candidate, from_plain(Outcome, json.loads(said[ENDED]), ENDED)))
        elif (found := finished_in(candidate, self._trials_folder)) is not None:
            self.post(Ended(candidate, found))
        elif error:
            self.post(Lost((candidate,)))
        # Neither: the executor was closed; it stays in flight.

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore that is never used here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is durable."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save``."""
