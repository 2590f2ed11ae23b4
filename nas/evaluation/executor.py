"""Where candidates are evaluated: a small interface that a search's loop drives.

An ``Executor`` evaluates candidates, a ``Backend`` is where it runs: a Ray cluster
(``nas.cluster.backend``), or this process (``nas.searching.in_process``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nas.core.files import Place
from nas.evaluation.evaluator import Evaluator
from nas.records.candidate import Candidate, Outcome
from nas.records.config import SearchConfig
from nas.records.device_names import MeasuredDevice, MeterFound
from nas.records.rungs import Progress
from predictors.measurement.protocol import Protocol as MeasuringProtocol


@dataclass(frozen=True, slots=True)
class Ended:
    """A candidate has ended, with an ``outcome`` that is in its folder as well."""

    candidate: Candidate
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Stopped:
    """A candidate is stopped early, by the verdict at a rung."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Lost:
    """Workers died that evaluated ``candidates``; ``named`` are those known to have caused it."""

    candidates: tuple[Candidate, ...]
    named: tuple[Candidate, ...] = ()


# From a candidate and its progress at a rung to whether it trains on.
Judge = Callable[[Candidate, Progress], bool]


class Executor(Protocol):
    """Evaluates candidates, each in its own folder below one folder of trials."""

    @property
    def slots(self) -> int:
        """Candidates that are evaluated at a time, >= 1."""

    def submit(self, candidate: Candidate) -> None:
        """Evaluate ``candidate``, which ``wait`` returns once."""

    def wait(self, judge: Judge) -> Ended | Stopped | Lost:
        """Wait until a submitted candidate is done, or several are lost.

        ``judge`` is called in the caller's thread for a candidate that reaches a rung.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; what is being evaluated is unfinished.
            AwayError: storage was away for too long; so is it.
            Exception: where candidates are evaluated nothing works.
        """

    def close(self) -> None:
        """End; candidates that are being evaluated stay unfinished."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """How candidates are measured: on ``device`` by ``meter``, or on each of ``measured``.

    ``lock_folder`` holds the devices' locks, ``None`` is the folder of the machine that measures.
    """

    device: str
    meter: str
    protocol: MeasuringProtocol
    lock_folder: Path | None = None
    measured: Sequence[MeterFound] = ()


class Backend(AbstractContextManager["Backend"], Protocol):
    """Where a search trains and measures, while the context lasts."""

    @property
    def is_asked_for_meters(self) -> bool:
        """Whether the context must be entered before ``find_meter`` and ``find_meters``."""

    def find_meter(self, device: str, meter: str | None) -> MeterFound:
        """Return the meter of ``device``.

        Raises:
            MeterError: no meter can measure it.
        """

    def find_meters(
        self, devices: Sequence[MeasuredDevice], device: str, meter: str | None
    ) -> tuple[MeterFound, ...]:
        """Return the meter of each of ``devices``; the rest is for those that name none.

        Raises:
            MeterError: no meter can measure one of them.
        """

    def check_paths(self, config: SearchConfig, files: Iterable[Path], folder: Path) -> None:
        """Raise an error unless workers see the same files as this process."""

    def run(
        self,
        function: Callable[..., object],
        *arguments: object,
        while_waiting: Callable[[], None],
    ) -> None:
        """Run ``function`` once, where candidates are trained, and wait for it.

        Raises:
            Exception: what ``function`` raised, or that its worker died.
        """

    def energy_share(self) -> Callable[[], float]:
        """Return what gives, where a candidate trains, its part of the device's joules."""

    def executor(self, evaluator: Evaluator, folder: Place, measuring: Measuring) -> Executor:
        """Return an executor whose trials have their folders in ``folder``."""
