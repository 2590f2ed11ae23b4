"""Early stopping: stop a trial that another trial dominates at the same epoch.

Trials are compared at rungs (``HalvingConfig.rungs``) by validation quality and by joules per
sample, measured or predicted. A trial is stopped if another trial needs no more joules and was
better at the same rung by half a standard error of the difference. On recorded learning curves
neither ranks (successive halving) nor forecasts of final quality do better
(``experiments.benchmarks.sampling.early_stopping``).

A worker also writes each trial's ``Progress`` to disk, so a resumed search reads all rungs from
its records and from the folders of unfinished trials.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from nas.records.candidate import Outcome, Training
from nas.records.rungs import HalvingConfig, Progress, RungPoint
from nas.records.trial import Trial
from nas.searching.controller.session import Session
from nas.searching.gating.surrogates import ArchitectureSurrogates

# Least quality difference for dominance, in standard errors of the difference.
LEAST_ERRORS = 0.5


@dataclass(frozen=True, slots=True)
class Contender:
    """Trial at a rung, with its joules per sample."""

    number: int
    point: RungPoint
    energy_j: float


def dominating(
    trial: Contender, others: Iterable[Contender], least_errors: float = LEAST_ERRORS
) -> Contender | None:
    """Return the first of ``others`` that dominates ``trial`` beyond noise, if any.

    A dominating trial needs no more joules, and its quality is higher by ``least_errors``
    standard errors of the difference.
    """
    for other in others:
        error = math.hypot(trial.point.standard_error, other.point.standard_error)
        gap = other.point.quality - trial.point.quality
        if other.energy_j <= trial.energy_j and gap > 0 and gap >= least_errors * error:
            return other
    return None


class Stopper:
    """Early stopping of the trials of one session, in the driver's thread."""

    def __init__(
        self, config: HalvingConfig, session: Session, surrogates: ArchitectureSurrogates
    ) -> None:
        """Fill the rungs from the session's records."""
        self._config, self._session, self._surrogates = config, session, surrogates
        self._rungs: dict[int, dict[int, RungPoint]] = defaultdict(dict)
        for record in session.records():
            self.reach(record.number, record.curve)

    def reach(self, number: int, curve: tuple[RungPoint, ...]) -> None:
        """Add trial ``number`` to the rungs of ``curve``, without a decision."""
        for point in curve:
            self._rungs[point.epoch][number] = point

    def judge(self, number: int, progress: Progress) -> Outcome | None:
        """Return the outcome that stops trial ``number``, or ``None`` if training continues."""
        candidate = self._session.record(number)
        self.reach(number, progress.curve)
        if self._is_exempt(candidate):
            return None
        point = progress.curve[-1]
        rung = self._rungs[point.epoch]
        energies_j = self._surrogates.energies_j([self._session.record(n) for n in rung])
        trial = Contender(number, point, energies_j[number])
        others = (Contender(n, p, energies_j[n]) for n, p in rung.items() if n != number)
        better = dominating(trial, others)
        if better is None:
            return None
        reason = (
            f"quality {point.quality:.3f} at epoch {point.epoch}, where trial "
            f"{better.number} had {better.point.quality:.3f} for no more joules"
        )
        training = Training(progress.curve, progress.planned_epochs, progress.start)
        return Outcome("stopped", reason, training=training, spent=progress.spent)

    def _is_exempt(self, candidate: Trial) -> bool:
        """Return whether it is a baseline, an audit of the gate, or a startup trial."""
        earlier = sum(
            record.state != "dropped" and record.number < candidate.number
            for record in self._session.records()
        )
        return candidate.baseline or candidate.audit or earlier < self._config.startup_trials
