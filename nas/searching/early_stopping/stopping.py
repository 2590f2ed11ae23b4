"""Early stopping of a search's trials, told what the search knows of joules and of curves.

The first ``RANKED`` are judged by ``halving``'s ranks: they spread over the space, and nothing is
known yet of how curves end. Ranks alone would not do for long. Proposals soon come close to the
front, which has more members than a rung lets pass, and the best of the past hold those places.
From then on a trial is forecast (``curves``) and stopped where what its remaining epochs are
expected to add is worth less than half of what new candidates bring for as many (``worth``). Half,
since forecasts are noisy and a trial that was stopped is gone.

A trial says how far it is by a ``Progress``, which its worker keeps on disk as well. A resumed
search fills its rungs from records and from what trials in flight left on disk.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from nas.records.candidate import Outcome, Training
from nas.records.rungs import HalvingConfig, Progress, RungPoint
from nas.records.trial import Trial
from nas.searching.controller.session import Session
from nas.searching.early_stopping.halving import Halving
from nas.searching.early_stopping.worth import Frontier, Prospect, going_rate
from nas.searching.gating.gate import Gate
from nas.searching.gating.learning_curves import CurveLaw

# Trials at the first rung before forecasts take over from ranks.
RANKED = 10
# The going rate is that of so many trials, the last that have ended, and of no fewer than these.
_RECENT, _LEAST_RECENT = 10, 4
_SHARE = 0.5
# As likely as this to be on the front, a trial goes on whatever it adds.
_CLEAR = 0.5
# Of a forecast, into so many equally likely qualities.
_PARTS = 15


class Stopper:
    """Judges the trials of one session. One thread, the driver's."""

    def __init__(self, config: HalvingConfig, session: Session, gate: Gate) -> None:
        """Take up the rungs where the session's records left them."""
        self._config, self._session, self._gate = config, session, gate
        self._rule = Halving(config)
        for record in session.records():
            self.reach(record.number, record.curve)

    def judge(self, number: int, progress: Progress) -> Outcome | None:
        """Return the outcome of trial ``number`` if it is stopped, ``None`` where it goes on."""
        candidate = self._session.record(number)
        self.reach(number, progress.curve)
        if self._is_exempt(candidate):
            return None
        reason = self._forecast(candidate, progress) if self._is_late(number, progress) else None
        if reason is None:
            verdict = self._rule.verdict(
                number, progress.curve[-1].epoch, self._rung_energies_j(progress)
            )
            reason = "" if verdict.goes_on else verdict.reason
        if not reason:
            return None
        training = Training(progress.curve, progress.planned_epochs, progress.start)
        return Outcome("stopped", reason, training=training, spent=progress.spent)

    def reach(self, number: int, curve: tuple[RungPoint, ...]) -> None:
        """Trial ``number`` has come this far, though nothing is to be decided now."""
        for point in curve:
            self._rule.reach(number, point)

    def _is_exempt(self, candidate: Trial) -> bool:
        """Asked for by the user, evaluated to judge the gate, or among the first."""
        earlier = sum(
            record.state != "dropped" and record.number < candidate.number
            for record in self._session.records()
        )
        return candidate.baseline or candidate.audit or earlier < self._config.startup_trials

    def _is_late(self, number: int, progress: Progress) -> bool:
        """Whether enough earlier trials have reached the first rung."""
        at_first = self._rule.trials_at(progress.curve[0].epoch)
        return sum(isinstance(n, int) and n < number for n in at_first) >= RANKED

    def _forecast(self, candidate: Trial, progress: Progress) -> str | None:
        """Why its forecast stops it, empty where it does not; ``None`` where none can be made."""
        records, first = self._session.records(), progress.curve[0].epoch
        complete = [record for record in records if record.state == "complete"]
        recent = [
            record
            for record in records
            if record.planned_epochs == progress.planned_epochs
            and record.number != candidate.number
            and record.curve
            and record.curve[0].epoch == first
        ][-_RECENT:]
        if not complete or len(recent) < _LEAST_RECENT:
            return None
        energies_j = self._energies_j([*recent, candidate])
        front = Frontier.of([r.objectives for r in complete], energies_j.values())
        place = {record.number: index for index, record in enumerate(complete)}
        epochs = progress.planned_epochs
        law = CurveLaw.fit(records, first, epochs)

        def prospect(record: Trial) -> Prospect:
            # One that is complete would add nothing to a front that it is on.
            known = place.get(record.number)
            others = front if known is None else front.without(known)
            qualities = law.final(record.curve[0]).qualities(_PARTS)
            gain = others.gain(qualities, energies_j[record.number])
            return Prospect(gain, first, epochs - first)

        rate = going_rate([prospect(record) for record in recent])
        point, energy_j = progress.curve[-1], energies_j[candidate.number]
        final = CurveLaw.fit(records, point.epoch, epochs).final(point)
        worth = front.gain(final.qualities(_PARTS), energy_j) / (epochs - point.epoch)
        chance = final.chance_above(front.best_at(energy_j))
        if worth >= _SHARE * rate or chance >= _CLEAR:
            return ""
        return (
            f"quality {point.quality:.3f} at epoch {point.epoch}: {chance:.0%} likely to be on "
            f"the front, its other epochs worth {worth / rate:.0%} of those of new candidates"
        )

    def _rung_energies_j(self, progress: Progress) -> dict[Hashable, float]:
        """Joules per sample of those at the last rung of ``progress``."""
        records = {record.number: record for record in self._session.records()}
        numbers = self._rule.trials_at(progress.curve[-1].epoch)
        return self._energies_j([records[n] for n in numbers if isinstance(n, int)])

    def _energies_j(self, records: Sequence[Trial]) -> dict[Hashable, float]:
        """Joules per sample: measured, else as the gate predicts them now.

        What was predicted when they started would not do: early predictions of one trial and late
        ones of another differ by what was learnt in between.
        """
        found: dict[Hashable, float] = {
            r.number: r.energy_j for r in records if r.energy_j is not None
        }
        unknown = [record for record in records if record.energy_j is None]
        if unknown:
            predicted = self._gate.energies_j([record.architecture for record in unknown])
            found |= {r.number: float(j) for r, j in zip(unknown, predicted, strict=True)}
        return found
