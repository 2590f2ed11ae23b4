"""Detect foreign processes on a board during a measurement, by the NVIDIA driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from predictors.meters.flags import FOREIGN_COMPUTE, FOREIGN_PROCESS, PROCESSES_UNSEEN
from predictors.meters.nvml_board import maybe


class Processes:
    """Flags of foreign processes on the boards ``handles``, by UUID.

    ``own_pids`` returns the process ids of all our processes on the boards: waiting trainers hold
    memory and draw no power. In a container the driver lists processes by the host's ids, or not
    at all; a flag marks that ours are not listed.
    """

    def __init__(
        self,
        nvml: Any,
        handles: Mapping[str, Any],
        own_pids: Callable[[], set[int]] | None = None,
    ) -> None:
        """Without ``own_pids`` this process alone is ours."""
        self._nvml, self._handles = nvml, handles
        self.own_pids = own_pids or (lambda: {os.getpid()})
        self._seen_us = dict.fromkeys(handles, 0)
        # Boards on which the driver lists our processes by our own process ids.
        self._named: set[str] = set()

    def flags(self) -> set[str]:
        """Return those of ``foreign_process`` and ``processes_unseen`` that apply now."""
        flags = set()
        ours = self.own_pids()
        for uuid, handle in self._handles.items():
            running = maybe(self._nvml, "nvmlDeviceGetComputeRunningProcesses", handle)
            pids = None if running is None else {process.pid for process in running}
            self._named.discard(uuid)
            if pids is None or not pids & ours:
                flags.add(PROCESSES_UNSEEN)
                # Ids of another namespace: if there are more than ours, one is foreign.
                if len(pids or ()) > len(ours):
                    flags.add(FOREIGN_PROCESS)
                continue
            self._named.add(uuid)
            if pids - ours:
                flags.add(FOREIGN_PROCESS)
        return flags

    def reset_use(self) -> None:
        """Exclude everything until now from the next ``computing``."""
        for uuid in self._handles:
            self._use(uuid)

    def computing(self) -> set[str]:
        """Return ``foreign_compute`` if another process ran kernels since ``reset_use``.

        All our processes but one wait meanwhile, so if the driver does not list our process ids, a
        second process that computed is foreign. A board without reported utilisation has no
        flag. Call ``flags`` before.
        """
        ours = self.own_pids()
        for uuid in self._handles:
            busy = self._use(uuid)
            if busy - ours if uuid in self._named else len(busy) > 1:
                return {FOREIGN_COMPUTE}
        return set()

    def _use(self, uuid: str) -> set[int]:
        """Return the processes that used the SMs since the last call."""
        samples = maybe(
            self._nvml,
            "nvmlDeviceGetProcessUtilization",
            self._handles[uuid],
            self._seen_us[uuid],
        )
        fresh = [s for s in samples or () if s.timeStamp > self._seen_us[uuid]]
        self._seen_us[uuid] = max([self._seen_us[uuid], *(s.timeStamp for s in fresh)])
        return {s.pid for s in fresh if s.smUtil > 0}
