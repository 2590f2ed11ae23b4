"""What attempts at a training have spent, on disk while they last.

A trial that is interrupted, killed, or fails has no record that says what it cost. ``Spending``
so keeps a file beside what is trained, of all attempts at it together, up to date within some
seconds: whatever ends an attempt, what it spent until then is in the account of the search.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from nas.core.files import Place, read_json, write_json
from nas.core.remote import RemoteError
from nas.records.trial import TrialRecord
from predictors.measurement.accounting import EnergySpan

SPENT = "spent.json"
# Seconds between two entries, which is what a kill may hide: on a disk, and in an object store.
EACH_S, REMOTE_EACH_S = 2.0, 10.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds and joules of training; joules are ``None`` where no meter could read them."""

    duration_s: float = 0.0
    train_energy_j: float | None = 0.0


def spent_in(folder: Place) -> Spent | None:
    """What unfinished attempts in ``folder`` have spent, ``None`` where none is known of."""
    try:
        data = read_json(folder / SPENT)
        duration_s, energy_j = float(data["duration_s"]), data["train_energy_j"]
        return Spent(duration_s, None if energy_j is None else float(energy_j))
    except (ValueError, TypeError, LookupError, OSError, RemoteError):
        return None


def with_spent(record: TrialRecord, folder: Place) -> TrialRecord:
    """``record`` with what its attempts in ``folder`` have spent, unless it says so itself."""
    spent = spent_in(folder)
    if spent is None or record.train_energy_j is not None:
        return record
    return replace(record, duration_s=spent.duration_s, train_energy_j=spent.train_energy_j)


class Spending:
    """``with Spending(folder, device, share):`` keeps what this attempt and earlier ones spend.

    It reads a meter of its own, so that the span that a record's joules come of is never cut.
    ``earlier`` is what attempts before this one had spent.
    """

    def __init__(self, folder: Place, device: str, share: float = 1.0) -> None:
        """``share`` is the part of the device that is this process's."""
        self.earlier = spent_in(folder) or Spent()
        self._folder = folder
        self._span = EnergySpan(device, share)
        self._started_s = time.perf_counter()
        self._ended = threading.Event()
        self._each_s = EACH_S if isinstance(folder, Path) else REMOTE_EACH_S
        self._thread = threading.Thread(target=self._run, name="joulenas-spending", daemon=True)

    def __enter__(self) -> Spending:
        """Start counting."""
        self._span.__enter__()
        self._write(0.0)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep the last entry, whatever ended the attempt."""
        self._ended.set()
        self._thread.join()
        self._span.__exit__(kind, error, trace)
        self._write(self._span.energy_j)

    def with_earlier(self, energy_j: float | None) -> float | None:
        """``energy_j`` and the joules of earlier attempts, ``None`` where they are unknown."""
        earlier_j = self.earlier.train_energy_j
        return None if energy_j is None or earlier_j is None else earlier_j + energy_j

    def _run(self) -> None:
        while not self._ended.wait(self._each_s):
            self._write(self._span.lap())

    def _write(self, energy_j: float | None) -> None:
        spent = Spent(
            self.earlier.duration_s + time.perf_counter() - self._started_s,
            self.with_earlier(energy_j),
        )
        # Training does not end for an entry that has no room: the next one holds it as well.
        with suppress(OSError, RemoteError):
            write_json(self._folder / SPENT, asdict(spent))


def forget_spent(folder: Place) -> None:
    """Remove the entry, once a record holds it."""
    (folder / SPENT).unlink(missing_ok=True)
