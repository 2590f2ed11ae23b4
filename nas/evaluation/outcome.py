"""Evaluate one candidate, turn errors into failed outcomes, and write the outcome to disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from nas.core.files import Place
from nas.core.retry import as_away, is_of_storage, is_os_error, persist
from nas.core.time_limit import TimeLimitError
from nas.records.candidate import Candidate, Outcome
from nas.records.replicas import replica_folder, result_in, write_result
from nas.records.spent import Spent, spent_in
from nas.records.trial import Trial


def outcome(
    candidate: Candidate,
    folder: Place,
    evaluate: Callable[[], Outcome],
    *,
    cause_of: Callable[[Exception], BaseException] = lambda error: error,
    may_end: AbstractContextManager[object] | None = None,
) -> Outcome:
    """Return the outcome of ``evaluate``, or a failed one, after writing it to ``folder``.

    ``cause_of`` returns the cause of an error; it raises errors that the candidate did not cause.
    ``may_end`` is entered while the record is written.

    Raises:
        AwayError: storage failed or refused until the timeout; the trial stays unfinished.
    """
    _prepare(folder)
    earlier = outcome_in(folder, candidate)
    if earlier is not None:
        # The trial ended before its worker died: it is not evaluated twice.
        return earlier
    try:
        # Resume from the checkpoint after a storage failure: the candidate did not cause it.
        ended = persist(evaluate, is_storage=False)
    except MemoryError:
        ended = failed_in(folder, "out of memory")
    except TimeLimitError as error:
        ended = failed_in(folder, str(error))
    except Exception as error:
        cause = cause_of(error)
        if is_of_storage(cause, local(folder)):
            # A full disk is no failure of the candidate, wherever the error was raised.
            raise as_away(cause) from error
        ended = failed_in(folder, f"{type(cause).__name__}: {cause}")
    with may_end or nullcontext():
        write_result(folder, Trial(candidate, ended))
    return ended


def failed_in(folder: Place, reason: str) -> Outcome:
    """Return a failed outcome with the cost of all attempts in ``folder``."""
    return Outcome.failed(reason, spent_in(folder) or Spent())


def folder_of(candidate: Candidate, trials_folder: Place) -> Place:
    """Return the folder of a trial or of a replica of one."""
    return replica_folder(trials_folder / str(candidate.number), candidate.replica)


def finished_in(candidate: Candidate, trials_folder: Place) -> Outcome | None:
    """Return the outcome of ``candidate``, ``None`` before it ends."""
    return outcome_in(folder_of(candidate, trials_folder), candidate)


def outcome_in(folder: Place, candidate: Candidate) -> Outcome | None:
    """Return the outcome in ``folder`` if it is that of ``candidate``."""
    trial = result_in(folder)
    if trial is None or (trial.number, trial.replica, trial.architecture) != (
        candidate.number,
        candidate.replica,
        candidate.architecture,
    ):
        return None
    return trial.outcome


def local(folder: Place) -> Path | None:
    """Return ``folder`` if it is on a disk, ``None`` for an object store."""
    return folder if isinstance(folder, Path) else None


def _prepare(folder: Place) -> None:
    """Create a trial's folder, or remove temporary files that a killed worker left in it."""
    if not isinstance(folder, Path):
        return
    persist(lambda: folder.mkdir(parents=True, exist_ok=True), is_os_error)
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)
