"""Search loop: propose, prune, dispatch, evaluate, stop early, tell.

In a ``Session``, a sampler proposes and a gate prunes. An ``Executor`` evaluates, and a
``Stopper`` compares learning curves at rungs. The session stores each result, on which sampler
and gate are refitted. A trial whose worker died resumes from its last checkpoint (``attempts``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from nas.core import interrupts
from nas.core.files import Place
from nas.core.retry import patience
from nas.evaluation.evaluator import forget_unfinished, unfinished
from nas.evaluation.executor import Ended, Executor, Lost, Stopped
from nas.evaluation.outcome import failed_in, finished_in, folder_of
from nas.records.candidate import Candidate
from nas.records.replicas import write_result
from nas.records.rungs import Progress
from nas.records.trial import Trial
from nas.searching.controller.attempts import ATTEMPTS, Attempts
from nas.searching.controller.refine import Refinement
from nas.searching.controller.session import Listener, Session
from nas.searching.early_stopping import Stopper
from nas.store.storage import is_away

_DIED = "its worker died (out of memory, a signal, or a lost node)"


def search(
    session: Session, executor: Executor, trials_folder: Place, stopper: Stopper | None = None
) -> bool:
    """Search until ``session`` has no more candidates; return ``False`` after Ctrl-C.

    Running trials stay unfinished after an error.

    Raises:
        AwayError: storage was unavailable for longer than the retry timeout.
        Exception: the study or the executor raised it.
    """
    attempts = Attempts(session, trials_folder)
    running: dict[int, Candidate] = {}

    def continues(candidate: Candidate, progress: Progress) -> bool:
        # Early stopping at each rung. The study stores the verdict before the trial ends.
        stopped = None if stopper is None else stopper.judge(candidate.number, progress)
        if stopped is not None:
            session.finish(Trial(candidate, stopped))
        return stopped is None

    with interrupts.deferred(), _marking_interrupted(session, attempts):
        _resume_trials(session, attempts, trials_folder, stopper)
        while True:
            while len(running) < executor.slots and not _runs_alone(running, attempts):
                # Propose and prune, unless a trial must be evaluated again.
                candidate = session.unfinished()
                while candidate is None and (proposal := session.propose()) is not None:
                    candidate = session.prune(proposal)
                candidate = candidate or session.next_finalist()
                if candidate is None:
                    break
                if attempts.is_suspect(candidate.number) and running:
                    # It may kill other trials too, so it waits until they have ended.
                    session.dispatch_again(candidate, last=True)
                    break
                # Dispatch.
                attempts.begin(candidate.number)
                running[candidate.number] = candidate
                executor.submit(candidate)
            if not running:
                return True
            # Evaluate, and measure untrained candidates beside.
            try:
                session.calibrate()
                event = executor.wait(continues)
            except KeyboardInterrupt:
                break
            # Tell: sampler, gate and stopper read the session's records.
            match event:
                case Ended(candidate, outcome):
                    if running.pop(candidate.number, None) and _is_running(session, candidate):
                        session.finish(Trial(candidate, outcome))
                        attempts.ended(candidate.number)
                case Stopped(candidate):
                    running.pop(candidate.number, None)
                    attempts.ended(candidate.number)
                    forget_unfinished(trials_folder / str(candidate.number))
                case Lost(candidates, named):
                    died = [c for c in candidates if running.pop(c.number, None)]
                    died = [c for c in died if _is_running(session, c)]
                    attempts.workers_died(Lost(tuple(died), named))
                    for candidate in died:
                        _retry_or_fail(candidate, session, attempts, trials_folder)
    adopt_results(session, trials_folder)
    return False


def refine(
    refinement: Refinement, executor: Executor, trials_folder: Place, listener: Listener
) -> bool:
    """Evaluate replicas until ``refinement`` has none; return ``False`` after Ctrl-C."""
    deaths: Counter[tuple[int, int]] = Counter()
    waiting: list[Candidate] = []
    n_running = 0
    with interrupts.deferred():
        while True:
            while n_running < executor.slots:
                replica = waiting.pop(0) if waiting else refinement.next_replica()
                if replica is None:
                    break
                executor.submit(replica)
                n_running += 1
            listener.on_refine(refinement.done, refinement.budget)
            if not n_running:
                return True
            try:
                event = executor.wait(lambda *_: True)
            except KeyboardInterrupt:
                return False
            match event:
                case Ended(replica, _):
                    n_running -= 1
                    refinement.ended(replica)
                case Lost(candidates, named):
                    n_running -= len(candidates)
                    for replica in candidates:
                        key = (replica.number, replica.replica)
                        deaths[key] += not named or replica in named
                        if deaths[key] < ATTEMPTS:
                            waiting.append(replica)
                            continue
                        _write_lost(replica, trials_folder)
                        refinement.ended(replica)


def adopt_results(session: Session, trials_folder: Place) -> None:
    """Finish trials whose worker wrote a result that no driver received."""
    for trial in session.in_flight():
        outcome = finished_in(trial.candidate, trials_folder)
        if outcome is not None:
            session.finish(Trial(trial.candidate, outcome))


def _resume_trials(
    session: Session, attempts: Attempts, trials_folder: Place, stopper: Stopper | None
) -> None:
    """Dispatch the trials that an earlier driver left running, suspected killers last."""
    in_flight = session.in_flight()
    attempts.driver_died(in_flight)
    in_flight.sort(key=lambda record: attempts.of(record.number).is_suspect)
    for record in in_flight:
        _retry_or_fail(record.candidate, session, attempts, trials_folder)
        progress = unfinished(trials_folder / str(record.number))
        if stopper is not None and progress is not None:
            stopper.reach(record.number, progress.curve)


def _retry_or_fail(
    candidate: Candidate, session: Session, attempts: Attempts, trials_folder: Place
) -> None:
    if not attempts.of(candidate.number).is_spent:
        session.dispatch_again(candidate, last=True)
        return
    folder = trials_folder / str(candidate.number)
    session.finish(Trial(candidate, failed_in(folder, _DIED)))
    attempts.ended(candidate.number)
    forget_unfinished(folder)


def _write_lost(replica: Candidate, trials_folder: Place) -> None:
    folder = folder_of(replica, trials_folder)
    folder.mkdir(parents=True, exist_ok=True)
    if finished_in(replica, trials_folder) is None:
        write_result(folder, Trial(replica, failed_in(folder, _DIED)))


def _runs_alone(running: Mapping[int, Candidate], attempts: Attempts) -> bool:
    """Return whether a running trial must run without any other."""
    return any(attempts.is_suspect(number) for number in running)


def _is_running(session: Session, candidate: Candidate) -> bool:
    return session.record(candidate.number).outcome is None


@contextmanager
def _marking_interrupted(session: Session, attempts: Attempts) -> Iterator[None]:
    """Record on exit that no trial killed the driver.

    This includes Ctrl-C and unavailable storage, but not other errors, which a trial may cause.
    """

    def mark() -> None:
        attempts.interrupted([record.number for record in session.in_flight()])

    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or is_away(error):
            with suppress(Exception), patience(wait_s=0.0):
                mark()
        raise
    mark()
