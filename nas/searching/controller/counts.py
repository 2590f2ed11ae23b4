"""Counts, joules and the front of a search, updated record by record.

A driver with a thousand workers reads them after each trial; recomputing them from all records
would make a search's cost grow with the square of its length.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from nas.records.candidate import Weights
from nas.records.goals import Goals
from nas.records.trial import Trial


@dataclass
class _Complete:
    """Complete trials of one kind of weights."""

    n: int
    front: list[Trial]
    best_quality: float | None = None
    least_energy_j: float | None = None


class Counts:
    """Counts, joules and the front of the trials entered so far."""

    def __init__(self, goals: Goals) -> None:
        """Start without a trial."""
        self._goals = goals
        self._states: Counter[str] = Counter()
        self._judged: dict[Weights, _Complete] = {}
        #: Trials that are neither finalists nor dropped.
        self.n_trained = 0
        #: Those of ``n_trained`` that are running.
        self.n_running_searched = 0
        self.n_finalists = 0
        self.spent_energy_j = 0.0

    def put(self, record: Trial, before: Trial | None) -> None:
        """Enter ``record`` in place of ``before``, the same trial's last one, never complete."""
        for one, sign in ((before, -1), (record, 1)):
            if one is None:
                continue
            self._states[one.state] += sign
            self.spent_energy_j += sign * one.spent.energy_j
            if one.finalist_of is not None:
                self.n_finalists += sign
            elif one.state != "dropped":
                self.n_trained += sign
                self.n_running_searched += sign * (one.state == "running")
        if record.state == "complete":
            self._enter_complete(record)

    def count(self, state: str) -> int:
        """Number of trials in ``state``."""
        return self._states[state]

    @property
    def front(self) -> list[Trial]:
        """The front of all trials, see ``Goals.front``."""
        return self._shown.front

    @property
    def best_quality(self) -> float | None:
        """Best quality of the trials that keep every limit, ``None`` without one."""
        return self._shown.best_quality

    @property
    def least_energy_j(self) -> float | None:
        """Fewest joules per sample of the same trials."""
        return self._shown.least_energy_j

    @property
    def _shown(self) -> _Complete:
        """Trials with weights of their own, where there are any (``trial.judged``)."""
        nothing = _Complete(0, [])
        return self._judged.get("own") or self._judged.get("inherited") or nothing

    def _enter_complete(self, record: Trial) -> None:
        judged = self._judged.setdefault(record.weights, _Complete(0, []))
        judged.n += 1
        if not self._goals.meets_limits(record):
            return
        # A dominated trial stays dominated, so the last front suffices.
        judged.front = self._goals.front([*judged.front, record])
        quality, energy_j = record.objectives
        judged.best_quality = max(quality, judged.best_quality or quality)
        judged.least_energy_j = min(energy_j, judged.least_energy_j or energy_j)
