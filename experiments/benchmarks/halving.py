"""What stopping early saves: searches of the digits with and without halving, paired by seed.

    python -m experiments.benchmarks.halving --cache curves.jsonl

Both searches of a seed have the same sampler seed, gate, space and recipe (the quickstart's), run
one candidate at a time in this process and count CPU seconds of one thread, looks at the
validation split included. Joules are a closed form, not measured: ``joules`` says which. A
candidate's training depends on its architecture and seed alone, so that each is trained once, no
further than a search needs it, and kept in ``--cache``; each search is charged for what it asked
for. Hypervolume is of (accuracy, log10 joules) of complete trials.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

import torch

from experiments.benchmarks.formula import formula_reading
from experiments.benchmarks.paired import Difference
from experiments.recipes import quickstart
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.core.estimate import Score
from nas.pareto.hypervolume import hypervolume
from nas.records.candidate import Candidate, Measurement
from nas.records.candidate import Outcome as TrialOutcome
from nas.records.candidate import Training as TrialTraining
from nas.records.config import SearchConfig
from nas.records.rungs import HalvingConfig, Progress, RungPoint
from nas.records.trial import Trial
from nas.searching.controller.sampler_by_name import make_sampler
from nas.searching.controller.session import Session
from nas.searching.early_stopping.stopping import Stopper
from nas.searching.gating.gate import CandidatePool, Gate
from nas.store.storage import StudyStore
from nas.tasks.base import Task
from nas.tasks.registry import get_task
from nas.training.checkpoint import CheckpointManager
from nas.training.evaluate import evaluate
from nas.training.fit import Look, Watch, fit
from search_spaces.architecture import Architecture
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.cost.counting import count
from search_spaces.models.build import build
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

# Where networks are looked at, so that other rungs can be replayed from a cache.
LOOKS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15, 18, 20, 21, 24, 28, 30, 36, 40, 45)
_REFERENCE = (0.5, -3.5)
_BATCH = 512
# How often a look is timed.
_TIMES = 3
# Of the plain search's last hypervolume, whose times are told.
_SHARES = (0.97, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Kept:
    """Validation accuracy after ``epoch``, and the CPU seconds of training until then."""

    epoch: int
    quality: float
    standard_error: float
    train_s: float


@dataclass(frozen=True, slots=True)
class End:
    """What a whole training came to."""

    quality: float
    standard_error: float
    test_quality: float
    train_s: float


@dataclass(frozen=True, slots=True)
class Training:
    """A candidate's training as far as it was needed; ``look_s`` is what one look costs."""

    key: str
    looks: tuple[Kept, ...]
    look_s: float
    end: End | None = None

    def has(self, epoch: int | None) -> bool:
        """Whether it went as far as ``epoch``, or with ``None`` to its end."""
        if epoch is None:
            return self.end is not None
        return any(look.epoch == epoch for look in self.looks)

    def at(self, epoch: int) -> Kept:
        """The look at ``epoch``."""
        return next(look for look in self.looks if look.epoch == epoch)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One search: hypervolume, and CPU seconds of training, after each candidate."""

    validation: tuple[float, ...]
    test: tuple[float, ...]
    train_s: tuple[float, ...]
    complete: int
    stopped: int
    # Of the stopped, how many would be on the last front; only where that was looked at.
    lost: int | None = None

    def seconds_to(self, validation: float) -> float:
        """When a hypervolume on validation was reached, infinite where it was not."""
        pairs = zip(self.validation, self.train_s, strict=True)
        return next((s for v, s in pairs if v >= validation), math.inf)

    def at(self, seconds: float) -> float:
        """The hypervolume on validation that ``seconds`` of training reached."""
        pairs = zip(self.validation, self.train_s, strict=True)
        return max((v for v, s in pairs if s <= seconds), default=0.0)


def joules(architecture: Architecture, workload: Workload) -> float:
    """A closed form: 0.1 nJ a MAC, 60% of it in bf16, and 2 uJ a layer.

    Nothing is measured: of the order of what the quickstart's networks cost on a CPU.
    """
    counts = count(architecture, workload)
    macs = sum(b.macs * (0.6 if b.precision == "bf16" else 1.0) for b in counts.blocks)
    return 1e-10 * macs + 2e-6 * (1 + architecture.depth)


def space() -> SearchSpace:
    """The quickstart's, with the precisions that run on any CPU."""
    data = quickstart("cpu").space.to_dict() | {
        "name": "digits-halving",
        "attention_precision": ["fp32", "bf16"],
        "ffn_precision": ["fp32", "bf16"],
        "attention_sparsity": ["dense"],
        "ffn_sparsity": ["dense"],
    }
    return SearchSpace.from_dict(data)


def least_s(action: Callable[[], object]) -> float:
    """CPU seconds that ``action`` takes, the least of several: a process's first one warms it up.

    Twenty looks at half a second of warm-up each were more than a small network's training.
    """
    found = math.inf
    for _ in range(_TIMES):
        started = time.process_time()
        action()
        found = min(found, time.process_time() - started)
    return found


class StoppedError(Exception):
    """Ends a training from within a look."""


class Trainings:
    """Trainings by architecture and seed; one that is asked for further goes on where it was."""

    def __init__(self, cache: Path, config: SearchConfig, task: Task | None = None) -> None:
        self._cache, self._config = cache, config
        self._task = task or get_task(config.task)
        self._known: dict[str, Training] = {}
        if cache.is_file():
            for line in cache.read_text(encoding="utf-8").splitlines():
                data = json.loads(line)
                looks = tuple(Kept(**look) for look in data["looks"])
                end = None if data["end"] is None else End(**data["end"])
                self._learn(Training(data["key"], looks, data["look_s"], end))

    def until(self, architecture: Architecture, seed: int, epoch: int | None) -> Training:
        """A training with a look at ``epoch``, with ``None`` one to its end."""
        key = f"{architecture.hash}-{seed}"
        known = self._known.get(key)
        if known is None or not known.has(epoch):
            found = self._train(key, known, architecture, seed, epoch)
            self._learn(found)
            with self._cache.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(asdict(found)) + "\n")
        return self._known[key]

    def _learn(self, found: Training) -> None:
        before = self._known.get(found.key)
        if before is None or before.end is None:
            self._known[found.key] = found

    def _train(
        self,
        key: str,
        before: Training | None,
        architecture: Architecture,
        seed: int,
        until: int | None,
    ) -> Training:
        task, batch = self._task, self._config.batch_size
        workload = task.workload(batch)
        untrained = run_eagerly(build(architecture, workload, generator_seed=0).eval()).call
        look_s = least_s(lambda: evaluate(untrained, task.split("validation"), batch_size=batch))
        looks = [] if before is None else list(before.looks)
        state = self._cache.with_name(f"{self._cache.name}.states") / key
        if looks and not state.is_file():
            looks = []
        first_s = looks[-1].train_s if looks else 0.0
        n_looks = 0
        started = time.process_time()

        def train_s() -> float:
            return first_s + time.process_time() - started - n_looks * look_s

        def tell(look: Look) -> None:
            nonlocal n_looks
            n_looks += 1
            if not looks or look.epoch > looks[-1].epoch:
                accuracy = look.quality
                looks.append(Kept(look.epoch, accuracy.value, accuracy.standard_error, train_s()))
                if look.epoch == until:
                    raise StoppedError

        try:
            fitted = fit(
                architecture,
                workload,
                task,
                self._config.training,
                seed=seed,
                watch=Watch(frozenset(LOOKS), tell),
                checkpoints=CheckpointManager(
                    state, () if until is None else (until,), interval_s=math.inf
                ),
            )
        except StoppedError:
            return Training(key, tuple(looks), look_s)
        spent_s = train_s()
        state.unlink(missing_ok=True)
        runner = run_eagerly(compress(fitted.model, architecture)).call
        test = evaluate(runner, task.split("test"), batch_size=batch)
        validation = fitted.validation
        end = End(validation.value, validation.standard_error, test.value, spent_s)
        return Training(key, tuple(looks), look_s, end)


def search(
    config: SearchConfig, trainings: Trainings, folder: Path, *, audit: bool = False
) -> Outcome:
    """One search in this process, one candidate at a time.

    With ``audit`` stopped candidates are trained to their end afterwards, which nobody is charged
    for, to tell how many should not have been stopped.
    """
    workload = get_task(config.task).workload(config.batch_size)
    sampler = make_sampler(
        config.sampler,
        config.seed,
        config.space,
        workload,
        startup_trials=config.gate.startup_trials,
        stops_early=config.halving is not None,
    )
    store = StudyStore.create(folder, None, "halving", config.space, sampler)
    pool = CandidatePool.sample(config.space, config.seed)
    gate = Gate(workload, config.gate, seed=config.seed, pool=pool)
    session = Session(config, workload, store, gate)
    points: list[tuple[float, float, float]] = []
    volumes: list[tuple[float, float]] = []
    train_s: list[float] = []
    stopper = None if config.halving is None else Stopper(config.halving, session, gate)
    while (candidate := session.next_candidate()) is not None:
        record, cost_s, test = _run(candidate, config, trainings, stopper)
        if record.quality is not None:
            points.append((record.quality, test, math.log10(record.objectives[1])))
        session.finish(record)
        train_s.append((train_s[-1] if train_s else 0.0) + cost_s)
        volumes.append((volume(points, 0), volume(points, 1)))
    validation, on_test = zip(*volumes, strict=True)
    n_stopped = session.snapshot().stopped
    lost = _lost(session.records(), config, trainings) if audit else None
    return Outcome(validation, on_test, tuple(train_s), len(points), n_stopped, lost)


def _lost(records: Sequence[Trial], config: SearchConfig, trainings: Trainings) -> int:
    """How many stopped trials no complete one would dominate, were they complete."""
    workload = get_task(config.task).workload(config.batch_size)
    known = [r.objectives for r in records if r.state == "complete"]
    lost = 0
    for record in records:
        if record.state == "stopped":
            end = trainings.until(record.architecture, config.seed, None).end
            assert end is not None
            energy_j = joules(record.architecture, workload)
            lost += not any(a >= end.quality and e <= energy_j for a, e in known)
    return lost


def _run(
    candidate: Candidate,
    config: SearchConfig,
    trainings: Trainings,
    stopper: Stopper | None,
) -> tuple[Trial, float, float]:
    """What became of ``candidate``, its CPU seconds, and its accuracy on the test split."""
    epochs, architecture = config.training.epochs, candidate.architecture
    rungs = () if config.halving is None else config.halving.rungs(epochs)
    curve: tuple[RungPoint, ...] = ()
    for rung in rungs:
        found = trainings.until(architecture, config.seed, rung)
        look = found.at(rung)
        curve += (RungPoint(rung, look.quality, look.standard_error),)
        assert stopper is not None
        stopped = stopper.judge(candidate.number, Progress(curve, epochs))
        if stopped is not None:
            return Trial(candidate, stopped), look.train_s + len(curve) * found.look_s, math.nan
    found = trainings.until(architecture, config.seed, None)
    assert found.end is not None
    workload = get_task(config.task).workload(config.batch_size)
    reading = formula_reading(joules(architecture, workload), workload)
    complete = TrialOutcome(
        "complete",
        quality=Score(found.end.quality, found.end.standard_error),
        measurement=Measurement(reading),
        training=TrialTraining(curve, epochs),
    )
    return (
        Trial(candidate, complete),
        found.end.train_s + len(curve) * found.look_s,
        found.end.test_quality,
    )


def volume(points: Sequence[tuple[float, float, float]], which: int) -> float:
    """Hypervolume of ``(accuracy, accuracy on test, log10 joules)``, by one of the accuracies."""
    return hypervolume([(p[which], p[2]) for p in points], _REFERENCE, (True, False))


def pairs_of(
    seeds: Sequence[int],
    trials: int,
    cache: Path,
    halving: HalvingConfig,
    *,
    more: float = 1.0,
    audit: bool = False,
) -> Iterator[tuple[Outcome, Outcome]]:
    """Without and with halving, seed by seed; with it there are ``more`` times the candidates."""
    plain = replace(quickstart("cpu"), space=space(), trials=trials, batch_size=_BATCH)
    trainings = Trainings(cache, plain)
    for seed in seeds:
        both = []
        for chosen in (None, halving):
            with tempfile.TemporaryDirectory() as folder:
                config = replace(plain, seed=seed, halving=chosen)
                if chosen is not None:
                    config = replace(config, trials=round(more * trials))
                asked = audit and chosen is not None
                both.append(search(config, trainings, Path(folder), audit=asked))
        yield both[0], both[1]


def compared(pairs: Sequence[tuple[Outcome, Outcome]]) -> list[str]:
    """Paired differences over seeds, each with its 95% interval."""
    plain, halved = zip(*pairs, strict=True)

    def log_ratio(name: str) -> str:
        ours, theirs = ([math.log(getattr(o, name)[-1]) for o in arm] for arm in (halved, plain))
        return f"{name} {Difference.of(ours, theirs).points()}%"

    seconds = [h.train_s[-1] / p.train_s[-1] for p, h in pairs]
    half_width = Difference.of(seconds, [0.0] * len(seconds)).half_width
    equal = [math.log(h.validation[-1] / p.at(h.train_s[-1])) for p, h in pairs]
    lines = [
        f"hypervolume with halving: {log_ratio('validation')}, {log_ratio('test')}",
        f"training seconds with halving: x {mean(seconds):.2f} ± {half_width:.2f}",
        "hypervolume on validation with halving, at the seconds that it took: "
        f"{Difference.of(equal, [0.0] * len(equal)).points()}%",
    ]
    for name, arm in (("with", halved), ("without", plain)):
        half = [
            math.log(o.at(p.train_s[-1] / 2) / p.validation[-1])
            for o, p in zip(arm, plain, strict=True)
        ]
        lines.append(
            f"hypervolume on validation {name} halving at half of the plain search's seconds, "
            f"against its last: {Difference.of(half, [0.0] * len(half)).points()}%"
        )
    if all(o.lost is not None for o in halved):
        lost, stopped = sum(o.lost or 0 for o in halved), sum(o.stopped for o in halved)
        lines.append(f"of {stopped} stopped, {lost} would be on the last front")
    for share in _SHARES:
        goals = [share * p.validation[-1] for p in plain]
        times = [
            h.seconds_to(goal) / p.seconds_to(goal)
            for (p, h), goal in zip(pairs, goals, strict=True)
        ]
        reached = [f"{t:.2f}" for t in times if math.isfinite(t)]
        lines.append(
            f"seconds to {share:.0%} of the plain search's last hypervolume: "
            f"x {', '.join(reached) or '-'} ({len(reached)} of {len(times)} seeds)"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.halving", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--eta", type=int)
    parser.add_argument("--min-epochs", type=int)
    parser.add_argument("--startup-trials", type=int)
    parser.add_argument("--more", type=float, default=1.0, help="candidates with halving, times")
    parser.add_argument("--audit", action="store_true", help="train what was stopped afterwards")
    parser.add_argument("--cache", type=Path, default=Path("halving.jsonl"))
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "halving")
    torch.set_num_threads(1)
    epochs = quickstart("cpu").training.epochs
    changes = {
        name: getattr(arguments, name)
        for name in ("eta", "min_epochs", "startup_trials")
        if getattr(arguments, name) is not None
    }
    halving = replace(HalvingConfig.for_epochs(epochs), **changes)
    pairs, rows = [], []
    found = pairs_of(
        arguments.seeds,
        arguments.trials,
        arguments.cache,
        halving,
        more=arguments.more,
        audit=arguments.audit,
    )
    for seed, pair in zip(arguments.seeds, found, strict=True):
        pairs.append(pair)
        for name, o in zip(("plain", "halving"), pair, strict=True):
            rows.append(
                {
                    "seed": seed,
                    "search": name,
                    "complete": o.complete,
                    "stopped": o.stopped,
                    "validation": o.validation[-1],
                    "test": o.test[-1],
                    "train_s": o.train_s[-1],
                }
            )
        print(f"seed {seed}: {pair[0].train_s[-1] + pair[1].train_s[-1]:.0f} s", file=sys.stderr)
    columns = {
        "seed": "{seed}",
        "search": "{search}",
        "complete": "{complete}",
        "stopped": "{stopped}",
        "HV validation": "{validation:.4f}",
        "HV test": "{test:.4f}",
        "training, CPU s": "{train_s:.0f}",
    }
    first = f"{arguments.trials} candidates, rungs at {halving.rungs(epochs)} of {epochs} epochs"
    note = "\n".join([first, *(compared(pairs) if len(pairs) > 1 else [])])
    sheet.show(Table.of("searches", columns, rows), note=note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
