"""Which trials to evaluate again, since selection flatters.

A front is picked from noisy figures, so its members were lucky more often than not. The trial
whose place is least sure (``p (1 - p)`` is greatest, with ``p`` its probability of being truly on
the front) is evaluated again from another seed, until what was granted is spent or every place is
sure. Trials off the front that may belong on it are looked at as well as members.
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

# Where a place is this sure (p below it, or above one less it), nothing is to be gained.
_SURE = 0.05
# More replicas of one trial tell little that is new.
MOST_REPLICAS = 4


class Refinement:
    """What a finished search evaluates again."""

    def __init__(
        self,
        records: Sequence[Trial],
        trials_folder: Path,
        goals: Goals,
        device: str,
        budget: int,
        kept: Place | None = None,
    ) -> None:
        """``records`` are the trials as they ended; ``budget`` counts replicas, failed ones too.

        Replicas on disk count: a resumed refinement goes on. ``kept`` is where workers keep
        trials, if that is not ``trials_folder``: results are copied from there.
        """
        self._records = [r for r in records if r.state == "complete" and goals.keeps(r)]
        self._folder, self._goals, self._device = trials_folder, goals, device
        self.budget = budget
        self._in_flight: set[tuple[int, int]] = set()
        self._kept = trials_folder if kept is None else kept
        for record in self._records:
            self._bring(record.number)

    @property
    def done(self) -> int:
        """Replicas that have ended."""
        return sum(len(self._replicas(record)) for record in self._records)

    def next_replica(self) -> Candidate | None:
        """What to evaluate now, ``None`` where that is nothing more."""
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
            # What is being evaluated will make it surer.
            gain = unsure / (1 + len(taken))
            if best is None or gain > best[0]:
                first = next(k for k in range(1, MOST_REPLICAS + 1) if k not in taken)
                best = gain, record, first
        if best is None:
            return None
        _, record, replica = best
        self._in_flight.add((record.number, replica))
        return Candidate(record.number, record.architecture, record.prediction, replica=replica)

    def ended(self, replica: Candidate) -> None:
        """``replica`` is on disk now."""
        self._bring(replica.number)
        self._in_flight.discard((replica.number, replica.replica))

    def _bring(self, number: int) -> None:
        bring_replicas(self._kept / str(number), self._folder / str(number))

    def _replicas(self, record: Trial) -> list[Trial]:
        return replicas_of(self._folder / str(record.number))
