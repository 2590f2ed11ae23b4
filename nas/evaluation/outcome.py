"""The outcome of one candidate, whatever its evaluation raises, written to its folder."""

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
    """Return what ``evaluate`` does, or a failure; ``folder`` contains the same.

    ``cause_of`` returns what a failure comes from, or raises what is no candidate's fault.
    ``may_end`` is held while the record is written.

    Raises:
        AwayError: storage was full, away or refusing for too long; the trial is unfinished.
    """
    _prepare(folder)
    known = outcome_in(folder, candidate)
    if known is not None:
        # It ended before its worker died: it is not evaluated twice.
        return known
    try:
        # Again from what it kept, where storage was away: the candidate is not to blame.
        ended = persist(evaluate, is_storage=False)
    except MemoryError:
        ended = failed_in(folder, "out of memory")
    except TimeLimitError as error:
        ended = failed_in(folder, str(error))
    except Exception as error:
        cause = cause_of(error)
        if is_of_storage(cause, local(folder)):
            # Nor is the candidate to blame for a full disk, wherever it was met.
            raise as_away(cause) from error
        ended = failed_in(folder, f"{type(cause).__name__}: {cause}")
    with may_end or nullcontext():
        write_result(folder, Trial(candidate, ended))
    return ended


def failed_in(folder: Place, reason: str) -> Outcome:
    """Return the outcome of a trial that failed, with what its attempts in ``folder`` spent."""
    return Outcome.failed(reason, spent_in(folder) or Spent())


def folder_of(candidate: Candidate, trials_folder: Place) -> Place:
    """Return the folder of a trial or of a replica of one."""
    return replica_folder(trials_folder / str(candidate.number), candidate.replica)


def finished_in(candidate: Candidate, trials_folder: Place) -> Outcome | None:
    """Return the outcome of ``candidate`` where it ended, ``None`` where it did not."""
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
    """``folder`` where it is on a disk, ``None`` in an object store."""
    return folder if isinstance(folder, Path) else None


def _prepare(folder: Place) -> None:
    """Make a trial's folder, or rid it of what a killed worker was writing just then."""
    if not isinstance(folder, Path):
        return
    persist(lambda: folder.mkdir(parents=True, exist_ok=True), is_os_error)
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)
