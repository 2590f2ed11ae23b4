"""Executor in this process: one candidate at a time, without Ray.

It serves notebooks, tests, one-off runs and machines on which Ray cannot start. Each candidate is
measured in a process of its own, as with Ray. A time limit is checked at each training step. Only
with Ray does a search survive a candidate that kills its training process, for example by running
out of memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nas.core import interrupts
from nas.core.every import every
from nas.core.files import Place, as_local, as_local_if_any
from nas.core.retry import AwayError, OnWait, naming_storage, patience
from nas.core.time_limit import check_time, time_left_s, time_limit
from nas.evaluation.evaluator import Evaluator, forget_unfinished
from nas.evaluation.executor import (
    Ended,
    Executor,
    InRuntimes,
    Judge,
    Lost,
    Measuring,
    Stopped,
)
from nas.evaluation.further import FurtherReadings
from nas.evaluation.in_runtimes import Measure
from nas.evaluation.outcome import folder_of, local, outcome
from nas.records.candidate import Candidate, Outcome
from nas.records.config import SearchConfig
from nas.records.device_names import MeasuredDevice, MeterFound, find_meter
from nas.records.rungs import Progress
from nas.searching.controller.attempts import ATTEMPTS
from nas.searching.controller.session import Listener
from nas.searching.writing import storage_waits
from nas.store.driver import Driver
from predictors.measurement.accounting import whole_device
from predictors.measurement.process import MeasureInterrupted, MeasureTimeout
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord
from predictors.measurement.runner import measure_candidate
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# Seconds between reads of a running function's progress.
_LOOK_S = 0.5


class InProcessBackend(AbstractContextManager["InProcessBackend"]):
    """Backend that runs everything in this process and starts nothing."""

    meters_are_remote = False

    def __init__(self, driver: Driver, listener: Listener | None) -> None:
        """Create a backend; ``listener`` receives messages about waiting."""
        self._driver, self._listener = driver, listener

    def __exit__(self, *error: object) -> None:
        """Do nothing: there is nothing to shut down."""

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
        """Do nothing: this process reads its own paths."""

    def run(
        self,
        function: Callable[..., object],
        *arguments: object,
        while_waiting: Callable[[], None],
    ) -> None:
        """See ``Backend``; ``while_waiting`` is called in a thread of its own."""
        with (
            every(_LOOK_S, while_waiting),
            _threads_restored(),
            naming_storage(),
            patience(self._waits("training")),
        ):
            function(*arguments)

    def energy_share(self) -> Callable[[], float]:
        """See ``Backend``; one candidate trains at a time, so its share is the whole."""
        return whole_device

    measures_beside = False

    def measure(self, measuring: Measuring) -> Measure:
        """See ``Backend``."""
        return _local_measures(measuring)[0][1]

    def executor(self, evaluator: Evaluator, folder: Place, measuring: Measuring) -> Executor:
        """See ``Backend``."""
        return InProcessExecutor(evaluator, folder, measuring, self._driver, self._waits)

    def _waits(self, what: str) -> OnWait | None:
        return storage_waits(self._listener, what)


class InProcessExecutor:
    """``Executor`` that evaluates each submitted candidate within ``wait``."""

    slots = 1

    def __init__(
        self,
        evaluator: Evaluator,
        trials_folder: Place,
        measuring: Measuring,
        driver: Driver,
        waits: Callable[[str], OnWait | None] = lambda _: None,
    ) -> None:
        """Create an executor; ``waits`` returns a receiver of messages about waiting."""
        self._evaluator, self._folder = evaluator, trials_folder
        self._measuring, self._timeout_s, self._waits = measuring, driver.trial_timeout_s, waits
        self._submitted: deque[Candidate] = deque()

    def submit(self, candidate: Candidate) -> None:
        """See ``Executor``."""
        self._submitted.append(candidate)

    def wait(self, judge: Judge) -> Ended | Stopped | Lost:
        """See ``Executor``."""
        candidate = self._submitted.popleft()

        def report(progress: Progress) -> None:
            # An interrupt must not leave the verdict half stored.
            with interrupts.deferred():
                continues = judge(candidate, progress)
            if not continues:
                raise _StoppedEarly

        try:
            with interrupts.allowed():
                ended = self._evaluated(candidate, None if candidate.replica else report)
        except _StoppedEarly:
            return Stopped(candidate)
        return Ended(candidate, ended)

    def close(self) -> None:
        """See ``Executor``; nothing runs outside ``wait``."""
        self._submitted.clear()

    def _evaluated(
        self, candidate: Candidate, report: Callable[[Progress], None] | None
    ) -> Outcome:
        folder = folder_of(candidate, self._folder)
        measures = _Measures.of(self._measuring)

        def evaluate() -> Outcome:
            return measures.added_to(self._evaluator.evaluate(candidate, folder, measures, report))

        with (
            _threads_restored(),
            naming_storage(local(folder)),
            patience(self._waits(f"trial {candidate.number}")) as waits,
            time_limit(self._timeout_s, waits),
        ):
            ended = outcome(candidate, folder, evaluate)
        forget_unfinished(folder)
        return ended


class _StoppedEarly(BaseException):  # noqa: N818  (not an error, like ``GeneratorExit``)
    """Exception that ends the evaluation of a candidate stopped early."""


@dataclass(frozen=True, slots=True)
class LocalMeasure:
    """``Measure`` in a subprocess on this machine, within the trial's time limit."""

    device: str
    meter: str
    protocol: Protocol
    lock_folder: Path | None
    runtimes: InRuntimes = InRuntimes()  # noqa: RUF009  (frozen)

    def __call__(
        self,
        architecture: Architecture,
        workload: Workload,
        weights: Place | None,
        inputs: Place,
        runtime: str | None = None,
    ) -> EnergyRecord:
        """See ``Measure``."""
        check_time()
        name, between_sd = self.runtimes.chosen(runtime)
        with as_local_if_any(weights) as own_weights, as_local(inputs) as own_inputs:
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
                        between_sd=between_sd,
                        runtime=name,
                    )
                except MeasureTimeout:
                    check_time()
                    raise
                except MeasureInterrupted:
                    if attempt == ATTEMPTS:
                        raise
        raise AssertionError("unreachable")


class _Measures:
    """``Measure`` of one trial on several devices in turn; the first measures the objective."""

    def __init__(self, first: Measure, further: Sequence[tuple[str, Measure]]) -> None:
        self._first, self._further = first, further
        self._readings = FurtherReadings()

    @classmethod
    def of(cls, measuring: Measuring) -> _Measures:
        """Return the measures of a search."""
        first, *further = _local_measures(measuring)
        return cls(first[1], further)

    def __call__(
        self,
        architecture: Architecture,
        workload: Workload,
        weights: Place | None,
        inputs: Place,
        runtime: str | None = None,
    ) -> EnergyRecord:
        """See ``Measure``."""
        record = self._first(architecture, workload, weights, inputs, runtime)
        self._readings = FurtherReadings()
        for name, measure in self._further:
            try:
                further = measure(architecture, workload, weights, inputs)
            except AwayError:
                raise
            except Exception as error:
                # A further device's failure does not fail the trial.
                self._readings.add_failure(name, error)
            else:
                self._readings.add(name, further)
        return record

    def added_to(self, outcome: Outcome) -> Outcome:
        """Return ``outcome`` with the readings of further devices and their cost."""
        return self._readings.added_to(outcome)


def _local_measures(measuring: Measuring) -> list[tuple[str, LocalMeasure]]:
    """Return the measure of each device with its name; the first measures the objective."""
    protocol, locks, own = measuring.protocol, measuring.lock_folder, measuring.runtimes
    if not measuring.measured:
        return [("", LocalMeasure(measuring.device, measuring.meter, protocol, locks, own))]
    # The history is of the first device alone.
    without = InRuntimes(own.main)
    return [
        (
            each.name or "",
            LocalMeasure(each.device, each.meter, protocol, locks, without if number else own),
        )
        for number, each in enumerate(measuring.measured)
    ]


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Restore torch's number of threads, which training on a CPU sets to one."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
