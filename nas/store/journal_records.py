"""Records out of a study's journal, without replaying the study.

A query needs what became of each trial, which is one line of the four that a trial takes. Optuna's
replay builds every trial's distributions besides, which is most of what reading took. What is read
is what a replay gives: the last record of each trial that was written before the trial ended. A
journal of several studies, or of one that was deleted, is left to Optuna; one with a damaged line
is refused (``journal_lines``).

In one process a journal is read forward: asked again, only what was added is read.
"""

from __future__ import annotations

import datetime
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal._storage import JournalOperation

from nas.records.trial import Trial
from nas.store.journal_lines import (
    ENDED,
    MOST_BYTES_IN_LINE,
    RECORD,
    Entry,
    TrialsMade,
    damaged,
    parse_line,
)

_MOST_KEPT = 4
# Of the bytes before where reading goes on, so many must be those that were read.
_TAIL = 256


class ForeignJournalError(Exception):
    """The journal holds what only Optuna can replay."""


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a file was read: which file, where, and what stands before that."""

    device: int
    inode: int
    end: int
    tail: bytes


class JournalRecords:
    """The records of one journal, read forward."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._forget()

    def _forget(self) -> None:
        self._place: _Place | None = None
        self._made = TrialsMade()
        self._records: dict[int, Trial] = {}
        # Of trials that have not ended, with where their lines begin: read when they are asked
        # for, or end.
        self._pending: dict[int, tuple[int, Any]] = {}
        self._ended: set[int] = set()
        self._ended_at_s: dict[int, float] = {}

    def read(self, path: Path) -> tuple[list[Trial], dict[int, float]]:
        """Every trial's record, and when it ended in seconds since 1970, by number.

        Raises:
            ForeignJournalError: only Optuna can replay the journal.
            OSError: the file cannot be read.
            StorageError: a line is damaged.
        """
        self._path = path
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not self._goes_on(file, found):
                self._forget()
            start = 0 if self._place is None else self._place.end
            file.seek(start)
            end = self._read_lines(file, start)
            file.seek(max(0, end - _TAIL))
            tail = file.read(end - file.tell())
        self._place = _Place(found.st_dev, found.st_ino, end, tail)
        if self._made.n_studies != 1:
            raise ForeignJournalError("there must be one study")
        for trial_id, (start_of_line, data) in self._pending.items():
            self._records[trial_id] = self._record(trial_id, start_of_line, data)
        self._pending.clear()
        records = [self._records[trial_id] for trial_id in sorted(self._records)]
        return records, dict(self._ended_at_s)

    def _goes_on(self, file: BinaryIO, found: os.stat_result) -> bool:
        place = self._place
        if place is None or (found.st_dev, found.st_ino) != (place.device, place.inode):
            return False
        file.seek(max(0, place.end - _TAIL))
        return file.read(len(place.tail)) == place.tail and found.st_size >= place.end

    def _read_lines(self, file: BinaryIO, end: int) -> int:
        while line := file.readline(MOST_BYTES_IN_LINE + 1):
            if not line.endswith(b"\n") and len(line) <= MOST_BYTES_IN_LINE:
                # Being written, or left behind by a kill.
                break
            try:
                self._take(end, parse_line(line))
            except (ValueError, TypeError) as error:
                raise damaged(self._path, end, str(error)) from None
            end += len(line)
        return end

    def _take(self, start: int, entry: Entry) -> None:
        """Take up the line that begins at ``start``, in the way that Optuna's replay does."""
        operation, trial_id = entry["op_code"], entry.get("trial_id")
        made = self._made.take(entry)
        if made is not None:
            self._take_whole(made, start, entry)
        elif operation == JournalOperation.DELETE_STUDY:
            raise ForeignJournalError("a study was deleted")
        elif (
            trial_id is None or trial_id in self._ended or not 0 <= trial_id < self._made.n_trials
        ):
            # Optuna changes nothing of what has ended, nor of what is not there.
            return
        elif operation == JournalOperation.SET_TRIAL_USER_ATTR:
            if RECORD in entry["user_attr"]:
                self._pending[trial_id] = start, entry["user_attr"][RECORD]
        elif operation == JournalOperation.SET_TRIAL_STATE_VALUES and entry["state"] in ENDED:
            self._end(trial_id, _time_in(entry))

    def _take_whole(self, trial_id: int, start: int, made: Entry) -> None:
        """A trial that was made with its record, as where a study was copied."""
        data = made.get("user_attrs")
        if isinstance(data, dict) and RECORD in data:
            self._records[trial_id] = self._record(trial_id, start, data[RECORD])
        if made.get("state") in ENDED:
            self._end(trial_id, _time_in(made))

    def _record(self, trial_id: int, start: int, data: Any) -> Trial:
        """A trial's record, out of the line that begins at ``start``."""
        try:
            record = Trial.from_dict(data)
        except (ValueError, TypeError) as error:
            raise damaged(self._path, start, str(error)) from None
        if self._made.n_studies == 1 and record.number != trial_id:
            # Trials are counted by their lines: one of those is gone.
            why = f"it is of trial {record.number}, where trial {trial_id} must be"
            raise damaged(self._path, start, why)
        return record

    def _end(self, trial_id: int, ended_at_s: float | None) -> None:
        self._ended.add(trial_id)
        pending = self._pending.pop(trial_id, None)
        if pending is not None:
            self._records[trial_id] = self._record(trial_id, *pending)
        record = self._records.get(trial_id)
        # What has no record was never dispatched, and has no number that is asked for.
        if record is not None and ended_at_s is not None:
            self._ended_at_s[record.number] = ended_at_s


_kept: OrderedDict[Path, JournalRecords] = OrderedDict()
_lock = threading.Lock()


def read_journal(path: Path) -> tuple[list[Trial], dict[int, float]]:
    """See ``JournalRecords.read``; what this process has read before is not read again.

    Raises:
        ForeignJournalError: only Optuna can replay the journal.
        OSError: the file cannot be read.
        StorageError: a line is damaged.
    """
    where = path.resolve()
    with _lock:
        known = _kept.pop(where, None) or JournalRecords()
        found = known.read(where)
        # Only now: what could not be read is read anew the next time.
        _kept[where] = known
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return found


def _time_in(entry: Entry) -> float | None:
    completed = entry.get("datetime_complete")
    return None if completed is None else datetime.datetime.fromisoformat(completed).timestamp()
