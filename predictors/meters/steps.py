"""Time the steps of a counter to a millisecond while the device is under load.

A batch takes a tenth of a second or more. Polling only between batches would err by up to a batch,
which is up to 3% of a window of 2 s. So a thread polls while the work waits for its device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from predictors.meters.base import MeterError, Work

# Longer than the period of any counter that works.
_TIMEOUT_S = 2.0
_POLL_S = 0.0005

Step = tuple[float, int]


class StepWatcher:
    """Detector of the steps of several counters, which step at different times."""

    def __init__(
        self,
        read: Callable[[], dict[str, int]],
        clock: Callable[[], float],
        *,
        background: bool = True,
    ) -> None:
        """``read`` returns each counter's value. Without ``background``, callers call ``poll``."""
        self._read, self._clock, self._background = read, clock, background
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._values: dict[str, int] = {}
        self._polled_s = 0.0
        self._n_awaited = 0
        self._steps: dict[str, list[Step]] = {}
        self._failure: MeterError | None = None

    def wait(self, work: Work) -> dict[str, Step]:
        """Run ``work`` until each counter steps; return the time and value of each step.

        Raises:
            MeterError: a counter cannot be read or does not step.
        """
        return {name: steps[0] for name, steps in self.follow(work, 1).items()}

    def follow(self, work: Work, n: int) -> dict[str, list[Step]]:
        """Run ``work`` until each counter has stepped ``n`` times; return the steps.

        Raises:
            MeterError: a counter cannot be read or does not step.
        """
        started_s = self._polled_s = self._clock()
        self._failure = None
        self._values = self._read()
        self._steps = {name: [] for name in self._values}
        self._n_awaited = n
        self._stop.clear()
        thread = threading.Thread(target=self._poll_on, daemon=True)
        if self._background:
            thread.start()
        try:
            while not self._is_over():
                work()
                self.poll()
                waited_s = self._clock() - started_s
                if not self._is_over() and waited_s > _TIMEOUT_S * n:
                    raise MeterError(f"the energy counter did not change for {waited_s:.1f} s")
        finally:
            self._stop.set()
            if self._background:
                thread.join()
            steps, self._steps = self._steps, {}
        if self._failure is not None:
            raise self._failure
        return steps

    def poll(self) -> None:
        """Read the counters once and record steps, if any are awaited.

        Raises:
            MeterError: a counter cannot be read.
        """
        with self._lock:
            if self._is_over():
                return
            now = self._read()
            now_s = self._clock()
            for name, value in now.items():
                if value != self._values[name]:
                    # On average the step was half-way between the last two readings.
                    self._steps[name].append(((self._polled_s + now_s) / 2, value))
            self._values = now
            self._polled_s = now_s

    def _is_over(self) -> bool:
        return self._failure is not None or all(
            len(steps) >= self._n_awaited for steps in self._steps.values()
        )

    def _poll_on(self) -> None:
        while not self._is_over() and not self._stop.wait(_POLL_S):
            try:
                self.poll()
            except MeterError as error:
                self._failure = error
