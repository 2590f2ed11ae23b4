"""Calibration in each runtime of a search, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from nas.records.config import SearchConfig
from nas.records.trial import Trial
from nas.searching.calibration.calibration import SHARE, Calibration, CalibrationState
from predictors.energy.models import Observation
from predictors.measurement.process import MeasureInterrupted
from predictors.measurement.records import EnergyRecord
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace


class Turns:
    """Measurements of which one runs at a time, and none after ``close``.

    Each runtime's calibration may measure in a thread of its own; two at a time would take more
    of the processor from the trials.
    """

    def __init__(self) -> None:
        """Let the first measurement begin."""
        self._lock = threading.Lock()
        self._is_closed = False

    def close(self) -> None:
        """Let no other measurement begin."""
        self._is_closed = True

    def measure(
        self, measure: Callable[[Architecture], EnergyRecord], architecture: Architecture
    ) -> EnergyRecord:
        """Measure ``architecture`` when its turn has come.

        Raises:
            MeasureInterrupted: the search has ended meanwhile.
            Exception: ``measure`` raised it.
        """
        with self._lock:
            if self._is_closed:
                raise MeasureInterrupted("the search has ended")
            return measure(architecture)


class Calibrations:
    """The calibrations of a search, by runtime; each has its part of the share of joules."""

    def __init__(self, parts: Mapping[str | None, Calibration], turns: Turns) -> None:
        """``parts`` measure in ``turns``; a search of one runtime has one part, ``None``."""
        self._parts, self._turns = dict(parts), turns
        for part in self._parts.values():
            part.share = SHARE / len(self._parts)

    @property
    def state(self) -> CalibrationState:
        """The progress in all runtimes."""
        return CalibrationState.of_runtimes([part.state for part in self._parts.values()])

    def advance(self) -> None:
        """Measure all that is due, or let the threads of the parts do so."""
        for part in self._parts.values():
            part.advance()

    def step(self) -> bool:
        """Measure one architecture in the first runtime where one is due."""
        return any(part.step() for part in self._parts.values())

    def take(self) -> dict[str | None, list[Observation]]:
        """Return the new labels of untrained members since the last call, by runtime."""
        return {name: new for name, part in self._parts.items() if (new := part.take())}

    def add_trial(self, trial: Trial) -> None:
        """Add the measurements of a trained candidate to the labels, and what the trial cost."""
        for part in self._parts.values():
            part.add_trial(trial)

    def close(self) -> None:
        """Measure nothing more."""
        self._turns.close()
        for part in self._parts.values():
            part.close()


def space_in(config: SearchConfig, runtime: str | None) -> SearchSpace:
    """Return the members of the search's space that it measures in ``runtime``."""
    choices: Sequence[str] | None = None
    if runtime is not None:
        choices = config.runtime_choices.get(runtime)
    return config.space.restrict(precisions=choices, sparsities=choices)
