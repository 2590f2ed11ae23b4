"""An executor in this process itself: one candidate at a time, without Ray.

For notebooks, tests, one-off runs and machines on which Ray cannot start. Each candidate is
measured in a process of its own, as it is everywhere. A time limit is checked at each training
step. What only Ray gives is to survive a candidate that kills the process that trains it, as one
that runs out of memory may.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from nas.core import interrupts
from nas.core.files import Place, as_local
from nas.core.retry import AwayError, Tell, naming_storage, patience
from nas.core.time_limit import check_time, time_left_s, time_limit
from nas.evaluation.evaluator import Evaluator, Measure, forget_unfinished
from nas.evaluation.executor import Ended, Executor, Judge, Lost, Measuring, Stopped
from nas.evaluation.further import FurtherReadings
from nas.evaluation.outcome import folder_of, local, outcome
from nas.records.candidate import Candidate, Outcome
from nas.records.config import SearchConfig
from nas.records.device_names import MeasuredDevice, MeterFound, find_meter
from nas.records.rungs import Progress
from nas.searching.controller.attempts import ATTEMPTS
from nas.searching.controller.session import Listener
from nas.store.driver import Driver
from predictors.measurement.accounting import whole_device
from predictors.measurement.process import MeasureInterrupted, MeasureTimeout
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord
from predictors.measurement.runner import measure_candidate
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# Seconds between looks at the progress of a function that runs.
_LOOK_S = 0.5


class InProcessBackend:
    """This process, in which nothing has to be started."""

    is_asked_for_meters = False

    def __init__(self, driver: Driver, listener: Listener | None) -> None:
        """``listener`` is told what is waited for."""
        self._driver, self._listener = driver, listener

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to end."""

    def find_meter(self, device: str, meter: str | None) -> MeterFound:
        """See ``Backend``."""
        return find_meter(None, device, meter)

    def find_meters(
        self, devices: Sequence[MeasuredDevice], device: str, meter: str | None
    ) -> tuple[MeterFound, ...]:
        """See ``Backend``."""
        return tuple(
            find_meter(named.name, named.device or device, named.meter or meter)
            for named in devices
        )

    def check_paths(self, config: SearchConfig, files: Iterable[Path], folder: Path) -> None:
        """Nothing to check: this process reads its own paths."""

    def run(
        self,
        function: Callable[..., object],
        *arguments: object,
        while_waiting: Callable[[], None],
    ) -> None:
        """See ``Backend``; ``while_waiting`` is called in a thread of its own."""
        with (
            _each(_LOOK_S, while_waiting),
            _threads_restored(),
            naming_storage(),
            patience(self._waits("training")),
        ):
            function(*arguments)

    def energy_share(self) -> Callable[[], float]:
        """See ``Backend``: one candidate trains at a time."""
        return whole_device

    def executor(self, evaluator: Evaluator, folder: Place, measuring: Measuring) -> Executor:
        """See ``Backend``."""
        return InProcessExecutor(evaluator, folder, measuring, self._driver, self._waits)

    def _waits(self, what: str) -> Tell | None:
        listener = self._listener
        if listener is None:
            return None
        return lambda reason: listener.on_wait(f"{what} waits for storage: {reason}")


class InProcessExecutor:
    """Evaluates each submitted candidate within ``wait``."""

    slots = 1

    def __init__(
        self,
        evaluator: Evaluator,
        trials_folder: Place,
        measuring: Measuring,
        driver: Driver,
        waits: Callable[[str], Tell | None] = lambda _: None,
    ) -> None:
        """``waits`` returns the receiver of messages about waiting for storage."""
        self._evaluator, self._folder = evaluator, trials_folder
        self._measuring, self._timeout_s, self._waits = measuring, driver.trial_timeout_s, waits
        self._submitted: deque[Candidate] = deque()

    def submit(self, candidate: Candidate) -> None:
        """See ``Executor``."""
        self._submitted.append(candidate)

    def wait(self, judge: Judge) -> Ended | Stopped | Lost:
        """See ``Executor``."""
        candidate = self._submitted.popleft()

        def tell(progress: Progress) -> None:
            # Its verdict is stored whole.
            with interrupts.deferred():
                goes_on = judge(candidate, progress)
            if not goes_on:
                raise _StoppedEarly

        try:
            with interrupts.allowed():
                ended = self._evaluated(candidate, None if candidate.replica else tell)
        except _StoppedEarly:
            return Stopped(candidate)
        return Ended(candidate, ended)

    def close(self) -> None:
        """See ``Executor``: nothing runs outside of ``wait``."""
        self._submitted.clear()

    def _evaluated(self, candidate: Candidate, tell: Callable[[Progress], None] | None) -> Outcome:
        folder = folder_of(candidate, self._folder)
        measures = _Measures.of(self._measuring)

        def evaluate() -> Outcome:
            return measures.added_to(self._evaluator.evaluate(candidate, folder, measures, tell))

        with (
            _threads_restored(),
            naming_storage(local(folder)),
            patience(self._waits(f"trial {candidate.number}")) as waits,
            time_limit(self._timeout_s, waits),
        ):
            ended = outcome(candidate, folder, evaluate)
        forget_unfinished(folder)
        return ended


class _StoppedEarly(BaseException):  # noqa: N818  (no error, as ``GeneratorExit``)
    """Ends the evaluation of a candidate that is stopped early."""


@dataclass(frozen=True, slots=True)
class LocalMeasure:
    """``Measure`` in a process of its own on this machine, within the time limit of the trial."""

    device: str
    meter: str
    protocol: Protocol
    lock_folder: Path | None

    def __call__(
        self, architecture: Architecture, workload: Workload, weights: Place, inputs: Place
    ) -> EnergyRecord:
        """See ``Measure``."""
        check_time()
        with as_local(weights) as own_weights, as_local(inputs) as own_inputs:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return measure_candidate(
                        architecture,
                        workload,
                        protocol=self.protocol,
                        device=self.device,
                        meter=self.meter,
                        weights=own_weights,
                        inputs=own_inputs,
                        lock_folder=self.lock_folder,
                        timeout_s=time_left_s(),
                    )
                except MeasureTimeout:
                    check_time()
                    raise
                except MeasureInterrupted:
                    if attempt == ATTEMPTS:
                        raise
        raise AssertionError("unreachable")


class _Measures:
    """``Measure`` for one trial: on one device after another, judged by the first."""

    def __init__(self, first: Measure, further: Sequence[tuple[str, Measure]]) -> None:
        self._first, self._further = first, further
        self._beside = FurtherReadings()

    @classmethod
    def of(cls, measuring: Measuring) -> _Measures:
        """Return those of a search."""
        protocol, locks = measuring.protocol, measuring.lock_folder
        if not measuring.measured:
            return cls(LocalMeasure(measuring.device, measuring.meter, protocol, locks), ())
        first, *further = (
            (found.name or "", LocalMeasure(found.device, found.meter, protocol, locks))
            for found in measuring.measured
        )
        return cls(first[1], further)

    def __call__(
        self, architecture: Architecture, workload: Workload, weights: Place, inputs: Place
    ) -> EnergyRecord:
        """See ``Measure``."""
        record = self._first(architecture, workload, weights, inputs)
        self._beside = FurtherReadings()
        for name, measure in self._further:
            try:
                found = measure(architecture, workload, weights, inputs)
            except AwayError:
                raise
            except Exception as error:
                # Which is no failure of the trial.
                self._beside.add_failure(name, error)
            else:
                self._beside.add(name, found)
        return record

    def added_to(self, outcome: Outcome) -> Outcome:
        """Return ``outcome`` with the readings of further devices, and their cost."""
        return self._beside.added_to(outcome)


@contextmanager
def _each(seconds: float, function: Callable[[], None]) -> Iterator[None]:
    """Call ``function`` at this interval while the context lasts, in a thread of its own."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(seconds):
            function()

    thread = threading.Thread(target=run, name="joulenas-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Restore torch's number of threads, which training on a CPU sets to one."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
