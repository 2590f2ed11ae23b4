"""Estimated time of arrival of a search, from the durations of its own trials."""

from __future__ import annotations

import time
from collections.abc import Callable

# The weight of a trial's duration halves with each so many later trials: the first trials of a
# search also start processes and fill caches, and later ones are proposed near the front.
_HALF_LIFE = 8.0


class Eta:
    """Estimate when a number of trials will have ended.

    Trials run in parallel on as many slots as have run at once so far. The remaining work is a
    mean duration for each trial that has not started, and for each running trial what it lacks of
    the mean. It is divided by the slots; the last trials leave slots idle, which adds half of a
    mean duration for all slots but one. Only trials that this process started count: a resumed
    search also reads results of trials that others ran.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        """``clock`` returns seconds; by default it is the process's."""
        self._clock = clock or (lambda: time.perf_counter())
        self._started_s: dict[int, float] = {}
        self._slots = 1
        self._mean_s = self._weight = 0.0

    def start(self, number: int) -> None:
        """Trial ``number`` starts; one that starts again counts from its last start."""
        self._started_s[number] = self._clock()
        self._slots = max(self._slots, len(self._started_s))

    def end(self, number: int) -> None:
        """Trial ``number`` has ended; one that this process did not start is ignored."""
        started_s = self._started_s.pop(number, None)
        if started_s is None:
            return
        decayed = self._weight * 0.5 ** (1 / _HALF_LIFE)
        self._weight = decayed + 1.0
        self._mean_s += (self._clock() - started_s - self._mean_s) / self._weight

    def remaining_s(self, n_left: int) -> float | None:
        """Return the seconds until ``n_left`` more trials have ended, ``None`` before the first.

        ``n_left`` includes the trials that run.
        """
        if not self._weight:
            return None
        now_s = self._clock()
        lacking_s = [max(0.0, self._mean_s - (now_s - at_s)) for at_s in self._started_s.values()]
        waiting_s = max(0, n_left - len(lacking_s)) * self._mean_s
        slots = min(self._slots, max(1, n_left))
        idle_s = self._mean_s * (slots - 1) / 2
        return (waiting_s + sum(lacking_s) + idle_s) / slots
