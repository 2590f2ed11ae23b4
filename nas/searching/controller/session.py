"""One search, seen from its driver: what to run next, and what to do with what comes back.

Independent of Ray: ``nas.searching.loop`` calls it from one thread. Every change is durable in the
study before the call returns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nas.records.candidate import Candidate, Outcome
from nas.records.config import SearchConfig
from nas.records.trial import Trial
from nas.searching.controller.tally import Tally
from nas.searching.gating.gate import Gate
from nas.store.storage import Proposal, StudyStore
from nas.tasks.base.metric import ACCURACY, Metric
from search_spaces.architecture import Architecture
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import Genes, decode, encode, repair
from search_spaces.space.sampling import compression_variants, mutate, sample, smallest
from search_spaces.workload import Workload

# Proposals of models already judged before one that is new is made by mutation instead.
_MAX_DUPLICATES = 5
_MAX_MUTATIONS = 200
# Candidates dropped one after another before the search says that the gate lets nothing pass.
_MAX_DROPS_IN_A_ROW = 300
# Failures for one reason, one after another, before the search ends by saying it: what is wrong is
# not the candidates, as where a sensor is lost.
_MOST_ALIKE_FAILURES = 8
# After each so many, the gate itself names the member that it thinks most of.
_SUGGEST_EACH = 20
# A variant of a front member is proposed when it is this likely to be on the front too.
_FAIR_CHANCE = 0.3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a search is. ``spent_energy_j`` is what its trials cost to train and measure."""

    total: int
    complete: int
    stopped: int
    dropped: int
    failed: int
    running: int
    front: int
    best_quality: float | None
    least_energy_j: float | None
    spent_energy_j: float
    elapsed_s: float
    metric: Metric = ACCURACY


class Listener(Protocol):
    """Is told of every change; a progress bar, for example."""

    def on_change(self, snapshot: Snapshot, record: Trial | None) -> None:
        """``record`` is the trial that changed, ``None`` at the start."""
        ...

    def on_teacher(self, epoch: int, epochs: int) -> None:
        """The teacher, trained before any candidate, is at ``epoch`` of ``epochs``."""
        ...

    def on_supernet(self, epoch: int, epochs: int) -> None:
        """The supernet, trained before any candidate, is at ``epoch`` of ``epochs``."""
        ...

    def on_refine(self, done: int, total: int) -> None:
        """``done`` of at most ``total`` evaluations are over that make the front surer."""
        ...

    def on_wait(self, reason: str) -> None:
        """What the search waits for: storage that is full or away, nodes that are not there."""
        ...


class Session:
    """The driver's side of one search."""

    def __init__(
        self,
        config: SearchConfig,
        workload: Workload,
        store: StudyStore,
        gate: Gate,
        listener: Listener | None = None,
        first: Sequence[Architecture] = (),
        metric: Metric = ACCURACY,
    ) -> None:
        """Take up the study where it is: trials in flight when it was left are run first.

        ``first`` are proposed after the baselines, before anything else, if the study is new;
        ``metric`` is the task's, for those who listen.
        """
        self._goals = config.goals
        self._config = config
        self._workload = workload
        self._metric = metric
        self._store = store
        self._gate = gate
        self._listener = listener
        self._started = time.perf_counter()
        self._redispatch = [trial.candidate for trial in store.settle()]
        self._records = {record.number: record for record in store.records()}
        self._tally = Tally(config.goals)
        for record in self._records.values():
            self._tally.put(record, None)
        self._seen = {record.architecture.hash: record.number for record in self._records.values()}
        self._rng = np.random.default_rng([config.seed, len(self._records)])
        self._drops_in_a_row = 0
        self._failures: list[str] = []
        self._asked_variants: set[int] = set()
        self._queued = {self._decoded(genes).hash for genes in store.waiting()}
        self._finalists: list[int] = []
        self.stop_reason: str | None = None
        gate.refit(self.searched())
        if not self._records:
            self._enqueue_first(first)
        self._tell(None)

    def records(self) -> list[Trial]:
        """Every trial so far, by number."""
        return [self._records[number] for number in sorted(self._records)]

    def searched(self) -> list[Trial]:
        """Every trial so far that is no finalist, by number."""
        return [record for record in self.records() if record.finalist_of is None]

    def record(self, number: int) -> Trial:
        """What is known of trial ``number``."""
        return self._records[number]

    def in_flight(self) -> list[Trial]:
        """Trials that were dispatched and have not ended."""
        return [record for record in self.records() if record.state == "running"]

    def next_candidate(self) -> Candidate | None:
        """Return a candidate to evaluate now; ``None`` when the search has dispatched all it will.

        Candidates that the gate drops are recorded on the way.
        """
        candidate = self.unfinished()
        while candidate is None and (proposal := self.propose()) is not None:
            candidate = self.prune(proposal)
        return candidate or self.next_finalist()

    def unfinished(self) -> Candidate | None:
        """Return a trial in flight to dispatch again, ``None`` where there is none."""
        while self._redispatch:
            candidate = self._redispatch.pop(0)
            record = self._records[candidate.number]
            if record.outcome is None:
                self._tell(record)
                return candidate
        return None

    def propose(self) -> Proposal | None:
        """The sampler's next model; ``None`` when all are dispatched, or none is left."""
        if self._n_trained() >= self._config.trials or self.stop_reason is not None:
            return None
        proposal = self._propose()
        if proposal is None:
            self.stop_reason = "the search space is exhausted"
        return proposal

    def prune(self, proposal: Proposal) -> Candidate | None:
        """Return the candidate that the gate makes of ``proposal``, ``None`` where it drops it."""
        record = self._judge(proposal)
        self._put(record)
        if record.outcome is None:
            self._drops_in_a_row = 0
            return record.candidate
        self._drops_in_a_row += 1
        if self._drops_in_a_row >= _MAX_DROPS_IN_A_ROW:
            self.stop_reason = (
                f"the gate dropped {_MAX_DROPS_IN_A_ROW} candidates in a row; "
                f"the last: {record.reason}"
            )
        return None

    def dispatch_again(self, candidate: Candidate, *, last: bool = False) -> None:
        """Have ``next_candidate`` return a trial whose worker died, before any new one.

        With ``last`` it comes after the others that were dispatched before.
        """
        others = [r for r in self._redispatch if r.number != candidate.number]
        self._redispatch = [*others, candidate] if last else [candidate, *others]

    def attempts(self, number: int) -> dict[str, Any]:
        """What ``save_attempts`` kept of a trial in flight, empty before."""
        return self._store.attempts(number)

    def save_attempts(self, number: int, attempts: dict[str, Any]) -> None:
        """Keep how often a trial in flight was tried; see ``attempts.Attempts``."""
        self._store.save_attempts(number, attempts)

    def is_searched(self) -> bool:
        """Whether all candidates but finalists have ended."""
        is_over = self._n_trained() >= self._config.trials or self.stop_reason is not None
        return is_over and not self._tally.n_running_searched

    def add_finalists(self, numbers: Sequence[int]) -> None:
        """Dispatch these complete trials again, as finalists, unless they have been."""
        known = {record.finalist_of for record in self._records.values()}
        self._finalists += [number for number in numbers if number not in known]
        self._tell(None)

    def next_finalist(self) -> Candidate | None:
        """The next of ``add_finalists`` to dispatch, ``None`` when all of them are."""
        if not self._finalists:
            return None
        of = self._records[self._finalists.pop(0)]
        candidate = of.finalist(self._store.begin(encode(of.architecture, self._config.space)))
        self._put(Trial(candidate))
        return candidate

    def finish(self, record: Trial) -> None:
        """Store what became of a dispatched trial."""
        self._put(record)
        self._count_failure(record)
        if record.state == "complete" and record.finalist_of is None:
            self._gate.add(record, self.searched)
            for number in sorted(self._gate.front_numbers - self._asked_variants):
                self._enqueue_variant(self._records[number])

    def _count_failure(self, record: Trial) -> None:
        if record.state != "failed" or record.reason not in self._failures:
            self._failures.clear()
        if record.state == "failed" and record.reason is not None:
            self._failures.append(record.reason)
        if len(self._failures) >= _MOST_ALIKE_FAILURES:
            self.stop_reason = (
                f"{_MOST_ALIKE_FAILURES} trials in a row failed alike, the last, "
                f"{record.number}: {record.reason}"
            )

    def _enqueue_variant(self, member: Trial) -> None:
        """Propose a front member with another compression, if that has a fair chance.

        A compression is on the front because it pays only if the same model without it was
        tried; samplers that draw every gene rarely try just that. Before chances are known
        nothing is proposed: a baseline of ten times the joules is on the front of one trial, too.
        """
        architecture = member.architecture
        variants = [
            variant
            for variant in compression_variants(architecture, self._config.space)
            if variant.hash not in self._seen
            and variant.hash not in self._queued
            and self._allows(variant)
        ]
        chances = self._gate.front_probabilities(variants) if variants else None
        if variants and chances is None:
            return
        self._asked_variants.add(member.number)
        if chances is None:
            return
        # The first is the uncompressed twin, where there is one: it comes before finer choices.
        best = 0 if chances[0] >= _FAIR_CHANCE else int(chances.argmax())
        if chances[best] >= _FAIR_CHANCE:
            self._enqueue(variants[best])

    @property
    def is_over(self) -> bool:
        """Whether all that is to be dispatched was, and has ended."""
        enough = self._n_trained() >= self._config.trials or self.stop_reason is not None
        return enough and not self._tally.count("running")

    def snapshot(self) -> Snapshot:
        """How far the search is."""
        tally = self._tally
        return Snapshot(
            total=self._config.trials + len(self._finalists) + tally.n_finalists,
            complete=tally.count("complete"),
            stopped=tally.count("stopped"),
            dropped=tally.count("dropped"),
            failed=tally.count("failed"),
            running=tally.count("running"),
            front=len(tally.front),
            best_quality=tally.best_quality,
            least_energy_j=tally.least_energy_j,
            spent_energy_j=tally.spent_energy_j,
            elapsed_s=time.perf_counter() - self._started,
            metric=self._metric,
        )

    def _n_trained(self) -> int:
        return self._tally.n_trained

    def _enqueue_first(self, first: Sequence[Architecture]) -> None:
        """Baselines, ``first``, the smallest member: few samplers find the cheap end without it.

        What an interrupted start has left in the queue is not put there twice.
        """
        for baseline in self._config.baselines:
            self._enqueue(baseline, baseline=True)
        for architecture in (*first, smallest(self._config.space)):
            if self._allows(architecture):
                self._enqueue(architecture)

    def _allows(self, architecture: Architecture) -> bool:
        """Whether it keeps the limits on what is counted."""
        batch = ArchitectureBatch.of([architecture])
        return bool(self._goals.allows(batch, self._workload)[0])

    def _enqueue(self, architecture: Architecture, *, baseline: bool = False) -> None:
        if architecture.hash not in self._queued:
            self._queued.add(architecture.hash)
            self._store.enqueue(encode(architecture, self._config.space), baseline=baseline)

    def _decoded(self, genes: Genes) -> Architecture:
        return decode(repair(genes, self._config.space), self._config.space)

    def _propose(self) -> Proposal | None:
        """The sampler's next model that was never judged; ``None`` when there is none left."""
        space = self._config.space
        if self._drops_in_a_row % _SUGGEST_EACH == _SUGGEST_EACH - 1:
            suggested = self._gate.suggest(self._seen)
            if suggested is not None:
                self._enqueue(suggested)
        proposal = self._ask_new(_MAX_DUPLICATES)
        if proposal is not None:
            return proposal
        # Small or nearly exhausted spaces: walk away from what is known instead of asking on.
        known = list(self._records)
        for attempt in range(_MAX_MUTATIONS):
            if attempt % 2:
                architecture = sample(space, self._rng)
            else:
                parent = self._records[known[int(self._rng.integers(len(known)))]]
                architecture = mutate(parent.architecture, space, self._rng)
            if architecture.hash not in self._seen and self._allows(architecture):
                self._enqueue(architecture)
                return self._ask_new(len(self._store.waiting()))
        return None

    def _ask_new(self, most: int) -> Proposal | None:
        """An allowed proposal of a model that was never judged, among the next ``most``."""
        for _ in range(most):
            proposal = self._store.ask()
            architecture = self._decoded(proposal.genes)
            # What breaks a limit on what is counted is no candidate, unless the user named it.
            if architecture.hash not in self._seen and (
                proposal.baseline or self._allows(architecture)
            ):
                return proposal
            self._store.discard(proposal.number)
        return None

    def _judge(self, proposal: Proposal) -> Trial:
        architecture = self._decoded(proposal.genes)
        verdict = self._gate.judge(architecture)
        # A baseline is what savings are named against: the user asked for it to be measured.
        dropped = verdict.reason is not None and not verdict.audit and not proposal.baseline
        supernet = self._config.supernet
        candidate = Candidate(
            proposal.number,
            architecture,
            verdict.energy_j,
            is_audit=verdict.audit and not proposal.baseline,
            is_baseline=proposal.baseline,
            weights="own" if supernet is None else "inherited",
            joules="measured"
            if supernet is None or proposal.baseline
            else supernet.joules_of(self.searched(), verdict.energy_j.high / verdict.energy_j.low),
        )
        return Trial(candidate, Outcome("dropped", verdict.reason) if dropped else None)

    def _put(self, record: Trial) -> None:
        self._store.save(record)
        self._tally.put(record, self._records.get(record.number))
        self._records[record.number] = record
        self._seen.setdefault(record.architecture.hash, record.number)
        self._tell(record)

    def _tell(self, record: Trial | None) -> None:
        if self._listener is not None:
            self._listener.on_change(self.snapshot(), record)
