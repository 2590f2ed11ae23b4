"""The trials of a run in ``records.jsonl``: one JSON object a line, appended by the driver alone.

====================================================  ==========================================
line                                                  meaning
====================================================  ==========================================
``{"study": ["maximize", "minimize"]}``               the first line: direction of each objective
``{"trial": 0, "queued": GENES, "baseline": true}``   a proposal that waits for the sampler's turn
``{"trial": 0, "genes": GENES, "sampler": STATE,      a proposal, new or from the queue
"at": SECONDS}``
``{"trial": 0, "record": RECORD, "at": SECONDS}``     the state of a trial, the last line counts
``{"trial": 0, "attempts": ATTEMPTS}``                how often the trial was tried
``{"trial": 0, "discarded": true}``                   a proposal that was never dispatched
====================================================  ==========================================

Every reader checks every line by the same rules and raises at the first damaged line, which may
have been a result; trials are numbered by their lines. Only half a line at the end, left by a
killed driver or a full disk, is ignored by readers and removed by the next driver.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from nas.core.names import printable
from nas.records.trial import Trial
from search_spaces.space import SearchSpace

Line = dict[str, Any]
# A record of 256 layers has a hundredth of it; untrusted input must not exhaust memory.
MOST_BYTES_IN_LINE = 16 * 1024 * 1024
# A longer file is the same file if this many bytes before its former end are equal.
TAIL_BYTES = 256
_SHOWN, _SHOWN_OF_CAUSE = 40, 300
# Seconds since 1970 to the year 5138, the latest that every platform's dates support.
_LATEST_S = 1e11
# The generation that NSGA-II stores with a proposal, and counts down from.
_GENERATION = "NSGAIISampler:generation"
_DIRECTIONS = ("maximize", "minimize")
_DECODER = json.JSONDecoder()


class StorageError(RuntimeError):
    """The study cannot be opened or read; the message is the cause in one line."""


@dataclass(slots=True)
class StoredTrial:
    """One trial of the file.

    It is *waiting* until a line has its genes; it has no record until it is dispatched.
    ``sampler`` is what the sampler stored with its proposal.
    """

    number: int
    queued: dict[str, Any] | None = None
    baseline: bool = False
    genes: dict[str, Any] | None = None
    sampler: dict[str, Any] = field(default_factory=dict)
    proposed_at_s: float = 0.0
    attempts: dict[str, Any] = field(default_factory=dict)
    record: Trial | None = None
    ended_at_s: float | None = None
    is_discarded: bool = False


@dataclass(frozen=True, slots=True)
class _Position:
    """Position at which reading continues: the file, and the bytes before the position."""

    device: int
    inode: int
    end: int
    tail: bytes


class RecordsReader:
    """Reads the file at ``path`` forward: a second ``read`` parses only what was added."""

    def __init__(self, path: Path, space: SearchSpace) -> None:
        """Nothing is read yet; genes must be of ``space``."""
        self._path = path
        self._values: dict[str, dict[tuple[type, Any], Any]] = {
            name: {(type(value), value): value for value in domain.values}
            for name, domain in space.genes().items()
        }
        self._reset()

    def _reset(self) -> None:
        self._position: _Position | None = None
        self.directions: tuple[str, ...] = ()
        self.trials: list[StoredTrial] = []
        # Records of running trials, parsed when all is read: most are followed by the final one.
        self._running: dict[int, tuple[int, Any]] = {}

    @property
    def end(self) -> int:
        """Bytes of whole lines that were read."""
        return 0 if self._position is None else self._position.end

    @property
    def tail(self) -> bytes:
        """The last of these bytes."""
        return b"" if self._position is None else self._position.tail

    def read(self) -> None:
        """Read what was added, or all where another file is in its place.

        Raises:
            OSError: the file cannot be read.
            StorageError: a line is damaged.
        """
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if not self._is_same(file, status):
                    self._reset()
                end = self._read_lines(file, self.end)
                file.seek(max(0, end - TAIL_BYTES))
                tail = file.read(end - file.tell())
            for number, (start, data) in self._running.items():
                self.trials[number].record = self._record(number, data, start)
            self._running.clear()
        except BaseException:
            self._reset()
            raise
        self._position = _Position(status.st_dev, status.st_ino, end, tail)
        if not self.directions:
            raise StorageError(
                f"study {printable(str(self._path))} is empty: put back a copy from before, or "
                f"begin a new run"
            )

    def _is_same(self, file: BinaryIO, status: os.stat_result) -> bool:
        position = self._position
        if position is None or (status.st_dev, status.st_ino) != (position.device, position.inode):
            return False
        file.seek(position.end - len(position.tail))
        return file.read(len(position.tail)) == position.tail

    def _read_lines(self, file: BinaryIO, end: int) -> int:
        file.seek(end)
        while text := file.readline(MOST_BYTES_IN_LINE + 1):
            if not text.endswith(b"\n") and len(text) <= MOST_BYTES_IN_LINE:
                # The line is being written, or a kill cut it off.
                break
            try:
                self._take(parse_line(text), end)
            except ValueError as error:
                raise damaged(self._path, end, str(error)) from None
            end += len(text)
        return end

    def _take(self, line: Line, start: int) -> None:
        """Apply the line that begins after ``start`` bytes."""
        if "study" in line:
            directions = line["study"]
            if self.directions or not directions or not set(directions) <= set(_DIRECTIONS):
                raise ValueError("a second first line, or none that names directions")
            self.directions = tuple(directions)
            return
        if not self.directions:
            raise ValueError("the first line, which names the objectives, is missing")
        number = line["trial"]
        if number == len(self.trials) and ("queued" in line or "genes" in line):
            self.trials.append(StoredTrial(number))
        elif not 0 <= number < len(self.trials):
            raise ValueError(f"the line that made trial {number} is gone")
        trial = self.trials[number]
        if trial.is_discarded or trial.ended_at_s is not None:
            raise ValueError(f"trial {number} has ended before")
        if "queued" in line:
            if trial.queued is not None or trial.genes is not None:
                raise ValueError(f"trial {number} is there already")
            trial.queued, trial.baseline = self._genes(line["queued"]), bool(line["baseline"])
        elif "genes" in line:
            if trial.genes is not None:
                raise ValueError(f"trial {number} has genes already")
            generation = line["sampler"].get(_GENERATION, 0)
            if type(generation) is not int or not 0 <= generation <= number:
                raise ValueError(f"the generation of trial {number} is {generation!r}")
            trial.genes, trial.sampler = self._genes(line["genes"]), line["sampler"]
            trial.proposed_at_s = line["at"]
        elif trial.genes is None:
            raise ValueError(f"the line that has the genes of trial {number} is gone")
        elif "attempts" in line:
            trial.attempts = line["attempts"]
        elif "record" in line:
            self._take_record(trial, line, start)
        else:
            trial.is_discarded = True

    def _take_record(self, trial: StoredTrial, line: Line, start: int) -> None:
        record = line["record"]
        if "outcome" in record and record["outcome"] is None:
            self._running[trial.number] = start, record
            return
        self._running.pop(trial.number, None)
        trial.record = self._record(trial.number, record, start)
        trial.ended_at_s = line["at"]

    def _record(self, number: int, data: Any, start: int) -> Trial:
        try:
            record = Trial.from_dict(data)
        except (ValueError, TypeError) as error:
            raise damaged(self._path, start, str(error)) from None
        if record.number != number:
            why = f"its record is of trial {record.number}, not {number}"
            raise damaged(self._path, start, why)
        return record

    def _genes(self, genes: Mapping[str, Any]) -> dict[str, Any]:
        """Check ``genes``; return them with the space's own objects, which all trials share."""
        if genes.keys() != self._values.keys():
            raise ValueError("its genes are not those of the run's space")
        checked = {}
        for name, values in self._values.items():
            value = genes[name]
            key = (type(value), value)
            # A list or an object is not hashable.
            if isinstance(value, list | dict) or key not in values:
                raise ValueError(f"{name} is not of the run's space: {value!r}"[:200])
            checked[name] = values[key]
        return checked


# The last file that this process read, since a served page reads the same file repeatedly.
_last: tuple[Path, SearchSpace, RecordsReader] | None = None
_lock = threading.Lock()


def read_records(path: Path, space: SearchSpace) -> tuple[list[Trial], dict[int, float]]:
    """Return every trial's record, and its end in seconds since 1970, both by number.

    Raises:
        OSError: the file cannot be read.
        StorageError: a line is damaged.
    """
    global _last
    where = path.resolve()
    with _lock:
        if _last is None or _last[:2] != (where, space):
            _last = where, space, RecordsReader(where, space)
        reader = _last[2]
        reader.read()
        trials = [trial for trial in reader.trials if trial.record is not None]
        return (
            [trial.record for trial in trials if trial.record is not None],
            {trial.number: trial.ended_at_s for trial in trials if trial.ended_at_s is not None},
        )


# Kinds of lines by their unique key, with all keys and their types.
_KINDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "study": {"study": list},
    "queued": {"queued": dict, "trial": int, "baseline": bool},
    "genes": {"genes": dict, "trial": int, "sampler": dict, "at": (int, float)},
    "record": {"record": dict, "trial": int, "at": (int, float)},
    "attempts": {"attempts": dict, "trial": int},
    "discarded": {"discarded": bool, "trial": int},
}


def parse_line(text: bytes) -> Line:
    """Parse ``text`` as an object with the keys of one kind of line.

    Raises:
        ValueError: it is not such an object; the message is the cause.
    """
    if len(text) > MOST_BYTES_IN_LINE:
        raise ValueError(f"it is longer than {MOST_BYTES_IN_LINE} bytes")
    try:
        line: Any = _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    kinds = [kind for kind in _KINDS if isinstance(line, dict) and kind in line]
    if not isinstance(line, dict) or len(kinds) != 1 or line.keys() != _KINDS[kinds[0]].keys():
        raise ValueError("it is no line of a study")
    for key, kind in _KINDS[kinds[0]].items():
        value = line[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"it is no line of a study: {key} is {value!r}"[:200])
    if not 0 <= line.get("at", 0) < _LATEST_S:
        raise ValueError(f"at must be seconds since 1970, got {line['at']!r}")
    if "discarded" in line and not line["discarded"]:
        raise ValueError("discarded must be true")
    if any(type(n) not in (int, bool) or n < 0 for n in line.get("attempts", {}).values()):
        raise ValueError(f"attempts must be counts, got {line['attempts']!r}")
    if kinds[0] == "study" and not all(isinstance(text, str) for text in line["study"]):
        raise ValueError("it is no line of a study: directions must be texts")
    return line


def damaged(path: Path, start: int, why: str) -> StorageError:
    """Return the error of the line that begins after ``start`` bytes of the file at ``path``."""
    with path.open("rb") as file:
        number, left = 1, start
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            number += block.count(b"\n")
            left -= len(block)
        text = file.readline(_SHOWN).decode(errors="replace").rstrip("\n")
    if len(why) > _SHOWN_OF_CAUSE:
        why = f"{why[:_SHOWN_OF_CAUSE]}..."
    return StorageError(
        f"study {printable(str(path))} is damaged at line {number}: {printable(why)} (it begins "
        f"{text!r}). Nothing was changed. Keep a copy of the file, then take the line out if "
        f"another program wrote it (sed -i {number}d {path.name}), or put back a copy from "
        f"before; nas resume goes on then"
    )
