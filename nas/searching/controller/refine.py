"""Choose the trials to evaluate again, since a front is selected from noisy figures.

The trial of greatest ``p (1 - p)``, where ``p`` is P(Pareto), is evaluated again from another
seed, until the budget is spent or every ``p`` is near 0 or 1. Trials off the front are candidates
as well as its members.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.core.files import Place
from nas.pareto.queries import chances
from nas.records.candidate import Candidate
from nas.records.front_member import figures_of
from nas.records.goals import Goals
from nas.records.replicas import bring_replicas, pooled, replicas_of
from nas.records.trial import Trial

# A trial with P(Pareto) below this, or above 1 minus this, is not evaluated again.
_SURE = 0.05
# More replicas of one trial add little.
MOST_REPLICAS = 4


class Refinement:
    """Replicas of a finished search's trials."""

    def __init__(
        self,
        records: Sequence[Trial],
        trials_folder: Path,
        goals: Goals,
        budget: int,
        kept: Place | None = None,
    ) -> None:
        """``budget`` counts replicas, failed ones and those on disk from before a resume too.

        ``kept`` is the folder to which workers write, if it is not ``trials_folder``: results are
        copied from there.
        """
        self._records = [r for r in records if r.state == "complete" and goals.meets_limits(r)]
        self._folder, self._goals = trials_folder, goals
        self.budget = budget
        self._in_flight: set[tuple[int, int]] = set()
        self._kept = trials_folder if kept is None else kept
        for record in self._records:
            self._bring(record.number)

    @property
    def done(self) -> int:
        """Number of replicas that have ended."""
        return sum(len(self._replicas(record)) for record in self._records)

    def next_replica(self) -> Candidate | None:
        """Return the next replica to evaluate, ``None`` when there is none."""
        if self.done + len(self._in_flight) >= self.budget:
            return None
        known = [pooled(r, self._folder / str(r.number)) for r in self._records]
        p = chances([figures_of(r) for r in known], self._goals.costs)
        best: tuple[float, Trial, int] | None = None
        for record, chance in zip(self._records, p, strict=True):
            taken = {r.replica for r in self._replicas(record)}
            taken |= {k for number, k in self._in_flight if number == record.number}
            unsure = chance * (1 - chance)
            if unsure < _SURE * (1 - _SURE) or len(taken) >= MOST_REPLICAS:
                continue
            # Running replicas count as evaluated.
            gain = unsure / (1 + len(taken))
            if best is None or gain > best[0]:
                first = next(k for k in range(1, MOST_REPLICAS + 1) if k not in taken)
                best = gain, record, first
        if best is None:
            return None
        _, record, replica = best
        self._in_flight.add((record.number, replica))
        # A finalist is trained for as long as before.
        return Candidate(
            record.number,
            record.architecture,
            record.prediction,
            replica=replica,
            finalist_of=record.finalist_of,
            runtimes=record.replica_runtimes,
        )

    def ended(self, replica: Candidate) -> None:
        """Take in ``replica``, which is on disk now."""
        self._bring(replica.number)
        self._in_flight.discard((replica.number, replica.replica))

    def _bring(self, number: int) -> None:
        bring_replicas(self._kept / str(number), self._folder / str(number))

    def _replicas(self, record: Trial) -> list[Trial]:
        return replicas_of(self._folder / str(record.number))
