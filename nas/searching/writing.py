"""Write access to a run: its lock, and errors of its storage in one line."""

from __future__ import annotations

import logging
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nas.core.retry import AwayError, in_words, is_of_storage
from nas.core.versions import note_of
from nas.searching.controller.session import Listener
from nas.store import new_run
from nas.store.lock import WriterLock, sole_writer
from nas.store.run import Run
from nas.store.storage import StorageError, first_line, is_away


def checks_of(run: Run, lock: WriterLock, held: ExitStack) -> Callable[[], None]:
    """Lock where workers write, too, and return what raises where a lock is lost.

    A copy of the run directory names the same files elsewhere.
    """
    if run.config.files_at is None:
        return lock.check
    run.place.mkdir(parents=True, exist_ok=True)
    files_lock = held.enter_context(sole_writer(run.place))

    def check() -> None:
        lock.check()
        files_lock.check()

    return check


def storage_waits(
    listener: Listener | None, what: str = "the search"
) -> Callable[[str], None] | None:
    """Return a function that reports to ``listener`` why ``what`` waits for storage."""
    if listener is None:
        return None
    return lambda reason: listener.on_wait(f"{what} waits for storage: {reason}")


@contextmanager
def said_if_away(run: Run) -> Iterator[None]:
    """Turn an error of storage that stayed away into one line."""
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise
        raise StorageError(
            f"storage of run {run.folder} is full or away, longer than it is waited for "
            f"({first_line(error, run.config.storage)}); nothing is lost: nas resume "
            f"{shlex.quote(str(run.folder))} goes on when there is room or it is back"
        ) from None


@contextmanager
def said_if_not_writable(folder: Path) -> Iterator[None]:
    """Turn an error of a resumed run's storage into one line; nothing runs yet, so no wait."""
    try:
        yield
    except Exception as error:
        if isinstance(error, AwayError) or not is_of_storage(error, folder):
            raise
        raise StorageError(
            f"run folder {folder} cannot be written now ({in_words(error)}); nothing is lost: "
            f"nas resume {shlex.quote(str(folder))} goes on when there is room and a right to "
            f"write"
        ) from error


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Turn an error of a new run's folder into one line.

    Raises:
        ValueError: it cannot.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, AwayError) or not is_of_storage(error, folder):
            raise
        raise ValueError(
            f"run folder must be writable, got {folder}: {in_words(error)}"
        ) from error


@contextmanager
def writer(folder: Path, listener: Listener | None) -> Iterator[WriterLock]:
    """Hold the lock of a run that resumes.

    Raises:
        StorageError: the run folder cannot be written.
        RunBusyError: another search writes to it.
    """
    with ExitStack() as held:
        with said_if_not_writable(folder):
            tell = None if listener is None else listener.on_wait
            lock = held.enter_context(sole_writer(folder, tell))
        yield lock


@contextmanager
def first_writer(folder: Path) -> Iterator[WriterLock]:
    """Make the folder of a new run and hold its lock.

    Raises:
        ValueError: it cannot be written, or another search has begun a run there meanwhile.
        RunBusyError: another search is beginning one.
    """
    was_there = folder.exists()
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(sole_writer(folder))
        except OSError as error:
            if not was_there:
                # Where there was no room for a lock, there may be an empty file of that name.
                shutil.rmtree(folder, ignore_errors=True)
            raise ValueError(
                f"run folder must be writable, got {folder}: {error.strerror}"
            ) from None
        new_run.check_new(folder)
        yield lock


def say_versions(run: Run, listener: Listener | None) -> None:
    """Report libraries whose versions differ from those of the last driver."""
    note = note_of(run.starts)
    if note is None:
        return
    if listener is None:
        logging.getLogger(__name__).warning(note)
    else:
        listener.on_wait(note)
