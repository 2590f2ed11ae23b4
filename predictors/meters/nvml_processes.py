"""Detect foreign processes on a board during a measurement, by NVML."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from predictors.meters.flags import FOREIGN_COMPUTE, FOREIGN_PROCESS, PROCESSES_UNSEEN
from predictors.meters.nvml_board import maybe


class Processes:
    """Detector of foreign processes on boards; ``handles`` are NVML's handles by UUID.

    ``own_pids`` returns the ids of this project's own processes on the boards, such as trainers
    that wait: they occupy memory and draw no power. In a container the driver may list processes
    by the host's ids, or list none; the flag ``processes_unseen`` marks both.
    """

    def __init__(
        self,
        nvml: Any,
        handles: Mapping[str, Any],
        own_pids: Callable[[], set[int]] | None = None,
    ) -> None:
        """Start without an observation; by default only this process is ours."""
        self._nvml, self._handles = nvml, handles
        self.own_pids = own_pids or (lambda: {os.getpid()})
        self._until_us = dict.fromkeys(handles, 0)
        # Boards whose list of processes contains one of ours by its id.
        self._listing: set[str] = set()

    def flags(self) -> set[str]:
        """Return those of ``foreign_process`` and ``processes_unseen`` that apply now."""
        flags = set()
        ours = self.own_pids()
        for uuid, handle in self._handles.items():
            running = maybe(self._nvml, "nvmlDeviceGetComputeRunningProcesses", handle)
            pids = None if running is None else {process.pid for process in running}
            self._listing.discard(uuid)
            if pids is None or not pids & ours:
                flags.add(PROCESSES_UNSEEN)
                # Ids cannot be compared. If there are more than ours, one is foreign.
                if len(pids or ()) > len(ours):
                    flags.add(FOREIGN_PROCESS)
                continue
            self._listing.add(uuid)
            if pids - ours:
                flags.add(FOREIGN_PROCESS)
        return flags

    def reset_use(self) -> None:
        """Start the interval that the next ``computing`` covers."""
        for uuid in self._handles:
            self._use(uuid)

    def computing(self) -> set[str]:
        """Return ``foreign_compute`` if another process ran kernels since ``reset_use``.

        Call ``flags`` first. Only one of our processes computes during a measurement; where ids
        cannot be compared, a second process that computes is therefore foreign. A board that
        reports no utilisation has no flag.
        """
        ours = self.own_pids()
        for uuid in self._handles:
            busy = self._use(uuid)
            if busy - ours if uuid in self._listing else len(busy) > 1:
                return {FOREIGN_COMPUTE}
        return set()

    def _use(self, uuid: str) -> set[int]:
        """Return the ids of processes that used the SMs since the last call."""
        samples = maybe(
            self._nvml,
            "nvmlDeviceGetProcessUtilization",
            self._handles[uuid],
            self._until_us[uuid],
        )
        fresh = [s for s in samples or () if s.timeStamp > self._until_us[uuid]]
        self._until_us[uuid] = max([self._until_us[uuid], *(s.timeStamp for s in fresh)])
        return {s.pid for s in fresh if s.smUtil > 0}
