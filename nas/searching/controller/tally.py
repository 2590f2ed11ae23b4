"""What a search has come to so far, kept up record by record.

A driver with a thousand workers asks after each trial; going through all of them would make a
search's cost grow with the square of its length.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from nas.records.candidate import Weights
from nas.records.goals import Goals
from nas.records.trial import Trial


@dataclass
class _Judged:
    """Complete trials of one kind of weights."""

    n: int
    front: list[Trial]
    best_quality: float | None = None
    least_energy_j: float | None = None


class Tally:
    """Counts, joules and the front of the trials put in, each as it is now."""

    def __init__(self, goals: Goals) -> None:
        """Start with no trial."""
        self._goals = goals
        self._states: Counter[str] = Counter()
        self._judged: dict[Weights, _Judged] = {}
        #: Trials that are no finalists and were not dropped.
        self.n_trained = 0
        #: Of those, how many are running.
        self.n_running_searched = 0
        self.n_finalists = 0
        self.spent_energy_j = 0.0

    def put(self, record: Trial, before: Trial | None) -> None:
        """Take up ``record``; ``before`` is what was put of the same trial, and never complete."""
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
            self._take(record)

    def count(self, state: str) -> int:
        """Number of trials in ``state``."""
        return self._states[state]

    @property
    def front(self) -> list[Trial]:
        """The front of all trials, as ``Goals.front`` has it."""
        return self._shown.front

    @property
    def best_quality(self) -> float | None:
        """Of the trials that a front is made of and that keep every limit."""
        return self._shown.best_quality

    @property
    def least_energy_j(self) -> float | None:
        """Joules per sample of the same trials."""
        return self._shown.least_energy_j

    @property
    def _shown(self) -> _Judged:
        """Trials with weights of their own, where there are any (``trial.judged``)."""
        nothing = _Judged(0, [])
        return self._judged.get("own") or self._judged.get("inherited") or nothing

    def _take(self, record: Trial) -> None:
        judged = self._judged.setdefault(record.weights, _Judged(0, []))
        judged.n += 1
        if not self._goals.keeps(record):
            return
        # Who is dominated once stays so: the front of all is that of the last front and the new.
        judged.front = self._goals.front([*judged.front, record])
        quality, energy_j = record.objectives
        judged.best_quality = max(quality, judged.best_quality or quality)
        judged.least_energy_j = min(energy_j, judged.least_energy_j or energy_j)
