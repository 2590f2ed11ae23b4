"""The state of one search: its candidates, their results, and the study that stores both.

``nas.searching.loop`` calls it from one thread. Every change is durable in the study before the
call returns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nas.core import interrupts
from nas.core.estimate import Estimate
from nas.records.candidate import Candidate, Outcome
from nas.records.config import SearchConfig
from nas.records.trial import Trial
from nas.searching.calibration.calibration import CalibrationState
from nas.searching.calibration.in_runtimes import Calibrations
from nas.searching.controller.audits import Audits
from nas.searching.controller.counts import Counts
from nas.searching.controller.runtime_plans import (
    least_prediction,
    measure_above,
    no_runtime,
    runtime_plans,
)
from nas.searching.gating.gate import Gate
from nas.searching.gating.pruning import Pruning, PruningCounts
from nas.store.storage import Proposal, StudyStore
from nas.tasks.base.metric import ACCURACY, Metric
from search_spaces.architecture import Architecture
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import Genes, decode, encode, repair
from search_spaces.space.sampling import compression_variants, mutate, sample, smallest
from search_spaces.workload import Workload

# Proposals of models already decided on before a new one is made by mutation instead.
_MAX_DUPLICATES = 5
_MAX_MUTATIONS = 200
# Candidates dropped in a row before the search ends.
_MAX_DROPS_IN_A_ROW = 300
# Failures for one reason in a row before the search ends: the cause is not the candidates.
_MOST_ALIKE_FAILURES = 8
# After this many drops in a row, the gate's own best candidate is evaluated.
_SUGGEST_EACH = 20
# Least P(Pareto) at which a variant of a front member is proposed.
_FAIR_CHANCE = 0.3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Progress of a search; ``spent_energy_j`` is for trainings, measurements and calibration."""

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
    calibration: CalibrationState | None = None
    pruning: PruningCounts = PruningCounts()  # noqa: RUF009  (frozen)


class Listener(Protocol):
    """Receives every change; a progress bar, for example."""

    def on_change(self, snapshot: Snapshot, record: Trial | None) -> None:
        """``record`` is the trial that changed, ``None`` at the start."""

    def on_teacher(self, epoch: int, epochs: int) -> None:
        """The teacher, trained before any candidate, is at ``epoch`` of ``epochs``."""

    def on_supernet(self, epoch: int, epochs: int) -> None:
        """The supernet, trained before any candidate, is at ``epoch`` of ``epochs``."""

    def on_refine(self, done: int, total: int) -> None:
        """``done`` of at most ``total`` replicas have ended."""

    def on_wait(self, reason: str) -> None:
        """The search waits, for storage that is full or away, or for nodes."""


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
        calibration: Calibrations | None = None,
    ) -> None:
        """Continue the study: trials that were running are dispatched first.

        In a new study, ``first`` are proposed after the baselines. ``metric`` is the task's, for
        ``listener``. New labels of ``calibration`` are added to the gate.
        """
        self._goals = config.goals
        self._config = config
        self._workload = workload
        self._metric = metric
        self._store = store
        self._gate = gate
        self._calibration = calibration
        self._pruning = gate.pruning or Pruning(config.space, seed=config.seed)
        self._listener = listener
        self._started = time.perf_counter()
        self._redispatch = [trial.candidate for trial in store.settle()]
        self._records = {record.number: record for record in store.records()}
        self._counts = Counts(config.goals)
        for record in self._records.values():
            self._counts.put(record, None)
        self._seen = {record.architecture.hash: record.number for record in self._records.values()}
        audited = [r.architecture.hash for r in self._records.values() if r.audit]
        self._audits = Audits(config.gate, self._pruning, audited)
        self._rng = np.random.default_rng([config.seed, len(self._records)])
        self._drops_in_a_row = 0
        self._failures: list[str] = []
        self._varied: set[int] = set()
        self._queued = {self._decoded(genes).hash for genes in store.waiting()}
        self._finalists: list[int] = []
        self.stop_reason: str | None = None
        gate.refit(self.searched())
        if not self._records:
            self._enqueue_first(first)
        self._tell(None)

    def records(self) -> list[Trial]:
        """Return every trial so far, by number."""
        return [self._records[number] for number in sorted(self._records)]

    def searched(self) -> list[Trial]:
        """Return every trial so far that is no finalist, by number."""
        return [record for record in self.records() if record.finalist_of is None]

    def record(self, number: int) -> Trial:
        """Return the current record of trial ``number``."""
        return self._records[number]

    def in_flight(self) -> list[Trial]:
        """Return the trials that were dispatched and have not ended."""
        return [record for record in self.records() if record.state == "running"]

    def next_candidate(self) -> Candidate | None:
        """Return the next trial to run, ``None`` when all are dispatched.

        Candidates that the gate drops are recorded on the way.
        """
        candidate = self.unfinished()
        while candidate is None and (proposal := self.propose()) is not None:
            candidate = self.prune(proposal)
        return candidate or self.next_finalist()

    def unfinished(self) -> Candidate | None:
        """Return a trial to dispatch again, ``None`` where there is none."""
        while self._redispatch:
            candidate = self._redispatch.pop(0)
            record = self._records[candidate.number]
            if record.outcome is None:
                self._tell(record)
                return candidate
        return None

    def propose(self) -> Proposal | None:
        """Return the sampler's next model; ``None`` when all are dispatched, or none is left."""
        if self._counts.n_trained >= self._config.trials or self.stop_reason is not None:
            return None
        self._learn_labels()
        proposal = self._propose()
        if proposal is None:
            self.stop_reason = "the search space is exhausted"
        return proposal

    def calibrate(self) -> None:
        """Let the calibration measure what is due.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM during a measurement in this thread.
        """
        if self._calibration is not None:
            with interrupts.allowed():
                self._calibration.advance()

    def _learn_labels(self) -> None:
        """Add the calibration's new labels to the gate."""
        new = {} if self._calibration is None else self._calibration.take()
        for runtime, observations in new.items():
            self._gate.surrogates.add_observations(observations, runtime)
        if new:
            self._tell(None)

    def prune(self, proposal: Proposal) -> Candidate | None:
        """Return ``proposal`` as a candidate, or ``None`` if the gate drops it."""
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
        """Dispatch a trial whose worker died before any new one, with ``last`` after others."""
        others = [r for r in self._redispatch if r.number != candidate.number]
        self._redispatch = [*others, candidate] if last else [candidate, *others]

    def attempts(self, number: int) -> dict[str, Any]:
        """Return what ``save_attempts`` saved for a running trial, empty before."""
        return self._store.attempts(number)

    def save_attempts(self, number: int, attempts: dict[str, Any]) -> None:
        """Save the attempts of a running trial; see ``attempts.Attempts``."""
        self._store.save_attempts(number, attempts)

    def is_searched(self) -> bool:
        """Whether all candidates but finalists have ended."""
        is_over = self._counts.n_trained >= self._config.trials or self.stop_reason is not None
        return is_over and not self._counts.n_running_searched

    def add_finalists(self, numbers: Sequence[int]) -> None:
        """Dispatch these complete trials again as finalists, unless they already were."""
        before = {record.finalist_of for record in self._records.values()}
        self._finalists += [number for number in numbers if number not in before]
        self._tell(None)

    def next_finalist(self) -> Candidate | None:
        """Return the next finalist to dispatch, ``None`` when all are."""
        if not self._finalists:
            return None
        of = self._records[self._finalists.pop(0)]
        candidate = of.finalist(self._store.begin(encode(of.architecture, self._config.space)))
        self._put(Trial(candidate))
        return candidate

    def finish(self, record: Trial) -> None:
        """Store the result of a dispatched trial."""
        self._put(record)
        if self._calibration is not None:
            self._calibration.add_trial(record)
        self._count_failure(record)
        self._pruning.save()
        if record.state == "complete" and record.finalist_of is None:
            self._gate.add(record, self.searched)
            for number in sorted(self._gate.front_numbers - self._varied):
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
        """Propose a front member with another compression, if its P(Pareto) allows.

        Whether a compression pays shows only beside the same model without it, which samplers
        rarely propose. Nothing is proposed before there is a P(Pareto): the first trial is on the
        front whatever it costs.
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
        self._varied.add(member.number)
        if chances is None:
            return
        # The first variant is the uncompressed one, where there is one.
        best = 0 if chances[0] >= _FAIR_CHANCE else int(chances.argmax())
        if chances[best] >= _FAIR_CHANCE:
            self._enqueue(variants[best])

    @property
    def is_over(self) -> bool:
        """Whether all trials were dispatched and have ended."""
        enough = self._counts.n_trained >= self._config.trials or self.stop_reason is not None
        return enough and not self._counts.count("running")

    def snapshot(self) -> Snapshot:
        """Return the progress of the search."""
        counts = self._counts
        calibration = None if self._calibration is None else self._calibration.state
        return Snapshot(
            total=self._config.trials + len(self._finalists) + counts.n_finalists,
            complete=counts.count("complete"),
            stopped=counts.count("stopped"),
            dropped=counts.count("dropped"),
            failed=counts.count("failed"),
            running=counts.count("running"),
            front=len(counts.front),
            best_quality=counts.best_quality,
            least_energy_j=counts.least_energy_j,
            spent_energy_j=counts.spent_energy_j
            + (0.0 if calibration is None else calibration.spent_energy_j),
            elapsed_s=time.perf_counter() - self._started,
            metric=self._metric,
            calibration=calibration,
            pruning=self._pruning.counts,
        )

    def _enqueue_first(self, first: Sequence[Architecture]) -> None:
        """Enqueue baselines, ``first`` and the smallest member, which samplers rarely find."""
        for baseline in self._config.baselines:
            self._enqueue(baseline, baseline=True)
        for architecture in (*first, smallest(self._config.space)):
            if self._allows(architecture):
                self._enqueue(architecture)

    def _allows(self, architecture: Architecture) -> bool:
        """Whether it keeps the limits on counted costs."""
        batch = ArchitectureBatch.of([architecture])
        return bool(self._goals.allows(batch, self._workload)[0])

    def _enqueue(self, architecture: Architecture, *, baseline: bool = False) -> None:
        if architecture.hash not in self._queued:
            self._queued.add(architecture.hash)
            self._store.enqueue(encode(architecture, self._config.space), baseline=baseline)

    def _decoded(self, genes: Genes) -> Architecture:
        return decode(repair(genes, self._config.space), self._config.space)

    def _propose(self) -> Proposal | None:
        """Return the sampler's next new model, ``None`` when none is left."""
        space = self._config.space
        audited = self._audits.draw(self._counts.n_trained, self._seen)
        if audited is not None:
            self._enqueue(audited)
        if self._drops_in_a_row % _SUGGEST_EACH == _SUGGEST_EACH - 1:
            suggested = self._gate.suggest(self._seen)
            if suggested is not None:
                self._enqueue(suggested)
        proposal = self._new_proposal(_MAX_DUPLICATES)
        if proposal is not None:
            return proposal
        # In a small or nearly exhausted space, mutate evaluated models instead.
        numbers = list(self._records)
        for attempt in range(_MAX_MUTATIONS):
            if attempt % 2:
                architecture = sample(space, self._rng)
            else:
                parent = self._records[numbers[int(self._rng.integers(len(numbers)))]]
                architecture = mutate(parent.architecture, space, self._rng)
            if architecture.hash not in self._seen and self._allows(architecture):
                self._enqueue(architecture)
                return self._new_proposal(len(self._store.waiting()))
        return None

    def _new_proposal(self, most: int) -> Proposal | None:
        """Return the first new and allowed model of the next ``most`` proposals."""
        for _ in range(most):
            proposal = self._store.ask()
            architecture = self._decoded(proposal.genes)
            # A model that breaks a limit is a candidate only if the user named it.
            if architecture.hash not in self._seen and (
                proposal.baseline or self._allows(architecture)
            ):
                return proposal
            self._store.discard(proposal.number)
        return None

    def _judge(self, proposal: Proposal) -> Trial:
        architecture = self._decoded(proposal.genes)
        verdict = self._gate.judge(architecture)
        # Savings are stated against baselines, so they are always measured.
        is_judged = verdict.reason is not None and not proposal.baseline
        audit = is_judged and self._audits.takes(architecture, self._counts.n_trained)
        to_beat = None if audit or proposal.baseline else self._quality_to_beat
        plans = runtime_plans(
            self._config, self._workload, architecture, verdict.in_runtimes, to_beat
        )
        refused = no_runtime(plans)
        dropped = refused is not None or (is_judged and not audit)
        if not proposal.baseline:
            self._pruning.count(architecture, verdict.verdict)
        supernet = self._config.supernet
        candidate = Candidate(
            proposal.number,
            architecture,
            least_prediction(plans) or verdict.energy_j,
            is_audit=audit,
            is_baseline=proposal.baseline,
            weights="own" if supernet is None else "inherited",
            joules="measured"
            if supernet is None or proposal.baseline
            else supernet.joules_of(self.searched(), verdict.energy_j.high / verdict.energy_j.low),
            measure_above=measure_above(plans, verdict.energy_j, to_beat),
            runtimes=plans,
        )
        return Trial(candidate, Outcome("dropped", refused or verdict.reason) if dropped else None)

    def _quality_to_beat(self, energy_j: Estimate) -> float | None:
        """Return the quality up to which a trained candidate need not be measured."""
        # Every further device measures each trial.
        if self._config.supernet is not None or self._config.measure_on:
            return None
        return self._gate.quality_to_beat(energy_j)

    def _put(self, record: Trial) -> None:
        self._store.save(record)
        self._counts.put(record, self._records.get(record.number))
        self._records[record.number] = record
        self._seen.setdefault(record.architecture.hash, record.number)
        self._tell(record)

    def _tell(self, record: Trial | None) -> None:
        if self._listener is not None:
            self._listener.on_change(self.snapshot(), record)
