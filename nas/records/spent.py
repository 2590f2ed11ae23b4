"""What a training has spent, kept on disk while it lasts.

A trial that is interrupted, killed, or fails has no record of its cost. ``Spending`` therefore
updates a file beside the trained weights every few seconds, with the sum over all attempts.
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
# Seconds between two updates, which is what a kill may hide: on a disk, and in an object store.
EACH_S, REMOTE_EACH_S = 2.0, 10.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of training, and the joules of training and of measuring.

    ``None`` where they are unknown, as where no meter could read them.
    """

    duration_s: float | None = None
    train_energy_j: float | None = None
    measure_energy_j: float | None = None

    @property
    def energy_j(self) -> float:
        """The joules that are known."""
        return (self.train_energy_j or 0.0) + (self.measure_energy_j or 0.0)

    @classmethod
    def total(cls, parts: Iterable[Spent]) -> Spent:
        """Sum what is known of each field."""
        rows = list(parts)
        known = {
            field.name: [v for row in rows if (v := getattr(row, field.name)) is not None]
            for field in fields(cls)
        }
        return cls(**{name: sum(values) if values else None for name, values in known.items()})


def spent_in(folder: Place) -> Spent | None:
    """Return what unfinished attempts in ``folder`` have spent, ``None`` without an entry."""
    try:
        return from_plain(Spent, read_json(folder / SPENT), SPENT)
    except (ValueError, OSError, RemoteError):
        return None


class Spending:
    """Record what this attempt and those before it spend, while the context lasts.

    It reads a meter of its own: the span that gives a record's joules is never cut. ``earlier``
    is what attempts before this one spent.
    """

    def __init__(self, folder: Place, device: str, share: float = 1.0) -> None:
        """``share`` is this process's part of the device."""
        self.earlier = spent_in(folder) or Spent(0.0, 0.0)
        self._folder = folder
        self._span = EnergySpan(device, share)
        self._started_s = time.perf_counter()
        interval_s = EACH_S if isinstance(folder, Path) else REMOTE_EACH_S
        self._updates = every(interval_s, lambda: self._write(self._span.lap()))

    def __enter__(self) -> Spending:
        """Start to record."""
        self._span.__enter__()
        self._write(0.0)
        self._updates.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Write the last entry, whatever ended the attempt."""
        self._updates.__exit__(*error)
        self._span.__exit__(*error)
        self._write(self._span.energy_j)

    def total(self, energy_j: float | None, measure_energy_j: float | None = None) -> Spent:
        """Return all attempts together, of which this one has taken ``energy_j`` to train."""
        earlier_j = self.earlier.train_energy_j
        return Spent(
            (self.earlier.duration_s or 0.0) + time.perf_counter() - self._started_s,
            None if energy_j is None or earlier_j is None else earlier_j + energy_j,
            measure_energy_j,
        )

    def _write(self, energy_j: float | None) -> None:
        # Training goes on where an entry finds no room: the next one contains it as well.
        with suppress(OSError, RemoteError):
            write_json(self._folder / SPENT, to_plain(self.total(energy_j)))
