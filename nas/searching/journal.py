"""The embedded study: Optuna's journal file, for one driver and a hundred thousand trials.

Any Optuna opens the file, ``optuna-dashboard`` included. What is ours is how it is written and
read. Each gene of a proposal would be a line of its own, written, waited for and read back;
``as_one_entry`` makes one line of them. Positions of lines are not kept, since a replay only goes
forward, of all trials only those that can still change are looked at again, and those that cannot
are packed (``journal_memory``).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections import deque
from collections.abc import Container, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._base import BaseJournalBackend
from optuna.storages.journal._file import get_lock_file
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

from nas.patience import is_os_error, persist
from nas.searching.journal_memory import Packer

Entry = dict[str, Any]
# A record of 256 layers takes a hundredth of it; what a stranger gives us shall not fill memory.
MOST_BYTES_IN_LINE = 16 * 1024 * 1024


class JournalFile(JournalFileBackend):
    """The lines of a journal, read forward by one storage.

    What a process has written outlives its end, however it ends; only a machine that loses power
    can lose lines that were not waited for, which are proposals that nobody has run.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal at ``path``, or make it."""
        super().__init__(str(path))
        self._path = path
        # Bytes that were read or written by us, and entries among them that are to be replayed.
        self._end = 0
        self._unread: deque[Entry] = deque()
        self._held: list[Entry] | None = None
        # Replayed, and not on disk since it could not be written: goes before whatever comes next.
        self._unwritten: list[Entry] = []
        self._is_mended = False

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
                self._unwritten += _folded(held)
                self._write([], waits=False)

    def read_logs(self, log_number_from: int) -> Generator[Entry, None, None]:
        """See ``JournalFileBackend.read_logs``; each entry is given once."""
        if log_number_from == 0:
            self._end = 0
            self._unread.clear()
        while self._unread:
            # Taken before it is replayed, which may raise.
            yield self._unread.popleft()
        if self._held is None:
            yield from self._read_on()

    def append_logs(self, logs: list[Entry]) -> None:
        """See ``JournalFileBackend.append_logs``.

        Raises:
            OSError: they cannot be written, however long ``nas.patience`` waits; then none of
                them was.
        """
        # What a replay of the line would give: plain values.
        plain = [json.loads(json.dumps(log)) for log in logs]
        if self._held is None:
            self._write(plain, waits=True)
        else:
            self._held += plain
        self._unread.extend(plain)

    def _write(self, entries: Sequence[Entry], *, waits: bool) -> None:
        """Append entries, after reading what somebody else wrote, such as a dashboard's note."""
        whole = [*self._unwritten, *entries]
        lines = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in whole)
        persist(lambda: self._write_once(lines.encode(), waits), _passes)
        self._unwritten = []

    def _write_once(self, data: bytes, waits: bool) -> None:
        is_written = False
        try:
            with get_lock_file(self._lock):
                if not self._is_mended:
                    self._mend()
                for entry in self._read_on():
                    self._unread.append(entry)
                self._append(data, waits)
                is_written = True
        except RuntimeError:
            # The lock cannot be let go of: others take it from us after half a minute.
            if not is_written:
                raise

    def _append(self, data: bytes, waits: bool) -> None:
        with self._path.open("ab", buffering=0) as file:
            try:
                written = file.write(data)
                if written < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                if waits:
                    os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(self._end)
                raise
        self._end += len(data)

    def _read_on(self) -> Iterator[Entry]:
        """Whole lines after what is known.

        Raises:
            ValueError: a line is longer than any that is ours, or not JSON.
        """
        if persist(lambda: self._path.stat().st_size, is_os_error) <= self._end:
            return
        with persist(lambda: self._path.open("rb"), is_os_error) as file:
            file.seek(self._end)
            while line := file.readline(MOST_BYTES_IN_LINE + 1):
                if len(line) > MOST_BYTES_IN_LINE:
                    raise ValueError(f"a line is longer than {MOST_BYTES_IN_LINE} bytes")
                if not line.endswith(b"\n"):
                    # Being written, or left behind by a kill.
                    return
                self._end += len(line)
                yield json.loads(line)

    def _mend(self) -> None:
        """Cut off half a line that a killed writer left: it said nothing yet."""
        with self._path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            keep = size
            while keep:
                start = max(0, keep - 4096)
                file.seek(start)
                newline = file.read(keep - start).rfind(b"\n")
                if newline >= 0:
                    keep = start + newline + 1
                    break
                keep = start
            if keep < size:
                file.truncate(keep)
        self._is_mended = True


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

    def __init__(self, backend: BaseJournalBackend) -> None:
        """Replay the journal."""
        self._known: dict[int, list[FrozenTrial]] = {}
        # By study, how many of its first trials are all finished.
        self._n_finished: dict[int, int] = {}
        self._packer = Packer()
        super().__init__(backend)

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
