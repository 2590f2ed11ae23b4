"""One candidate's outcome, whatever its evaluation raises; its record is on disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from nas.core.files import Place, write_json
from nas.core.retry import as_away, is_of_storage, is_os_error, persist
from nas.core.time_limit import TimeLimitError
from nas.records.failures import failed
from nas.records.replicas import RESULT, replica_folder, result_in
from nas.records.spent import with_spent
from nas.records.trial import TrialRecord


def outcome(
    candidate: TrialRecord,
    folder: Place,
    evaluate: Callable[[], TrialRecord],
    *,
    cause_of: Callable[[Exception], BaseException] = lambda error: error,
    may_end: AbstractContextManager[object] | None = None,
) -> TrialRecord:
    """Return what ``evaluate`` does, or ``candidate`` as a failure; ``folder`` contains the same.

    ``cause_of`` returns what a failure comes from, or raises what is no candidate's fault.
    ``may_end`` is held while the record is written.

    Raises:
        AwayError: storage was full, away or refusing for too long; the trial is unfinished.
    """
    _prepare(folder)
    known = result_in(folder)
    if known is not None and is_of(known, candidate):
        # It ended before, and whoever ran it died: it is not evaluated twice.
        return known
    try:
        # Again from what it kept, where storage was away: the candidate is not to blame.
        record = persist(evaluate, is_storage=False)
    except MemoryError:
        record = with_spent(failed(candidate, "out of memory"), folder)
    except TimeLimitError as error:
        record = with_spent(failed(candidate, str(error)), folder)
    except Exception as error:
        cause = cause_of(error)
        if is_of_storage(cause, local(folder)):
            # Nor is the candidate to blame for a full disk, wherever it was met.
            raise as_away(cause) from error
        record = with_spent(failed(candidate, f"{type(cause).__name__}: {cause}"), folder)
    with may_end or nullcontext():
        write_json(folder / RESULT, record.to_dict())
    return record


def folder_of(candidate: TrialRecord, trials_folder: Place) -> Place:
    """The folder of a trial or of a replica of one."""
    return replica_folder(trials_folder / str(candidate.number), candidate.replica)


def finished_in(candidate: TrialRecord, trials_folder: Place) -> TrialRecord | None:
    """The record of ``candidate`` where it ended, ``None`` where it did not."""
    found = result_in(folder_of(candidate, trials_folder))
    return found if found is not None and is_of(found, candidate) else None


def is_of(result: TrialRecord, candidate: TrialRecord) -> bool:
    """Whether ``result`` is the outcome of ``candidate``."""
    return (result.number, result.replica, result.architecture) == (
        candidate.number,
        candidate.replica,
        candidate.architecture,
    )


def local(folder: Place) -> Path | None:
    """``folder`` where it is on a disk, ``None`` in an object store."""
    return folder if isinstance(folder, Path) else None


def _prepare(folder: Place) -> None:
    """Make a trial's folder, or rid it of what a killed worker was writing just then."""
    if not isinstance(folder, Path):
        return
    persist(lambda: folder.mkdir(parents=True, exist_ok=True), is_os_error)
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)
