"""A database that goes away for a while and comes back, seen from a search that goes on.

Optuna's database storage raises at once where the server is not there. Each of its operations is
one transaction, rolled back where it fails, so that it can be tried again as ``nas.core.retry``
says. One whose confirmation was lost has happened: told again, it is found to be so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import TrialState
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import InterfaceError, OperationalError

from nas.core.retry import is_passing_os_error, persist
from nas.store.sqlite_reading import reader_of

_TABLES = frozenset({"studies", "trials", "version_info", "alembic_version"})


def open_database(url: str) -> BaseStorage:
    """The storage at ``url``, whose connections are tried before they are used."""
    cached = get_storage(RDBStorage(url, engine_kwargs={"pool_pre_ping": True}))
    return _Patient(cached)  # type: ignore[abstract]


def open_for_reading(url: str, file: Path | None = None) -> BaseStorage:
    """The storage at ``url``, in which nothing is made or changed; ``file`` is that of SQLite.

    Raises:
        KeyError: it has no tables of Optuna's.
    """
    options: dict[str, Any] = {"pool_pre_ping": True}
    if file is None:
        options["execution_options"] = {"postgresql_readonly": True}
    else:
        options["creator"] = reader_of(file)
    # Optuna makes the tables that it misses, so it is not asked before they are there.
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
    """Every operation of ``BaseStorage`` handed on."""

    _inner: BaseStorage


for _name in sorted(name for name in vars(BaseStorage) if not name.startswith("_")):
    setattr(_Delegating, _name, _patiently(_name))
# Filled in above, after Python had looked.
_Delegating.__abstractmethods__ = frozenset()


class _Patient(_Delegating):
    def __init__(self, inner: BaseStorage) -> None:
        self._inner = inner

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See ``BaseStorage``; the first try may have been heard though its answer was lost."""
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
