"""The embedded study: Optuna's journal file, for one driver and a hundred thousand trials.

Any Optuna opens the file, ``optuna-dashboard`` included. What is ours is how it is written and
read. Each gene of a proposal would be a line of its own, written, waited for and read back;
``as_one_entry`` makes one line of them. Positions of lines are not kept, since a replay only goes
forward, of all trials only those that can still change are looked at again, and those that cannot
are packed (``journal_memory``).

Half a line at the end, left by a writer that was killed or met a full disk, is mended before
anything is appended to it. A damaged line elsewhere is refused (``journal_lines``).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections import deque
from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

from nas.core.retry import is_os_error, persist
from nas.store.journal_lines import (
    MOST_BYTES_IN_LINE,
    Entry,
    StorageError,
    TrialsMade,
    damaged,
    parse_line,
)
from nas.store.journal_lock import JournalLock
from nas.store.journal_memory import Packer

# How each line begins, a writer's own name after it.
_OPERATION = b'{"op_code":'
# Of the bytes before where reading goes on, so many must be those that were read or written.
_TAIL_BYTES = 256


@dataclass(frozen=True, slots=True)
class _Line:
    """An entry, as it is written; ``start`` is where another process's begins in the file."""

    entry: Entry
    text: bytes = b""
    start: int | None = None
    is_replayed: bool = False

    @classmethod
    def of(cls, entry: Entry, *, is_replayed: bool = False) -> _Line:
        text = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        return cls(entry, text, is_replayed=is_replayed)


class JournalFile(JournalFileBackend):
    """The lines of a journal, read forward by one storage.

    What a process has written outlives its end, however it ends; only a machine that loses power
    can lose lines that were not waited for, which are proposals that nobody has run.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal at ``path``, or make it."""
        super().__init__(str(path), JournalLock(path))
        self._path = path
        # Bytes that were read or written by us, and entries among them that are to be replayed.
        self._end, self._tail = 0, b""
        self._made = TrialsMade()
        self._unread: deque[_Line] = deque()
        self._held: list[Entry] | None = None
        # Replayed, and not on disk since it could not be written: goes before whatever comes next.
        self._unwritten: list[_Line] = []
        # What of ours a failed write may have left after ``_end``.
        self._torn = b""
        self._replaying: _Line | None = None
        self._damage: StorageError | None = None

    @contextlib.contextmanager
    def as_one_entry(self) -> Iterator[None]:
        """A new trial that is made meanwhile is one line, written at the end.

        It is not waited for: whatever is written next is, and both are on disk then.
        """
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held:
                self._unwritten += [_Line.of(entry, is_replayed=True) for entry in _folded(held)]
                self._write([], waits=False)

    @contextlib.contextmanager
    def replaying(self) -> Iterator[None]:
        """Refuse the file where a replay meets an entry of another process that it cannot follow.

        Raises:
            StorageError: it does, and so does every replay after it.
        """
        self._replays(None)
        try:
            yield
        except (OSError, StorageError):
            raise
        except Exception as error:
            line = self._replaying
            if line is None or line.start is None:
                # Ours: Optuna refuses what was asked for, such as a study of a name that is taken.
                raise
            why = f"it cannot be replayed ({type(error).__name__}: {error})"
            self._damage = damaged(self._path, line.start, why)
            raise self._damage from error

    def read_logs(self, log_number_from: int) -> Generator[Entry, None, None]:
        """See ``JournalFileBackend.read_logs``; each entry is given once.

        Raises:
            StorageError: a line is damaged.
        """
        if self._damage is not None:
            raise self._damage
        if log_number_from == 0:
            self._end, self._tail = 0, b""
            self._made = TrialsMade()
            self._unread.clear()
        while self._unread:
            # Taken before it is replayed, which may raise.
            yield self._replays(self._unread.popleft())
        if self._held is None:
            for line in self._read_on():
                yield self._replays(line)

    def _replays(self, line: _Line | None) -> Entry:
        self._replaying = line
        return {} if line is None else line.entry

    def append_logs(self, logs: list[Entry]) -> None:
        """See ``JournalFileBackend.append_logs``.

        Raises:
            OSError: they cannot be written, however long ``nas.core.retry`` waits; then none of
                them was.
            StorageError: a line before them is damaged.
        """
        # What a replay of the line would give: plain values.
        plain = [json.loads(json.dumps(log)) for log in logs]
        if self._held is None:
            self._write([_Line.of(entry) for entry in plain], waits=True)
        else:
            self._held += plain
            self._unread.extend(_Line(entry) for entry in plain)

    def _write(self, lines: Sequence[_Line], *, waits: bool) -> None:
        """Append lines, after reading what somebody else wrote, such as a dashboard's note."""
        if self._damage is not None:
            raise self._damage
        whole = [*self._unwritten, *lines]
        persist(lambda: self._write_once(whole, waits), _passes, place=self._path)
        self._unwritten = []
        self._unread.extend(line for line in whole if not line.is_replayed)

    def _write_once(self, lines: Sequence[_Line], waits: bool) -> None:
        is_written = False
        try:
            with get_lock_file(self._lock):
                self._mend()
                self._append(b"".join(line.text for line in lines), waits)
                is_written = True
                for line in lines:
                    self._made.take(line.entry)
        except RuntimeError:
            # The lock cannot be let go of: others take it from us after half a minute.
            if not is_written:
                raise

    def _append(self, data: bytes, waits: bool) -> None:
        with self._path.open("ab", buffering=0) as file:
            try:
                # Until the write is known to be whole or undone.
                self._torn = data
                written = file.write(data)
                if written < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                if waits:
                    os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(self._end)
                raise
        self._torn = b""
        self._passed(data)

    def _passed(self, data: bytes) -> None:
        """Note that ``data``, which goes on at ``_end``, was read or written."""
        self._end += len(data)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def _check_same(self, file: BinaryIO) -> None:
        """Refuse a file in which what this process has read is no longer where it was."""
        start = self._end - len(self._tail)
        file.seek(start)
        if file.read(len(self._tail)) != self._tail:
            self._damage = StorageError(
                f"study {self._path} was changed by another program while this search ran: it "
                f"stops and writes no more; nas resume goes on with what the file now has"
            )
            raise self._damage

    def _read_on(self) -> Iterator[_Line]:
        """Whole lines after what is known.

        Raises:
            StorageError: a line is damaged; it is met again by whoever reads next.
        """
        if persist(lambda: self._path.stat().st_size, is_os_error, place=self._path) == self._end:
            return
        with persist(lambda: self._path.open("rb"), is_os_error) as file:
            self._check_same(file)
            while text := file.readline(MOST_BYTES_IN_LINE + 1):
                if not text.endswith(b"\n") and len(text) <= MOST_BYTES_IN_LINE:
                    # Being written, or left behind by a kill.
                    return
                start = self._end
                try:
                    entry = parse_line(text)
                    self._made.take(entry)
                except ValueError as error:
                    raise damaged(self._path, start, str(error)) from None
                self._passed(text)
                yield _Line(entry, start=start)

    def _mend(self) -> None:
        """Read what others wrote, and rid the end of the file of half a line; needs the lock."""
        if self._torn:
            with self._path.open("r+b") as file:
                self._remove_torn(file)
            self._torn = b""
        self._unread.extend(self._read_on())
        with self._path.open("r+b") as file:
            self._check_same(file)
            if os.fstat(file.fileno()).st_size == self._end:
                return
            half = file.read(MOST_BYTES_IN_LINE)
            try:
                entry = parse_line(half)
            except ValueError:
                # Whoever wrote it had not been heard by anybody.
                file.truncate(self._end)
                return
            # It lacks its end alone, as where an editor has taken that off.
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
        self._unread.append(_Line(entry, start=self._end))
        self._made.take(entry)
        self._passed(half + b"\n")

    def _remove_torn(self, file: BinaryIO) -> None:
        """Take what a failed write of ours has left out of the file, where that failed as well."""
        file.seek(self._end)
        rest = file.read()
        if self._torn.startswith(rest):
            file.truncate(self._end)
            return
        # Another writer has appended since. Blanks before its line are none of JSON's business.
        shared = len(os.path.commonprefix([rest, self._torn]))
        start = rest.rfind(_OPERATION, 0, shared + len(_OPERATION))
        if start > 0:
            file.seek(self._end)
            file.write(b" " * start)


def _passes(error: BaseException) -> bool:
    """Whether the disk may answer again; a lock that cannot be let go of hides what it said."""
    return isinstance(error, OSError) or (
        isinstance(error, RuntimeError) and isinstance(error.__context__, OSError)
    )


def _folded(entries: list[Entry]) -> list[Entry]:
    """Entries that make one new trial as the one entry that makes it whole."""
    first, *others = entries
    if first["op_code"] != JournalOperation.CREATE_TRIAL or "params" in first:
        return entries
    whole: Entry = {
        "params": {},
        "distributions": {},
        "system_attrs": {},
        "user_attrs": {},
        "state": int(TrialState.RUNNING),
    }
    for entry in others:
        if entry["op_code"] == JournalOperation.SET_TRIAL_PARAM:
            whole["params"][entry["param_name"]] = entry["param_value_internal"]
            whole["distributions"][entry["param_name"]] = entry["distribution"]
        elif entry["op_code"] == JournalOperation.SET_TRIAL_SYSTEM_ATTR:
            whole["system_attrs"] |= entry["system_attr"]
        else:
            return entries
    return [first | whole]


class JournalStudies(JournalStorage):
    """``JournalStorage`` whose queries take as long as there are trials that may change.

    A finished trial never changes, so that lists are kept and only later ones looked at again.
    """

    def __init__(self, backend: JournalFile) -> None:
        """Replay the journal."""
        self._known: dict[int, list[FrozenTrial]] = {}
        # By study, how many of its first trials are all finished.
        self._n_finished: dict[int, int] = {}
        self._packer = Packer()
        super().__init__(backend)

    def _sync_with_backend(self) -> None:
        """See ``JournalStorage``; a line that cannot be followed is refused."""
        assert isinstance(self._backend, JournalFile)
        with self._backend.replaying():
            super()._sync_with_backend()

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See ``JournalStorage.get_all_trials``; without ``deepcopy`` not to be changed."""
        is_of_unfinished = states is not None and not any(
            state in states for state in TrialState if state.is_finished()
        )
        if deepcopy or not (states is None or is_of_unfinished):
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:
            self._sync_with_backend()
            # Raises where there is no such study.
            self._replay_result.get_study(study_id)
            known = self._known.setdefault(study_id, [])
            start = self._look_again(study_id, known)
        if states is None:
            return known
        return [trial for trial in known[start:] if trial.state in states]

    def _look_again(self, study_id: int, known: list[FrozenTrial]) -> int:
        """Bring ``known`` up to date; returns how many of its first are finished."""
        replayed = self._replay_result
        numbers = replayed._study_id_to_trial_ids[study_id]
        start = self._n_finished.get(study_id, 0)
        del known[start:]
        known += [replayed._trials[number] for number in numbers[start:]]
        while start < len(known) and known[start].state.is_finished():
            packed = self._packer.packed(known[start])
            known[start] = replayed._trials[numbers[start]] = packed
            start += 1
        self._n_finished[study_id] = start
        return start
