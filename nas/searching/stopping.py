"""Early stopping of a search's trials: ``halving``'s rule, told what the search knows of joules.

A trial says how far it is by a ``Progress``, which its worker keeps on disk as well. A resumed
search fills its rungs from records and from what trials in flight left on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nas.searching.gate import Gate
from nas.searching.halving import Halving, HalvingConfig, RungPoint
from nas.searching.session import Session
from nas.searching.trial import TrialRecord
from nas.training.config import Start


@dataclass(frozen=True, slots=True)
class Progress:
    """A trial that trains: its curve up to now, how long it is to train, and what it has cost."""

    curve: tuple[RungPoint, ...]
    planned_epochs: int
    start: Start = "random"
    duration_s: float | None = None
    train_energy_j: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Progress:
        """Read ``to_dict``'s form."""
        curve = tuple(RungPoint(**point) for point in data["curve"])
        return cls(**{**data, "curve": curve})


# Hears of a trial's progress at each rung; may end the trial by raising.
Tell = Callable[[Progress], None]


class Stopper:
    """Judges the trials of one session. One thread, the driver's."""

    def __init__(self, config: HalvingConfig, session: Session, gate: Gate) -> None:
        """Take up the rungs where the session's records left them."""
        self._config, self._session, self._gate = config, session, gate
        self._rule = Halving(config)
        for record in session.records():
            self.reach(record.number, record.curve)

    def judge(self, number: int, progress: Progress) -> TrialRecord | None:
        """The record of trial ``number`` as stopped now, ``None`` where it goes on."""
        candidate = self._session.record(number)
        self.reach(number, progress.curve)
        if self._is_exempt(candidate):
            return None
        epoch = progress.curve[-1].epoch
        verdict = self._rule.verdict(number, epoch, self._energies_j(epoch))
        if verdict.goes_on:
            return None
        return replace(
            candidate,
            state="stopped",
            reason=verdict.reason,
            curve=progress.curve,
            planned_epochs=progress.planned_epochs,
            start=progress.start,
            duration_s=progress.duration_s,
            train_energy_j=progress.train_energy_j,
        )

    def reach(self, number: int, curve: tuple[RungPoint, ...]) -> None:
        """Trial ``number`` has come this far, though nothing is to be decided now."""
        for point in curve:
            self._rule.reach(number, point)

    def _is_exempt(self, candidate: TrialRecord) -> bool:
        """Asked for by the user, evaluated to judge the gate, or among the first."""
        earlier = sum(
            record.state != "dropped" and record.number < candidate.number
            for record in self._session.records()
        )
        return candidate.baseline or candidate.audit or earlier < self._config.startup_trials

    def _energies_j(self, epoch: int) -> dict[Hashable, float]:
        """Joules per sample of those at the rung: measured, else as the gate predicts them now.

        What was predicted when they started would not do: early predictions of one trial and late
        ones of another differ by what was learnt in between.
        """
        records = {r.number: r for r in self._session.records()}
        found: dict[Hashable, float] = {}
        unknown: list[TrialRecord] = []
        for number in self._rule.trials_at(epoch):
            record = records[number]  # type: ignore[index]
            if record.energy_j is None:
                unknown.append(record)
            else:
                found[number] = record.energy_j
        if unknown:
            predicted = self._gate.energies_j([record.architecture for record in unknown])
            found |= {r.number: float(j) for r, j in zip(unknown, predicted, strict=True)}
        return found
