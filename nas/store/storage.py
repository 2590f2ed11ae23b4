"""The study: an Optuna multi-objective study in durable storage, with one writer.

Everything known of a trial is one JSON user attribute of its Optuna trial, so any Optuna storage
holds the whole search and ``optuna-dashboard`` opens it. Quality is maximised, joules per sample
and any further objective are minimised; limits on what is measured are the study's constraints.
Optuna's states map to ours: COMPLETE complete, PRUNED dropped by the gate, stopped early or a
finalist (told without values), FAIL failed, RUNNING in flight or interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from nas.core.recorded import Recorded
from nas.core.retry import AwayError, is_os_error
from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.store.journal import JournalFile, JournalStudies
from nas.store.journal_lines import RECORD
from nas.store.journal_lines import StorageError as StorageError
from nas.store.journal_records import (
    ForeignJournalError,
    JournalRecords,
    read_journal,
)
from nas.store.lock import RunBusyError
from nas.store.patient_storage import (
    is_database_away,
    open_database,
    open_for_reading,
)
from nas.store.storage_host import (
    StorageHostError,
    check_dialect,
    check_server,
    is_sqlite,
    sqlite_path,
)
from nas.store.storage_url import scrub, shown, with_password
from search_spaces.space import SearchSpace

T = TypeVar("T")

STUDY_NAME = "joulenas"
_BASELINE = "joulenas_baseline"
# Of a study, who writes to it; of a trial, what ``attempts`` keeps.
_WRITER, _ATTEMPTS = "joulenas_writer", "joulenas_attempts"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Genes that the sampler proposes, under the number that the trial will keep."""

    number: int
    genes: dict[str, Any]
    baseline: bool


def journal_path(folder: Path) -> Path:
    """Where a run folder keeps its study when no storage URL is given."""
    return folder / "study.journal"


class StudyStore:
    """Ask for genes, tell results, read records back."""

    def __init__(
        self, study: optuna.Study, space: SearchSpace | None = None, goals: Goals | None = None
    ) -> None:
        """Wrap ``study``; ``space`` is needed to ask, ``goals`` are what it is told by."""
        self._study, self._goals = study, goals or Goals()
        self.check_writer: Callable[[], None] = lambda: None
        self._asked: dict[int, optuna.Trial] = {}
        if space is not None:
            self._distributions: dict[str, BaseDistribution] = {
                name: CategoricalDistribution(tuple(domain.values))
                for name, domain in space.genes().items()
            }

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
        """Make the study of a new run; with ``exists_ok`` one that is there is opened.

        Raises:
            StorageError: the storage cannot be opened, or holds a study of that name already.
        """
        name = run_name if url else STUDY_NAME
        if exists_ok and _holds_study(folder, url, name):
            return cls.load(folder, url, run_name, space, sampler, goals)
        return cls(
            _guarded(
                lambda: optuna.create_study(
                    storage=_open_storage(folder, url),
                    study_name=name,
                    directions=[
                        "maximize" if more else "minimize" for more in (goals or Goals()).maximize
                    ],
                    sampler=sampler,
                ),
                url,
            ),
            space,
            goals,
        )

    @classmethod
    def load(
        cls,
        folder: Path,
        url: str | None,
        run_name: str,
        space: SearchSpace | None = None,
        sampler: Any = None,
        goals: Goals | None = None,
        read_only: bool = False,
    ) -> StudyStore:
        """Open the study of an existing run; ``read_only`` makes and changes nothing.

        Raises:
            StorageError: the storage cannot be opened or holds no such study.
        """
        name = run_name if url else STUDY_NAME
        if url is None:
            _check_journal(journal_path(folder))
        return cls(
            _guarded(
                lambda: optuna.load_study(
                    storage=_open_storage(folder, url, read_only),
                    study_name=name,
                    sampler=sampler,
                ),
                url,
            ),
            space,
            goals,
        )

    def fence(self, check_writer: Callable[[], None], token: str) -> None:
        """Call ``check_writer`` before each write, which raises where another driver writes.

        ``token`` names this driver in the study: one that begins later on a copy of the run
        directory puts its own there, and this one stops.
        """
        check_writer()
        self._study.set_user_attr(_WRITER, token)

        def check() -> None:
            check_writer()
            if self._is_shared and self._study.user_attrs.get(_WRITER) != token:
                raise RunBusyError(
                    f"study {self._study.study_name} is being written by another search, begun "
                    f"later on a copy of the run: this one stops and writes no more"
                )

        self.check_writer = check

    @property
    def _is_shared(self) -> bool:
        """Whether other run directories can name the same study."""
        return not isinstance(self._study._storage, JournalStudies)

    def enqueue(self, genes: dict[str, Any], *, baseline: bool = True) -> None:
        """Have an ``ask`` to come return these genes, in the order of enqueueing."""
        self.check_writer()
        self._study.enqueue_trial(genes, user_attrs={_BASELINE: True} if baseline else None)

    def waiting(self) -> list[dict[str, Any]]:
        """Genes that are enqueued and were not asked for yet."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return [dict(trial.system_attrs["fixed_params"]) for trial in trials]

    def discard(self, number: int) -> None:
        """Forget a proposal that was never judged: it leaves no record."""
        self.check_writer()
        self._study.tell(number, state=TrialState.FAIL)
        del self._asked[number]

    def ask(self) -> Proposal:
        """The sampler's next proposal, a RUNNING trial from now on."""
        self.check_writer()
        with self._cheaply():
            trial = self._study.ask(self._distributions)
        self._asked[trial.number] = trial
        return Proposal(trial.number, dict(trial.params), _BASELINE in trial.user_attrs)

    def begin(self, genes: dict[str, Any]) -> int:
        """Start a trial of these genes at once, whatever is enqueued; returns its number."""
        self.check_writer()
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING, params=genes, distributions=self._distributions
            )
        )
        # There is one writer, so that the last is ours.
        frozen = self._study.get_trials(deepcopy=False)[-1]
        self._asked[frozen.number] = optuna.Trial(self._study, frozen._trial_id)
        return frozen.number

    def _cheaply(self) -> contextlib.AbstractContextManager[None]:
        storage = self._study._storage
        backend = getattr(storage, "_backend", None)
        return backend.as_one_entry() if isinstance(backend, JournalFile) else nullcontext()

    def save(self, record: Trial) -> None:
        """Store ``record`` of a trial that has been asked; end the trial unless it is running."""
        self.check_writer()
        # The record goes first: a kill between the two writes leaves a RUNNING trial whose record
        # is whole, and ``settle`` ends it on resume.
        self._asked[record.number].set_user_attr(RECORD, record.to_dict())
        self._tell(record)

    def attempts(self, number: int) -> dict[str, Any]:
        """What ``save_attempts`` stored of a trial that has not ended, empty before."""
        found = self._asked[number].user_attrs.get(_ATTEMPTS, {})
        return found if isinstance(found, dict) else {}

    def save_attempts(self, number: int, attempts: dict[str, Any]) -> None:
        """Store how often a trial that has not ended was tried; see ``nas.cluster.attempts``."""
        self.check_writer()
        self._asked[number].set_user_attr(_ATTEMPTS, attempts)

    def settle(self) -> list[Trial]:
        """End trials whose record is whole but whose state is not; return those in flight."""
        self.check_writer()
        in_flight = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = record_of(frozen)
            if record is None:
                # Asked but never dispatched: nothing was spent on it. What was asked for by name
                # is asked for again.
                self._study.tell(frozen.number, state=TrialState.FAIL)
                if "fixed_params" in frozen.system_attrs:
                    genes = dict(frozen.system_attrs["fixed_params"])
                    self.enqueue(genes, baseline=_BASELINE in frozen.user_attrs)
            elif record.state == "running":
                self._asked[record.number] = optuna.Trial(self._study, frozen._trial_id)
                in_flight.append(record)
            else:
                self._asked[record.number] = optuna.Trial(self._study, frozen._trial_id)
                self._tell(record)
        return in_flight

    def records(self) -> list[Trial]:
        """Every trial's record, by number."""
        found = (record_of(frozen) for frozen in self._study.get_trials(deepcopy=False))
        return [record for record in found if record is not None]

    def ended_at_s(self) -> dict[int, float]:
        """When each trial ended, in seconds since 1970, by number."""
        return {
            frozen.number: frozen.datetime_complete.timestamp()
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.datetime_complete is not None
        }

    def _tell(self, record: Trial) -> None:
        if record.state == "complete" and record.finalist_of is not None:
            # Without values: no sampler may compare them with those of inherited weights.
            self._study.tell(record.number, state=TrialState.PRUNED)
        elif record.state == "complete":
            for name, excess in self._goals.excess(record).items():
                self._asked[record.number].set_constraint(name, excess)
            self._study.tell(record.number, list(self._goals.values(record)))
        elif record.state in ("dropped", "stopped"):
            self._study.tell(record.number, state=TrialState.PRUNED)
        elif record.state == "failed":
            self._study.tell(record.number, state=TrialState.FAIL)
        if record.state != "running":
            del self._asked[record.number]


def read_trials(
    folder: Path, url: str | None, run_name: str
) -> tuple[list[Trial], dict[int, float]]:
    """Every trial's record, and when it ended in seconds since 1970, both by number.

    Raises:
        StorageError: the storage cannot be opened or holds no such study.
    """
    if url is None:
        try:
            return read_journal(journal_path(folder))
        except (ForeignJournalError, OSError):
            # Optuna reads it, or says what is wrong with it.
            pass
    store = StudyStore.load(folder, url, run_name, read_only=True)
    return store.records(), store.ended_at_s()


def record_of(frozen: optuna.trial.FrozenTrial) -> Trial | None:
    """What is stored of one of our trials; ``None`` where nothing is."""
    data = frozen.user_attrs.get(RECORD)
    return None if data is None else Trial.from_dict(data)


def _holds_study(folder: Path, url: str | None, name: str) -> bool:
    if url is None and not journal_path(folder).is_file():
        return False
    studies = _guarded(lambda: _open_storage(folder, url).get_all_studies(), url)
    return any(study.study_name == name for study in studies)


def _check_journal(path: Path) -> None:
    """Refuse what ``read_journal`` refuses: a search goes on with a study that can be shown."""
    if not path.is_file():
        raise StorageError(
            f"run folder {path.parent} has no {path.name}: where its search ended while the run "
            f"was made, nas resume goes on; else put the file back"
        )
    with contextlib.suppress(ForeignJournalError):
        # A reader of its own: that of this process would keep every record as long as it lasts.
        JournalRecords().read(path)


def _open_storage(
    folder: Path, url: str | None, read_only: bool = False
) -> optuna.storages.BaseStorage:
    if url is not None:
        return _open_database(folder, url, read_only)
    return JournalStudies(JournalFile(journal_path(folder)))


def _open_database(folder: Path, url: str, read_only: bool) -> optuna.storages.BaseStorage:
    """Open the database at ``url``, once it is known to be one that the user named."""
    check_dialect(url)
    if not is_sqlite(url):
        check_server(url)
        # The password goes into the URL only now.
        full = str(with_password(url))
        return open_for_reading(full) if read_only else open_database(full)
    file = None
    if read_only or isinstance(url, Recorded):
        file = sqlite_path(url, folder)
        url = f"sqlite:///{file}"
    return open_for_reading(url, file) if read_only else open_database(url)


def _guarded(open_study: Callable[[], T], url: str | None) -> T:
    """Open a study; what goes wrong becomes one line, with no password in it."""
    where = "the run's study file" if url is None else f"storage {shown(url)}"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return open_study()
    except StorageHostError as error:
        raise StorageError(str(error)) from None
    except StorageError:
        raise
    except optuna.exceptions.DuplicatedStudyError:
        raise StorageError(f"{where} already holds a study of that name") from None
    except KeyError:
        raise StorageError(f"{where} holds no study of this run") from None
    except Exception as error:
        # SQLAlchemy and drivers raise many types here; each means that it cannot be opened.
        secret = None if url is None else with_password(url)
        # The cause stays out of tracebacks where it would show what was hidden.
        cause = error if scrub(str(error), secret) == str(error) else None
        raise StorageError(f"{where} cannot be opened: {first_line(error, url)}") from cause


def first_line(error: BaseException, url: str | None) -> str:
    """What ``error`` says, in one line, with nothing secret of ``url`` in it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return scrub(lines[0], None if url is None else with_password(url))


def is_away(error: BaseException) -> bool:
    """Whether ``error`` is of storage that may be back: what it stored before is whole."""
    return is_os_error(error) or isinstance(error, AwayError) or is_database_away(error)
