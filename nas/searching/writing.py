"""Write access to a run: its lock, and one-line messages for storage errors."""

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


def checks_of(run: Run, lock: WriterLock, stack: ExitStack) -> Callable[[], None]:
    """Also lock the folder that workers write, and return a check of both locks.

    A copy of the run directory refers to the same folder of files. The check raises if a lock is
    lost.
    """
    if run.config.files_at is None:
        return lock.check
    run.place.mkdir(parents=True, exist_ok=True)
    files_lock = stack.enter_context(sole_writer(run.place))

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
    """Convert an error of unavailable storage to a one-line ``StorageError``."""
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise
        raise StorageError(
            f"storage of run {run.folder} is full or away, and the timeout has passed "
            f"({first_line(error, run.config.storage)}); nothing is lost: once it is available, "
            f"run nas resume {shlex.quote(str(run.folder))}"
        ) from None


@contextmanager
def said_if_not_writable(folder: Path) -> Iterator[None]:
    """Convert an error of a resumed run's storage to one line; nothing runs yet, so no retry."""
    try:
        yield
    except Exception as error:
        if isinstance(error, AwayError) or not is_of_storage(error, folder):
            raise
        raise StorageError(
            f"run folder {folder} cannot be written now ({in_words(error)}); nothing is lost: "
            f"once there is space and write permission, run nas resume "
            f"{shlex.quote(str(folder))}"
        ) from error


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Convert an error of a new run's folder to one line.

    Raises:
        ValueError: the folder cannot be written.
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
    """Hold the lock of a resumed run.

    Raises:
        StorageError: the run folder cannot be written.
        RunBusyError: another search writes to the run.
    """
    with ExitStack() as stack:
        with said_if_not_writable(folder):
            tell = None if listener is None else listener.on_wait
            lock = stack.enter_context(sole_writer(folder, tell))
        yield lock


@contextmanager
def first_writer(folder: Path) -> Iterator[WriterLock]:
    """Create the folder of a new run and hold its lock.

    Raises:
        ValueError: the folder cannot be written, or another search started a run there.
        RunBusyError: another search is starting a run there.
    """
    was_there = folder.exists()
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(sole_writer(folder))
        except OSError as error:
            if not was_there:
                # A full disk may leave an empty lock file.
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
