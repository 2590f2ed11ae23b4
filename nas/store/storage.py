"""The study of a run: an Optuna multi-objective study with one writer.

Without a storage URL the trials are in ``records.jsonl`` (``nas.store.records_file``) and Optuna's
study is in memory, built from that file. With a URL the study is in the database, where a trial's
record is one JSON user attribute. Quality is maximised, joules per sample and any further
objective are minimised; limits on what is measured are the study's constraints.

Optuna's states: COMPLETE is complete; PRUNED is dropped, stopped or a finalist, without values;
FAIL is failed or discarded; RUNNING is in flight or interrupted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.core.files import write_atomic
from nas.core.retry import AwayError, is_os_error
from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.store.database import first_line as first_line
from nas.store.database import is_database_away, named_errors, open_database
from nas.store.lock import RunBusyError
from nas.store.optuna_trials import (
    ATTEMPTS,
    QUEUED,
    RECORD,
    Shared,
    distributions_of,
    frozen_of,
    record_of,
    state_of,
    user_attrs_of,
    values_of,
)
from nas.store.records_file import Line, RecordsReader, read_records
from nas.store.records_file import StorageError as StorageError
from nas.store.records_writer import RecordsWriter, as_text, end_last_line
from search_spaces.space import SearchSpace

STUDY_NAME = "joulenas"
# The attribute of a shared study that contains the token of its writer.
_WRITER = "joulenas_writer"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Genes that the sampler proposes, under the number that the trial will have."""

    number: int
    genes: dict[str, Any]
    baseline: bool


def records_path(folder: Path) -> Path:
    """The study of a run directory without a storage URL."""
    return folder / "records.jsonl"


class StudyStore:
    """Store of a study: propose genes, store results and read records."""

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        space: SearchSpace,
        goals: Goals | None = None,
        writer: RecordsWriter | None = None,
    ) -> None:
        """Wrap ``study``, which is in ``storage``; ``writer`` stores it if that is in memory."""
        self._study, self._storage, self._goals = study, storage, goals or Goals()
        self._id_in_storage = storage.get_study_id_from_name(study.study_name)
        self._writer = writer
        self.check_writer: Callable[[], None] = lambda: None
        # Trials that have not ended.
        self._open: dict[int, optuna.Trial] = {}
        self._distributions = distributions_of(space, is_in_memory=writer is not None)

    @classmethod
    def create(
        cls,
        folder: Path,
        url: str | None,
        run_name: str,
        space: SearchSpace,
        sampler: Any,
        goals: Goals | None = None,
        *,
        exists_ok: bool = False,
    ) -> StudyStore:
        """Create the study of a new run; with ``exists_ok`` open an existing one.

        Raises:
            StorageError: the storage cannot be opened, or has a study of that name already.
        """
        directions = [
            StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE
            for more in (goals or Goals()).maximize
        ]
        if url is None:
            path = records_path(folder)
            if path.exists() and not exists_ok:
                raise StorageError(f"study {path} is there already")
            if not path.exists():
                first = as_text({"study": [direction.name.lower() for direction in directions]})
                write_atomic(path, lambda temporary: temporary.write_bytes(first))
            return cls.load(folder, url, run_name, space, sampler, goals)
        with named_errors(url):
            storage = open_database(folder, url)
            study = optuna.create_study(
                storage=storage,
                study_name=run_name,
                directions=directions,
                sampler=sampler,
                load_if_exists=exists_ok,
            )
        return cls(study, storage, space, goals)

    @classmethod
    def load(
        cls,
        folder: Path,
        url: str | None,
        run_name: str,
        space: SearchSpace,
        sampler: Any = None,
        goals: Goals | None = None,
        *,
        read_only: bool = False,
    ) -> StudyStore:
        """Open the study of an existing run; ``read_only`` changes nothing.

        Raises:
            StorageError: the storage cannot be opened or has no such study.
        """
        if url is None:
            return cls._of_file(records_path(folder), space, sampler, goals, read_only)
        with named_errors(url):
            storage = open_database(folder, url, read_only)
            study = optuna.load_study(storage=storage, study_name=run_name, sampler=sampler)
        return cls(study, storage, space, goals)

    @classmethod
    def _of_file(
        cls,
        path: Path,
        space: SearchSpace,
        sampler: Any,
        goals: Goals | None,
        read_only: bool,
    ) -> StudyStore:
        """Build the study in memory; see ``load``."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        _check_is_there(path)
        reader = RecordsReader(path, space)
        with _readable(path):
            if not read_only:
                end_last_line(path)
            reader.read()
        goals = goals or Goals()
        if [name == "maximize" for name in reader.directions] != list(goals.maximize):
            raise StorageError(
                f"study {path} must have the objectives {', '.join(goals.names)} of its run, got "
                f"{len(reader.directions)} objectives: {', '.join(reader.directions)}"
            )
        storage = InMemoryStorage()
        study = optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME,
            directions=[StudyDirection[name.upper()] for name in reader.directions],
            sampler=sampler,
        )
        distributions = distributions_of(space, is_in_memory=True)
        for trial in reader.trials:
            if trial.genes is None:
                study.enqueue_trial(trial.queued or {}, user_attrs=user_attrs_of(trial))
            else:
                study.add_trial(frozen_of(trial, distributions, goals))
        return cls(study, storage, space, goals, RecordsWriter(path, space, reader))

    def fence(self, check_writer: Callable[[], None], token: str) -> None:
        """Call ``check_writer`` before each write; it raises if another driver writes.

        ``token`` names this driver in a shared study. A later driver on a copy of the run
        directory stores its own token there, and this driver stops.
        """
        check_writer()
        self.check_writer = check_writer
        if self._writer is not None:
            return
        self._study.set_user_attr(_WRITER, token)

        def check() -> None:
            check_writer()
            if self._study.user_attrs.get(_WRITER) != token:
                raise RunBusyError(
                    f"study {self._study.study_name} is being written by another search, begun "
                    f"later on a copy of the run: this one stops and writes no more"
                )

        self.check_writer = check

    def enqueue(self, genes: dict[str, Any], *, baseline: bool = True) -> None:
        """Queue these genes for later calls of ``ask``, first in, first out."""
        self.check_writer()
        number = len(self._study.get_trials(deepcopy=False))
        self._append({"trial": number, "queued": genes, "baseline": baseline})
        queued = {QUEUED: {"genes": genes, "baseline": baseline}}
        self._study.enqueue_trial(genes, user_attrs=queued)

    def waiting(self) -> list[dict[str, Any]]:
        """Return the queued genes that ``ask`` has not returned yet."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return [dict(trial.user_attrs[QUEUED]["genes"]) for trial in trials]

    def discard(self, number: int) -> None:
        """End a proposal that is not dispatched, without a record."""
        self.check_writer()
        self._hold({"trial": number, "discarded": True})
        self._study.tell(number, state=TrialState.FAIL)
        self._open.pop(number, None)

    def ask(self) -> Proposal:
        """Return the sampler's next proposal, which becomes a RUNNING trial."""
        self.check_writer()
        trial = self._study.ask(self._distributions)
        number, genes = trial.number, dict(trial.params)
        self._open[number] = trial
        frozen = self._frozen(number)
        self._hold_proposal(number, genes, frozen.system_attrs)
        queued = frozen.user_attrs.get(QUEUED)
        return Proposal(number, genes, queued is not None and queued["baseline"])

    def begin(self, genes: dict[str, Any]) -> int:
        """Start a trial of these genes regardless of the queue; return its number."""
        self.check_writer()
        # With one writer the number is free.
        number = len(self._study.get_trials(deepcopy=False))
        self._hold_proposal(number, genes, {})
        self._study.add_trial(
            create_trial(state=TrialState.RUNNING, params=genes, distributions=self._distributions)
        )
        self._reopen(number)
        return number

    def save(self, record: Trial) -> None:
        """Store ``record`` of a trial that has not ended; end the trial unless it is running."""
        self.check_writer()
        data = record.to_dict()
        self._append({"trial": record.number, "record": data, "at": time.time()})
        # In a database the record goes first: a kill between the two writes leaves a RUNNING trial
        # whose record is whole, and ``settle`` ends it on resume.
        stored = data if self._writer is None else Shared(record)
        self._open[record.number].set_user_attr(RECORD, stored)
        self._tell(record)

    def attempts(self, number: int) -> dict[str, Any]:
        """Return the stored attempts of a trial that has not ended, empty at first."""
        attempts = self._open[number].user_attrs.get(ATTEMPTS, {})
        return attempts if isinstance(attempts, dict) else {}

    def save_attempts(self, number: int, attempts: dict[str, Any]) -> None:
        """Store how often a trial that has not ended was tried; see ``nas.cluster.attempts``."""
        self.check_writer()
        self._append({"trial": number, "attempts": attempts})
        self._open[number].set_user_attr(ATTEMPTS, attempts)

    def settle(self) -> list[Trial]:
        """End trials whose record is whole but whose state is not; return those in flight."""
        self.check_writer()
        in_flight = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = record_of(frozen)
            if record is None:
                # It was never dispatched and cost nothing; queued genes are enqueued again.
                self.discard(frozen.number)
                queued = frozen.user_attrs.get(QUEUED)
                if queued is not None:
                    self.enqueue(dict(queued["genes"]), baseline=queued["baseline"])
                continue
            self._reopen(record.number)
            if record.state == "running":
                in_flight.append(record)
            else:
                self._tell(record)
        return in_flight

    def records(self) -> list[Trial]:
        """Return every trial's record, by number."""
        records = (record_of(frozen) for frozen in self._study.get_trials(deepcopy=False))
        return [record for record in records if record is not None]

    def ended_at_s(self) -> dict[int, float]:
        """Return the end of each trial of a database in seconds since 1970, by number."""
        return {
            frozen.number: frozen.datetime_complete.timestamp()
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.datetime_complete is not None
        }

    def frozen_trials(self) -> list[FrozenTrial]:
        """Optuna's trials, which must not be changed."""
        return self._study.get_trials(deepcopy=False)

    def _append(self, line: Line) -> None:
        if self._writer is not None:
            self._writer.append(line)

    def _hold(self, line: Line) -> None:
        if self._writer is not None:
            self._writer.hold(line)

    def _hold_proposal(self, number: int, genes: dict[str, Any], sampler: dict[str, Any]) -> None:
        # What samplers store with a trial, such as its generation.
        self._hold({"trial": number, "genes": genes, "sampler": sampler, "at": time.time()})

    def _id_of(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id_in_storage, number)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id_of(number))

    def _reopen(self, number: int) -> None:
        self._open[number] = optuna.Trial(self._study, self._id_of(number))

    def _tell(self, record: Trial) -> None:
        if record.state == "running":
            return
        values = values_of(record, self._goals)
        if values is not None:
            for name, excess in self._goals.excess(record).items():
                self._open[record.number].set_constraint(name, excess)
        self._study.tell(record.number, values, state_of(record))
        del self._open[record.number]


def read_trials(
    folder: Path, url: str | None, run_name: str, space: SearchSpace
) -> tuple[list[Trial], dict[int, float]]:
    """Every trial's record, and when it ended in seconds since 1970, both by number.

    Raises:
        StorageError: the storage cannot be opened or holds no such study.
    """
    if url is None:
        path = records_path(folder)
        _check_is_there(path)
        with _readable(path):
            return read_records(path, space)
    store = StudyStore.load(folder, url, run_name, space, read_only=True)
    return store.records(), store.ended_at_s()


def is_away(error: BaseException) -> bool:
    """Return whether ``error`` is of storage that may recover, with intact data."""
    return is_os_error(error) or isinstance(error, AwayError) or is_database_away(error)


def _check_is_there(path: Path) -> None:
    if not path.is_file():
        raise StorageError(
            f"run folder {path.parent} has no {path.name}: where its search ended while the run "
            f"was made, nas resume goes on; else put the file back"
        )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"study {path} must be readable: {error.strerror}") from error
