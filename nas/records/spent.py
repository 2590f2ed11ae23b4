"""Cost of a training, written to disk while it runs.

An interrupted, killed or failed trial has no outcome with its cost. ``Spending`` therefore updates
a file in the trial's folder every few seconds, with the sum over all attempts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nas.core.every import every
from nas.core.files import Place, read_json, write_json
from nas.core.plain import from_plain, to_plain
from nas.core.remote import RemoteError
from predictors.measurement.accounting import EnergySpan

SPENT = "spent.json"
# Seconds between updates, the most that a kill loses: on a disk, and in an object store.
EACH_S, REMOTE_EACH_S = 2.0, 10.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Cost of a trial: seconds of training, and joules of training and of measurement.

    ``None`` if unknown, as without a meter.
    """

    duration_s: float | None = None
    train_energy_j: float | None = None
    measure_energy_j: float | None = None

    @property
    def energy_j(self) -> float:
        """Sum of the joules that are not ``None``."""
        return (self.train_energy_j or 0.0) + (self.measure_energy_j or 0.0)

    @classmethod
    def total(cls, parts: Iterable[Spent]) -> Spent:
        """Sum each field over ``parts``, ignoring ``None``."""
        parts = list(parts)
        columns = {
            field.name: [v for part in parts if (v := getattr(part, field.name)) is not None]
            for field in fields(cls)
        }
        return cls(**{name: sum(values) if values else None for name, values in columns.items()})


def spent_in(folder: Place) -> Spent | None:
    """Return the cost of unfinished attempts in ``folder``, ``None`` without an entry."""
    try:
        return from_plain(Spent, read_json(folder / SPENT), SPENT)
    except (ValueError, OSError, RemoteError):
        return None


class Spending:
    """Context that records the cost of this attempt and those before it.

    It uses an ``EnergySpan`` of its own, so that updates do not interrupt that of the outcome.
    ``earlier`` is the cost of earlier attempts.
    """

    def __init__(self, folder: Place, device: str, share: float = 1.0) -> None:
        """Read the earlier cost; ``share`` is this process's share of the device's joules."""
        self.earlier = spent_in(folder) or Spent(0.0, 0.0)
        self._folder = folder
        self._span = EnergySpan(device, share)
        self._started_s = time.perf_counter()
        interval_s = EACH_S if isinstance(folder, Path) else REMOTE_EACH_S
        self._updates = every(interval_s, lambda: self._write(self._span.lap()))

    def __enter__(self) -> Spending:
        """Start recording."""
        self._span.__enter__()
        self._write(0.0)
        self._updates.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Write the last entry, even after an error."""
        self._updates.__exit__(*error)
        self._span.__exit__(*error)
        self._write(self._span.energy_j)

    def total(self, energy_j: float | None, measure_energy_j: float | None = None) -> Spent:
        """Return the cost of all attempts, with ``energy_j`` for the training of this one."""
        earlier_j = self.earlier.train_energy_j
        return Spent(
            (self.earlier.duration_s or 0.0) + time.perf_counter() - self._started_s,
            None if energy_j is None or earlier_j is None else earlier_j + energy_j,
            measure_energy_j,
        )

    def _write(self, energy_j: float | None) -> None:
        # A failed update does not stop training: the next one includes its cost.
        with suppress(OSError, RemoteError):
            write_json(self._folder / SPENT, to_plain(self.total(energy_j)))
