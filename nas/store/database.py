"""Studies in a database: access checks, and retries while the database is away.

Optuna's database storage raises at once if the server does not answer. Each of its operations is
one transaction, rolled back on failure, so that ``nas.core.retry`` may repeat it. If only the
confirmation was lost, the repeated operation detects that it was applied.
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
    """Open the database at ``url`` if the user named it; ``read_only`` changes nothing.

    Raises:
        KeyError: it is opened read-only and has no tables of Optuna.
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
    """Convert errors of opening a database to one line without a password.

    Raises:
        StorageError: replaces every other error.
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
        # SQLAlchemy and drivers raise many types; each means that it cannot be opened. A cause
        # that contains secrets is omitted from tracebacks.
        is_plain = scrub(str(error), with_password(url)) == str(error)
        raise StorageError(f"{where} cannot be opened: {first_line(error, url)}") from (
            error if is_plain else None
        )


def first_line(error: BaseException, url: str | None) -> str:
    """Return the first line of ``error`` without secrets of ``url``."""
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
    # Optuna would create missing tables.
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
    """Return whether a retry may succeed: the database is away, busy or full, but not damaged."""
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
    """Delegates every operation of ``BaseStorage``, with retries."""

    _inner: BaseStorage


for _name in sorted(name for name in vars(BaseStorage) if not name.startswith("_")):
    setattr(_Delegating, _name, _patiently(_name))
# Python collected the abstract methods before they were defined.
_Delegating.__abstractmethods__ = frozenset()


class _Patient(_Delegating):
    def __init__(self, inner: BaseStorage) -> None:
        self._inner = inner

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See ``BaseStorage``; a first attempt may have been applied without an answer."""
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
