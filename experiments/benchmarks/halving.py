"""What stopping early saves: searches of the digits with and without halving, paired by seed.

    python -m experiments.benchmarks.halving --cache curves.jsonl

Both searches of a seed have the same sampler seed, gate, space and recipe (the quickstart's), run
one candidate at a time in this process and count CPU seconds of one thread, looks at the
validation split included. Joules are a closed form, not measured: ``joules`` says which. A
candidate's training depends on its architecture and seed alone, so each is trained once to its
end, its curve is kept in ``--cache``, and either search is charged for the epochs that it asked
for. Hypervolume is of (accuracy, log10 joules) of complete trials.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

import torch

from experiments.benchmarks.paired import Difference
from experiments.recipes import quickstart
from nas.pareto.hypervolume import hypervolume
from nas.searching.config import SearchConfig
from nas.searching.gate import Gate, Rivals
from nas.searching.halving import HalvingConfig, RungPoint
from nas.searching.samplers import make_sampler
from nas.searching.session import Session
from nas.searching.stopping import Progress, Stopper
from nas.searching.storage import StudyStore
from nas.searching.trial import TrialRecord
from nas.tasks.registry import get_task
from nas.training.evaluate import evaluate
from nas.training.fit import Look, Watch, fit
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.counting import count
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

# Where networks are looked at, so that any sensible rungs can be replayed from the cache.
LOOKS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15, 18, 20, 21, 24, 28, 30, 40, 45)
_REFERENCE = (0.5, -3.5)
_BATCH = 512


@dataclass(frozen=True, slots=True)
class Kept:
    """Validation accuracy after ``epoch``, and the CPU seconds of training until then."""

    epoch: int
    accuracy: float
    standard_error: float
    train_s: float


@dataclass(frozen=True, slots=True)
class Training:
    """A candidate trained to its end; ``look_s`` is what one look at validation costs."""

    key: str
    looks: tuple[Kept, ...]
    accuracy: float
    standard_error: float
    test_accuracy: float
    train_s: float
    look_s: float

    def cost_s(self, epochs: Sequence[int], *, stopped: bool) -> float:
        """CPU seconds with looks at ``epochs``, ``stopped`` at the last of them."""
        looks_s = len(epochs) * self.look_s
        if not stopped:
            return self.train_s + looks_s
        return next(look.train_s for look in self.looks if look.epoch == epochs[-1]) + looks_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """One search: what it found and what its training cost."""

    validation: float
    test: float
    train_s: float
    complete: int
    stopped: int


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


class Trainings:
    """Trainings by architecture and seed, each done once."""

    def __init__(self, path: Path, config: SearchConfig) -> None:
        self._path, self._config = path, config
        self._task = get_task(config.task)
        self._known: dict[str, Training] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                data = json.loads(line)
                looks = tuple(Kept(**look) for look in data.pop("looks"))
                self._known[data["key"]] = Training(looks=looks, **data)

    def of(self, architecture: Architecture, seed: int) -> Training:
        key = f"{architecture.hash}/{seed}"
        if key not in self._known:
            self._known[key] = self._train(key, architecture, seed)
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(asdict(self._known[key])) + "\n")
        return self._known[key]

    def _train(self, key: str, architecture: Architecture, seed: int) -> Training:
        workload = self._task.workload(self._config.batch_size)
        seen: list[tuple[Look, float]] = []
        started = time.process_time()

        def tell(look: Look) -> None:
            seen.append((look, time.process_time() - started))

        watch = Watch(frozenset(LOOKS), tell)
        training = self._config.training
        fitted = fit(architecture, workload, self._task, training, seed=seed, watch=watch)
        total_s = time.process_time() - started
        runner = run_eagerly(compress(fitted.model, architecture)).call
        test = evaluate(runner, self._task.split("test"), batch_size=self._config.batch_size)
        plain = run_eagerly(fitted.model.eval()).call
        started = time.process_time()
        evaluate(plain, self._task.split("validation"), batch_size=self._config.batch_size)
        look_s = time.process_time() - started
        return Training(
            key,
            tuple(
                Kept(
                    look.epoch,
                    look.accuracy.value,
                    look.accuracy.standard_error,
                    at_s - (i + 1) * look_s,
                )
                for i, (look, at_s) in enumerate(seen)
            ),
            fitted.validation.value,
            fitted.validation.standard_error,
            test.value,
            total_s - len(seen) * look_s,
            look_s,
        )


def search(config: SearchConfig, trainings: Trainings, folder: Path) -> Outcome:
    """One search in this process, one candidate at a time."""
    workload = get_task(config.task).workload(config.batch_size)
    gate_config = config.gate
    sampler = make_sampler(
        config.sampler,
        config.seed,
        config.space,
        workload,
        startup_trials=gate_config.startup_trials,
        stops_early=config.halving is not None,
    )
    store = StudyStore.create(folder, None, "halving", config.space, sampler)
    rivals = Rivals.sample(config.space, config.seed)
    gate = Gate(workload, gate_config, max_joules=None, seed=config.seed, rivals=rivals)
    session = Session(config, workload, store, gate)
    stopper = None if config.halving is None else Stopper(config.halving, session, gate)
    train_s, points = 0.0, []
    while (candidate := session.next_candidate()) is not None:
        found = trainings.of(candidate.architecture, config.seed)
        curve: list[RungPoint] = []
        record: TrialRecord | None = None
        rungs = () if config.halving is None else config.halving.rungs(config.training.epochs)
        for look in (look for look in found.looks if look.epoch in rungs):
            curve.append(RungPoint(look.epoch, look.accuracy, look.standard_error))
            assert stopper is not None
            progress = Progress(tuple(curve), config.training.epochs)
            record = stopper.judge(candidate.number, progress)
            if record is not None:
                break
        train_s += found.cost_s([p.epoch for p in curve], stopped=record is not None)
        if record is None:
            energy_j = joules(candidate.architecture, workload)
            points.append((found.accuracy, found.test_accuracy, math.log10(energy_j)))
            record = replace(
                candidate,
                state="complete",
                accuracy=found.accuracy,
                accuracy_se=found.standard_error,
                reading=_reading(energy_j, workload),
                curve=tuple(curve),
            )
        session.finish(record)
    volumes = [
        hypervolume([(p[i], p[2]) for p in points], _REFERENCE, (True, False)) for i in (0, 1)
    ]
    n_stopped = session.snapshot().stopped
    return Outcome(volumes[0], volumes[1], train_s, len(points), n_stopped)


def _reading(energy_j: float, workload: Workload) -> EnergyReading:
    return EnergyReading(
        energy_j=energy_j,
        low_j=energy_j * 0.98,
        high_j=energy_j * 1.02,
        n_repeats=6,
        converged=True,
        meter="formula",
        source="formula",
        is_estimate=True,
        device="none",
        workload=workload.key,
        batch_size=workload.batch_size,
        latency_s=1e-3,
        power_w=1.0,
        duration_s=1.0,
        protocol_hash="0" * 12,
    )


def rows(
    seeds: Sequence[int], trials: int, cache: Path, halving: HalvingConfig
) -> Iterator[tuple[Outcome, Outcome]]:
    """Without and with halving, seed by seed."""
    plain = replace(quickstart("cpu"), space=space(), trials=trials, batch_size=_BATCH)
    trainings = Trainings(cache, plain)
    for seed in seeds:
        both = []
        for chosen in (None, halving):
            with tempfile.TemporaryDirectory() as folder:
                config = replace(plain, seed=seed, halving=chosen)
                both.append(search(config, trainings, Path(folder)))
        yield both[0], both[1]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--eta", type=int)
    parser.add_argument("--min-epochs", type=int)
    parser.add_argument("--startup-trials", type=int)
    parser.add_argument("--cache", type=Path, default=Path("halving.jsonl"))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    halving = HalvingConfig.for_epochs(quickstart("cpu").training.epochs)
    changes = {
        name: getattr(arguments, name)
        for name in ("eta", "min_epochs", "startup_trials")
        if getattr(arguments, name) is not None
    }
    halving = replace(halving, **changes)
    print(halving)
    print(
        f"{'seed':>4} {'search':<8} {'complete':>8} {'stopped':>7} "
        f"{'HV val':>7} {'HV test':>7} CPU"
    )
    pairs = []
    seeds = range(1, arguments.seeds + 1)
    for seed, pair in zip(
        seeds, rows(seeds, arguments.trials, arguments.cache, halving), strict=True
    ):
        pairs.append(pair)
        for name, o in zip(("plain", "halving"), pair, strict=True):
            print(
                f"{seed:>4} {name:<8} {o.complete:>8} {o.stopped:>7} {o.validation:7.4f} "
                f"{o.test:7.4f} {o.train_s:4.0f} s",
                flush=True,
            )
    plain, halved = zip(*pairs, strict=True)
    for name in ("validation", "test"):
        ours, theirs = ([getattr(o, name) for o in arm] for arm in (halved, plain))
        apart = Difference.of([math.log(v) for v in ours], [math.log(v) for v in theirs])
        print(f"hypervolume, {name}: {apart.points()} % with halving")
    ratios = [h.train_s / p.train_s for p, h in pairs]
    spread = Difference.of(ratios, [0.0] * len(ratios))
    print(f"training seconds: x {mean(ratios):.2f} ± {spread.half_width:.2f} with halving")
    return 0


if __name__ == "__main__":
    sys.exit(main())
