"""A search of the digits in this process, whose trainings are kept in a file and shared by seeds.

A candidate's training depends on its architecture and seed alone. Each search is charged for the
CPU seconds of all trainings that it requested, whichever search ran them first. Joules are a
closed form, not measured. Hypervolume is of (quality, log10 joules) of complete trials.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.benchmarks.one_process import open_session
from experiments.formula import formula_joules, formula_reading
from experiments.recipes import quickstart
from nas.core.estimate import Score
from nas.pareto.hypervolume import hypervolume
from nas.records.candidate import Measurement
from nas.records.candidate import Outcome as TrialOutcome
from nas.records.config import SearchConfig
from nas.records.trial import Trial
from nas.tasks.base import Task
from nas.tasks.registry import get_task
from nas.training.evaluate import evaluate
from nas.training.fit import Setting, fit
from search_spaces.architecture import Architecture
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.space import SearchSpace

_REFERENCE = (0.5, -3.5)


@dataclass(frozen=True, slots=True)
class Training:
    """One whole training: its results, and its CPU seconds."""

    key: str
    quality: float
    standard_error: float
    test_quality: float
    train_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One search: hypervolume, and CPU seconds of training, after each candidate."""

    validation: tuple[float, ...]
    test: tuple[float, ...]
    train_s: tuple[float, ...]

    def seconds_to(self, validation: float) -> float:
        """When a hypervolume on validation was reached, infinite where it was not."""
        pairs = zip(self.validation, self.train_s, strict=True)
        return next((s for v, s in pairs if v >= validation), math.inf)


def space() -> SearchSpace:
    """The quickstart's, with the precisions that run on any CPU."""
    data = quickstart("cpu").space.to_dict() | {
        "name": "digits-scratch",
        "attention_precision": ["fp32", "bf16"],
        "ffn_precision": ["fp32", "bf16"],
        "attention_sparsity": ["dense"],
        "ffn_sparsity": ["dense"],
    }
    return SearchSpace.from_dict(data)


class Trainings:
    """Trainings by architecture and seed, each run once and appended to a file."""

    def __init__(self, cache: Path, config: SearchConfig, task: Task | None = None) -> None:
        self._cache, self._config = cache, config
        self._task = task or get_task(config.task)
        self._trained: dict[str, Training] = {}
        if cache.is_file():
            for line in cache.read_text(encoding="utf-8").splitlines():
                training = Training(**json.loads(line))
                self._trained[training.key] = training

    def of(self, architecture: Architecture, seed: int) -> Training:
        """Return the training of ``architecture`` by ``seed``."""
        key = f"{architecture.hash}-{seed}"
        if key not in self._trained:
            training = self._trained[key] = self._train(key, architecture, seed)
            with self._cache.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(asdict(training)) + "\n")
        return self._trained[key]

    def _train(self, key: str, architecture: Architecture, seed: int) -> Training:
        task, batch_size = self._task, self._config.batch_size
        started = time.process_time()
        fitted = fit(
            architecture,
            Setting(task, task.workload(batch_size), seed=seed),
            self._config.training,
        )
        train_s = time.process_time() - started
        runner = run_eagerly(compress(fitted.model, architecture)).call
        test = evaluate(runner, task.split("test"), batch_size=batch_size)
        validation = fitted.validation
        return Training(key, validation.value, validation.standard_error, test.value, train_s)


def search(config: SearchConfig, trainings: Trainings, folder: Path) -> Outcome:
    """Run one search, one candidate at a time."""
    workload = get_task(config.task).workload(config.batch_size)
    session = open_session(config, workload, folder, "scratch")
    points: list[tuple[float, float, float]] = []
    volumes: list[tuple[float, float]] = []
    train_s: list[float] = []
    while (candidate := session.next_candidate()) is not None:
        training = trainings.of(candidate.architecture, config.seed)
        energy_j = formula_joules(candidate.architecture, workload)
        session.finish(
            Trial(
                candidate,
                TrialOutcome(
                    "complete",
                    quality=Score(training.quality, training.standard_error),
                    measurement=Measurement(formula_reading(energy_j, workload)),
                ),
            )
        )
        points.append((training.quality, training.test_quality, math.log10(energy_j)))
        train_s.append((train_s[-1] if train_s else 0.0) + training.train_s)
        volumes.append((volume(points, 0), volume(points, 1)))
    validation, test = zip(*volumes, strict=True)
    return Outcome(validation, test, tuple(train_s))


def volume(points: Sequence[tuple[float, float, float]], which: int) -> float:
    """Hypervolume of ``(quality, quality on test, log10 joules)``, by one of the qualities."""
    return hypervolume([(p[which], p[2]) for p in points], _REFERENCE, (True, False))
