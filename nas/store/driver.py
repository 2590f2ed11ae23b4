"""Options of a run's last driver: workers, cluster, time limit and logs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from nas.core.nearest import did_you_mean
from nas.core.plain import require_int
from nas.store.cluster_address import LOCAL

# Prefix of a Ray client's address; a driver itself has none.
CLIENT = "ray://"
# Logs besides the study, each in the run directory's folder of that name.
LOGS = ("tensorboard",)


class DriverOptions(TypedDict, total=False):
    """Fields of ``Driver`` as keyword arguments; ``None`` is the default."""

    workers: int | None
    address: str | None
    trial_timeout_s: float | None
    log: str | None
    gpus_per_trial: float | None


@dataclass(frozen=True, slots=True)
class Driver:
    """Options that ``nas resume`` reuses from the last start.

    Each of ``workers`` evaluates one trial at a time on Ray; 0 is this process, without Ray.
    ``address`` is that of a Ray cluster, or ``"local"`` for the search's own Ray. A trial
    fails after ``trial_timeout_s``; ``None`` is no limit. ``log`` is one of ``LOGS`` or ``None``.
    A trial takes ``gpus_per_trial`` of a GPU; ``None`` shares all GPUs of the cluster.
    """

    workers: int = 2
    address: str = LOCAL
    trial_timeout_s: float | None = None
    log: str | None = None
    gpus_per_trial: float | None = None

    def __post_init__(self) -> None:
        require_int("workers", self.workers, 0)
        if not isinstance(self.address, str) or not self.address:
            raise ValueError(f"address must be that of a Ray cluster, got {self.address!r}")
        limit_s = self.trial_timeout_s
        if limit_s is not None and not (
            isinstance(limit_s, int | float) and 0 < limit_s < threading.TIMEOUT_MAX
        ):
            raise ValueError(f"trial_timeout_s must be seconds > 0, got {limit_s!r}")
        share = self.gpus_per_trial
        if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
            raise ValueError(f"gpus_per_trial must be in (0, 1], got {share!r}")
        if self.log is not None and self.log not in LOGS:
            raise ValueError(
                f"log must be {' or '.join(LOGS)}, got {self.log!r}{did_you_mean(self.log, LOGS)}"
            )
        if self.workers == 0:
            self._check_needs_no_ray()

    def _check_needs_no_ray(self) -> None:
        options = {
            "address": None if self.address == LOCAL else self.address,
            "log": self.log,
            "gpus_per_trial": self.gpus_per_trial,
        }
        for name, value in options.items():
            if value is not None:
                raise ValueError(
                    f"workers must be >= 1 with {name} {value}, got 0: trials that run in this "
                    "process have no Ray"
                )

    def changed(self, **options: Any) -> Driver:
        """Replace the options that are not ``None``; without workers, drop those of Ray."""
        new = {name: value for name, value in options.items() if value is not None}
        before = Driver(trial_timeout_s=self.trial_timeout_s) if new.get("workers") == 0 else self
        return replace(before, **new)

    def trained_on(self, device: str) -> str:
        """Return the workers' name of ``device``.

        On a cluster, the one GPU that Ray assigns is visible to a worker; with the search's own
        Ray, all GPUs of this process are.
        """
        return "cuda:0" if self.address != LOCAL and device.startswith("cuda") else device
