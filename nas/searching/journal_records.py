"""Records out of a study's journal, without replaying the study.

A query needs what became of each trial, which is one line of the four that a trial takes. Optuna's
replay builds every trial's distributions besides, which is most of what reading took. Lines that
say nothing of a record are told by their first bytes and passed over. What is read is what a
replay gives: the last record of each trial that was written before the trial ended. A journal with
anything in it that our searches do not write is left to Optuna.

In one process a journal is read forward: asked again, only what was added is read.
"""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

from nas.searching.journal import MOST_BYTES_IN_LINE
from nas.searching.trial import TrialRecord

#: The user attribute that holds a trial's record.
RECORD = "joulenas"
_OPERATION = b'{"op_code":'
_PASSED_OVER = frozenset(
    {
        JournalOperation.SET_STUDY_USER_ATTR,
        JournalOperation.SET_STUDY_SYSTEM_ATTR,
        JournalOperation.SET_TRIAL_PARAM,
        JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
        JournalOperation.SET_TRIAL_SYSTEM_ATTR,
    }
)
_ATTRIBUTE = b'"user_attr":{"%s":' % RECORD.encode()
_CARRIED = b'"%s":{' % RECORD.encode()
# Where the attribute's name starts at the latest: before it are only numbers and a worker's name.
_HEAD = 200
_ENDED = frozenset(state.value for state in TrialState if state.is_finished())
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
        self._n_studies = self._n_trials = 0
        self._records: dict[int, TrialRecord] = {}
        # Of trials that have not ended: read when they are asked for, or end.
        self._pending: dict[int, bytes] = {}
        self._ended: set[int] = set()
        self._ended_at_s: dict[int, float] = {}

    def read(self, path: Path) -> tuple[list[TrialRecord], dict[int, float]]:
        """Every trial's record, and when it ended in seconds since 1970, by number.

        Raises:
            ForeignJournalError: only Optuna can replay the journal.
            OSError: the file cannot be read.
            ValueError: a record is not what it must be.
        """
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
        if self._n_studies != 1:
            raise ForeignJournalError("there must be one study")
        for trial_id, line in self._pending.items():
            self._records[trial_id] = _record_in(line)
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
            if not line.endswith(b"\n"):
                if len(line) > MOST_BYTES_IN_LINE:
                    raise ForeignJournalError("a line is too long")
                # Being written, or left behind by a kill.
                break
            end += len(line)
            try:
                self._take(line)
            except (AttributeError, KeyError, TypeError):
                raise ForeignJournalError("a line is not as Optuna writes it") from None
        return end

    def _take(self, line: bytes) -> None:
        """Take up one line; the order of cases is that of how many there are."""
        if not line.startswith(_OPERATION):
            raise ForeignJournalError("a line is not as Optuna writes it")
        comma = line.find(b",", len(_OPERATION), _HEAD)
        try:
            operation = JournalOperation(int(line[len(_OPERATION) : comma]))
        except ValueError:
            raise ForeignJournalError("an operation is not known") from None
        if operation == JournalOperation.SET_TRIAL_USER_ATTR:
            if line.find(_ATTRIBUTE, 0, _HEAD) >= 0:
                trial_id = _trial_of(line)
                # Optuna changes nothing of what has ended.
                if trial_id not in self._ended:
                    self._pending[trial_id] = line
        elif operation == JournalOperation.CREATE_TRIAL:
            trial_id, self._n_trials = self._n_trials, self._n_trials + 1
            if _CARRIED in line:
                self._take_whole(trial_id, _parsed(line))
        elif operation == JournalOperation.SET_TRIAL_STATE_VALUES:
            change = _parsed(line)
            if change["state"] in _ENDED and change["trial_id"] not in self._ended:
                self._end(change["trial_id"], change.get("datetime_complete"))
        elif operation == JournalOperation.CREATE_STUDY:
            self._n_studies += 1
        elif operation not in _PASSED_OVER:
            raise ForeignJournalError("a study was deleted")

    def _take_whole(self, trial_id: int, made: dict[str, Any]) -> None:
        """A trial that was made with its record, as where a study was copied."""
        if RECORD in made.get("user_attrs", ()):
            self._records[trial_id] = TrialRecord.from_dict(made["user_attrs"][RECORD])
        if made.get("state") in _ENDED:
            self._end(trial_id, made.get("datetime_complete"))

    def _end(self, trial_id: int, completed: str | None) -> None:
        self._ended.add(trial_id)
        line = self._pending.pop(trial_id, None)
        if line is not None:
            self._records[trial_id] = _record_in(line)
        record = self._records.get(trial_id)
        # What has no record was never dispatched, and has no number that is asked for.
        if record is not None and completed is not None:
            ended = datetime.datetime.fromisoformat(completed)
            self._ended_at_s[record.number] = ended.timestamp()


_kept: OrderedDict[Path, JournalRecords] = OrderedDict()
_lock = threading.Lock()


def read_journal(path: Path) -> tuple[list[TrialRecord], dict[int, float]]:
    """See ``JournalRecords.read``; what this process has read before is not read again.

    Raises:
        ForeignJournalError: only Optuna can replay the journal.
        OSError: the file cannot be read.
        ValueError: a record is not what it must be.
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


def _trial_of(line: bytes) -> int:
    start = line.find(b'"trial_id":', 0, _HEAD) + len(b'"trial_id":')
    try:
        return int(line[start : line.index(b",", start)])
    except ValueError:
        raise ForeignJournalError("a line names no trial") from None


def _record_in(line: bytes) -> TrialRecord:
    return TrialRecord.from_dict(_parsed(line)["user_attr"][RECORD])


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        raise ForeignJournalError("a line is not JSON") from None
    return parsed
