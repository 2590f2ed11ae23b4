"""Interfaces between the search loop and the place where candidates are evaluated.

An ``Executor`` evaluates candidates. A ``Backend`` creates it: on a Ray cluster
(``nas.cluster.backend``) or in this process (``nas.searching.in_process``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nas.core.files import Place
from nas.core.names import TORCH
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.in_runtimes import Measure
from nas.records.candidate import Candidate, Outcome
from nas.records.config import SearchConfig
from nas.records.device_names import MeasuredDevice, MeterFound
from nas.records.rungs import Progress
from predictors.measurement.protocol import Protocol as MeasuringProtocol


@dataclass(frozen=True, slots=True)
class Ended:
    """Event: a candidate's evaluation ended; its folder contains ``outcome`` as well."""

    candidate: Candidate
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Stopped:
    """Event: a candidate was stopped early at a rung."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Lost:
    """Event: workers of ``candidates`` died; ``named`` are the candidates that caused it."""

    candidates: tuple[Candidate, ...]
    named: tuple[Candidate, ...] = ()


# Returns whether a candidate continues training after its progress at a rung.
Judge = Callable[[Candidate, Progress], bool]


class Executor(Protocol):
    """Interface to evaluate candidates, each in its own folder below the trials folder."""

    @property
    def slots(self) -> int:
        """Number of candidates evaluated concurrently, >= 1."""

    def submit(self, candidate: Candidate) -> None:
        """Start to evaluate ``candidate``; ``wait`` returns it once."""

    def wait(self, judge: Judge) -> Ended | Stopped | Lost:
        """Wait until a submitted candidate ends or workers are lost.

        ``judge`` is called in the caller's thread for each candidate that reaches a rung.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; running trials stay unfinished.
            AwayError: storage was unavailable until the timeout; running trials stay unfinished.
            Exception: the backend failed.
        """

    def close(self) -> None:
        """Shut down; running trials stay unfinished."""


@dataclass(frozen=True, slots=True)
class InRuntimes:
    """The ``main`` runtime of measurements that name none, and how labels of each repeat.

    ``sds`` are relative standard deviations between sessions, by runtime, which are part of a
    reading's interval; 0 by default.
    """

    main: str = TORCH
    sds: Mapping[str, float] = field(default_factory=dict)

    def chosen(self, name: str | None) -> tuple[str, float]:
        """Return the runtime called ``name``, by default the main one, and its deviation."""
        name = name or self.main
        return name, self.sds.get(name, 0.0)


@dataclass(frozen=True, slots=True)
class Measuring:
    """Measurement settings: ``meter`` on ``device``, or each meter of ``measured``.

    ``lock_folder`` contains the devices' locks; ``None`` is the default folder of the measuring
    machine. ``runtimes`` run the networks; their deviations are of the objective's device.
    """

    device: str
    meter: str
    protocol: MeasuringProtocol
    lock_folder: Path | None = None
    measured: Sequence[MeterFound] = ()
    runtimes: InRuntimes = InRuntimes()  # noqa: RUF009  (frozen)


class Backend(AbstractContextManager["Backend"], Protocol):
    """Context in which a search trains and measures."""

    @property
    def meters_are_remote(self) -> bool:
        """Whether meters are on other nodes: enter the context before ``find_meter``."""

    def find_meter(self, device: str, meter: str | None) -> MeterFound:
        """Return the meter of ``device``.

        Raises:
            MeterError: no meter can measure it.
        """

    def find_meters(
        self, devices: Sequence[MeasuredDevice], device: str, meter: str | None
    ) -> tuple[MeterFound, ...]:
        """Return the meter of each of ``devices``.

        ``device`` and ``meter`` are the defaults for entries that leave them out.

        Raises:
            MeterError: no meter can measure one of them.
        """

    def check_paths(self, config: SearchConfig, files: Iterable[Path], folder: Path) -> None:
        """Raise an error unless workers can access the same files as this process."""

    def run(
        self,
        function: Callable[..., object],
        *arguments: object,
        while_waiting: Callable[[], None],
    ) -> None:
        """Run ``function`` once on a training worker and wait for it.

        Raises:
            Exception: ``function`` raised it, or its worker died.
        """

    def energy_share(self) -> Callable[[], float]:
        """Return a function by which a worker gets its trial's share of the device's joules."""

    #: Whether ``measure`` may be called from a thread while candidates are evaluated.
    measures_beside: bool

    def measure(self, measuring: Measuring) -> Measure:
        """Return the measurement of the objective's device, to be called by the driver."""

    def executor(self, evaluator: Evaluator, folder: Place, measuring: Measuring) -> Executor:
        """Return an executor that puts trial folders into ``folder``."""
