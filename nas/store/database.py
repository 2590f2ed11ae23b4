"""Studies in a database: which may be opened, and what waits while it is away.

Optuna's database storage raises at once where the server does not answer. Each of its operations
is one transaction, rolled back where it fails, so that ``nas.core.retry`` may repeat it. Where
only the confirmation was lost, the repeated operation sees that it has happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import TrialState
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import InterfaceError, OperationalError

from nas.core import names
from nas.core.retry import is_passing_os_error, persist
from nas.store.recorded import Recorded
from nas.store.records_file import StorageError
from nas.store.sqlite_reading import reader_of
from nas.store.storage_host import (
    StorageHostError,
    check_dialect,
    check_server,
    is_sqlite,
    sqlite_path,
)
from nas.store.storage_url import scrub, shown, with_password

_TABLES = frozenset({"studies", "trials", "version_info", "alembic_version"})


def open_database(folder: Path, url: str, read_only: bool = False) -> BaseStorage:
    """Open the database at ``url``, if the user named it; ``read_only`` makes and changes nothing.

    Raises:
        KeyError: it is only to be read and has no tables of Optuna's.
        StorageHostError: the user has not named its host.
    """
    check_dialect(url)
    if not is_sqlite(url):
        check_server(url)
        # The password goes into the URL only now.
        full = str(with_password(url))
        return _open_for_reading(full) if read_only else _open_for_writing(full)
    file = None
    if read_only or isinstance(url, Recorded):
        file = sqlite_path(url, folder)
        url = f"sqlite:///{file}"
    return _open_for_reading(url, file) if read_only else _open_for_writing(url)


@contextmanager
def named_errors(url: str) -> Iterator[None]:
    """Turn what goes wrong while a database is opened into one line, with no password in it.

    Raises:
        StorageError: instead of every other error.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    where = f"storage {shown(url)}"
    try:
        yield
    except StorageHostError as error:
        raise StorageError(str(error)) from None
    except optuna.exceptions.DuplicatedStudyError:
        raise StorageError(f"{where} already holds a study of that name") from None
    except KeyError:
        raise StorageError(f"{where} holds no study of this run") from None
    except Exception as error:
        # SQLAlchemy and drivers raise many types here; each means that it cannot be opened.
        # The cause stays out of tracebacks where it would show what was hidden.
        is_plain = scrub(str(error), with_password(url)) == str(error)
        raise StorageError(f"{where} cannot be opened: {first_line(error, url)}") from (
            error if is_plain else None
        )


def first_line(error: BaseException, url: str | None) -> str:
    """The first line of ``error`` with nothing secret of ``url`` in it."""
    return scrub(names.first_line(error), None if url is None else with_password(url))


def _open_for_writing(url: str) -> BaseStorage:
    # Connections are tried before they are used.
    cached = get_storage(RDBStorage(url, engine_kwargs={"pool_pre_ping": True}))
    return _Patient(cached)  # type: ignore[abstract]


def _open_for_reading(url: str, file: Path | None = None) -> BaseStorage:
    options: dict[str, Any] = {"pool_pre_ping": True}
    if file is None:
        options["execution_options"] = {"postgresql_readonly": True}
    else:
        options["creator"] = reader_of(file)
    # Optuna would make the tables that it misses.
    engine = create_engine(url, **options)
    try:
        with engine.connect() as connection:
            missing = _TABLES - set(inspect(connection).get_table_names())
    finally:
        engine.dispose()
    if missing:
        raise KeyError(min(missing))
    return get_storage(RDBStorage(url, engine_kwargs=options, skip_table_creation=True))


def is_database_away(error: BaseException) -> bool:
    """Whether the database may answer again: it is away, busy or full, and its data are right."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OperationalError | InterfaceError) or is_passing_os_error(cause):
            return True
        cause = cause.__cause__ if isinstance(cause, StorageInternalError) else None
    return False


def _patiently(name: str) -> Callable[..., Any]:
    def operate(self: _Patient, *arguments: Any, **named: Any) -> Any:
        operation = getattr(self._inner, name)
        return persist(lambda: operation(*arguments, **named), is_database_away)

    operate.__name__ = name
    operate.__doc__ = f"See ``BaseStorage.{name}``."
    return operate


class _Delegating(BaseStorage):
    """Passes every operation of ``BaseStorage`` on."""

    _inner: BaseStorage


for _name in sorted(name for name in vars(BaseStorage) if not name.startswith("_")):
    setattr(_Delegating, _name, _patiently(_name))
# Python has looked for abstract methods before they were filled in.
_Delegating.__abstractmethods__ = frozenset()


class _Patient(_Delegating):
    def __init__(self, inner: BaseStorage) -> None:
        self._inner = inner

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See ``BaseStorage``; the first try may have happened though its answer was lost."""
        tries = 0

        def once() -> bool:
            nonlocal tries
            tries += 1
            try:
                return self._inner.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries > 1 and self._inner.get_trial(trial_id).state == state:
                    return True
                raise

        return persist(once, is_database_away)
