"""Attempts of each trial, so that a trial that kills its worker or its machine ends as failed.

The counts are in the study and survive the driver. A death is *sure* where only this trial can be
the cause: Ray names its actor, or it ran alone when the driver died. Otherwise it is *unsure*, and
no trial fails by unsure deaths. Instead the last attempts of a trial run alone, without any other
of the search, which makes them sure. A trial that saved a later epoch than at its last death has
made progress, and its counts restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from nas.core.files import Place
from nas.core.plain import from_plain
from nas.evaluation.evaluator import kept_epoch
from nas.evaluation.executor import Lost
from nas.records.trial import Trial

# Sure deaths after which a trial is failed.
ATTEMPTS = 3


class Study(Protocol):
    """Storage of the counts."""

    def attempts(self, number: int) -> dict[str, Any]:
        """Return the saved counts of trial ``number``, empty before the first."""

    def save_attempts(self, number: int, attempts: dict[str, Any]) -> None:
        """Save ``attempts`` of trial ``number``, durable when this returns."""


@dataclass(frozen=True, slots=True)
class Tried:
    """Deaths of one trial since ``epoch``, the last one saved; ``is_out`` while it runs."""

    sure: int = 0
    unsure: int = 0
    epoch: int = 0
    is_out: bool = True

    @property
    def is_suspect(self) -> bool:
        """Whether the next attempt is made alone."""
        return max(self.sure, self.unsure) >= ATTEMPTS - 1

    @property
    def is_spent(self) -> bool:
        """Whether the trial has failed."""
        return self.sure >= ATTEMPTS


class Attempts:
    """Attempts of the running trials of one search."""

    def __init__(self, study: Study, trials_folder: Place) -> None:
        """``trials_folder`` has the checkpoints of trials."""
        self._study, self._trials_folder = study, trials_folder
        self._counts: dict[int, Tried] = {}

    def driver_died(self, in_flight: Sequence[Trial]) -> None:
        """Count the deaths of trials that a killed driver left running.

        A driver that ends by itself calls ``interrupted``.
        """
        out = [record.number for record in in_flight if self.of(record.number).is_out]
        for number in out:
            self._count(number, is_sure=len(out) == 1)

    def workers_died(self, lost: Lost) -> None:
        """Count deaths that this driver saw; of several trials, the named ones are the cause."""
        is_sure = len(lost.candidates) == 1 or len(lost.named) == 1
        for candidate in lost.candidates:
            if is_sure and lost.named and candidate not in lost.named:
                # Ended with the one that is named.
                self.interrupted([candidate.number])
            else:
                self._count(candidate.number, is_sure=is_sure)

    def begin(self, number: int) -> None:
        """Mark trial ``number`` as running; for a first attempt its record in the study does."""
        tried = self._counts.get(number)
        if tried is not None and not tried.is_out:
            self._keep(number, replace(tried, is_out=True))

    def interrupted(self, numbers: Sequence[int]) -> None:
        """Mark these trials as not killed: the driver ends by itself while they run."""
        for number in numbers:
            self._keep(number, replace(self.of(number), is_out=False))

    def of(self, number: int) -> Tried:
        """Return the counts of trial ``number``, which has not ended.

        Raises:
            ValueError: the study has others than ``Tried``.
        """
        if number not in self._counts:
            counts = self._study.attempts(number)
            self._counts[number] = from_plain(Tried, counts, f"attempts of trial {number}")
        return self._counts[number]

    def is_suspect(self, number: int) -> bool:
        """Whether trial ``number`` must run without any other."""
        tried = self._counts.get(number)
        return tried is not None and tried.is_suspect

    def ended(self, number: int) -> None:
        """Forget the counts of trial ``number``, which has ended."""
        self._counts.pop(number, None)

    def _count(self, number: int, *, is_sure: bool) -> None:
        before = self.of(number)
        epoch = kept_epoch(self._trials_folder / str(number))
        counts = Tried(epoch=epoch) if epoch > before.epoch else before
        sure, unsure = counts.sure + is_sure, counts.unsure + (not is_sure)
        self._keep(number, replace(counts, sure=sure, unsure=unsure, is_out=False))

    def _keep(self, number: int, tried: Tried) -> None:
        self._counts[number] = tried
        self._study.save_attempts(number, asdict(tried))
