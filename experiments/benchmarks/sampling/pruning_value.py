"""Hypervolume at equal CPU seconds with pruning on and off.

    python -m experiments.benchmarks.sampling.pruning_value --cache trainings.jsonl

Searches of the digits in this process, with and without pruning, of the same seed, sampler, space
and recipe. Trainings are real (``scratch_search``). Joules are a closed form whose labels have a
deviation between sessions and a smaller one within (``--noise``); both searches begin with labels
of ``--calibrated`` untrained members, as a calibrated search does. A search is charged for its
trainings, its own CPU seconds of sampler, surrogates and gate, and ``--label-s`` for each label.
Hypervolume is of (accuracy on validation, log10 of true joules); each pair is compared at the
seconds after which the shorter search ended.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.benchmarks.one_process import open_session
from experiments.benchmarks.paired import Difference
from experiments.benchmarks.training.scratch_search import Trainings, space, volume
from experiments.formula import formula_joules, formula_reading
from experiments.recipes import quickstart
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.core.estimate import Estimate, Score
from nas.records.candidate import Measurement, Outcome
from nas.records.config import SamplerName, SearchConfig
from nas.records.trial import Trial
from nas.searching.gating.gate import Gate, GateDecision
from nas.searching.gating.pruning import Pruning, PruningCounts, Verdict
from nas.tasks.registry import get_task
from predictors.energy.models import Observation
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

_BATCH = 512
# Deviation of labels within a session, as a share of that between sessions.
_WITHIN = 0.25


class KeepAll(Gate):
    """A gate that prunes nothing and lets every trained candidate be measured."""

    def judge(self, architecture: Architecture) -> GateDecision:
        """Return the predicted joules, and no reason."""
        return replace(super().judge(architecture), reason=None, verdict=Verdict.KEPT)

    def verdicts(self, batch: ArchitectureBatch) -> NDArray[np.int8]:
        """Keep every candidate."""
        return np.full(len(batch), Verdict.KEPT, dtype=np.int8)

    def quality_to_beat(self, energy_j: Estimate) -> float | None:
        """Return none: each candidate is measured."""
        return None


class Meter:
    """Labels of one search: true joules with the deviation of its session and of each label."""

    def __init__(self, workload: Workload, noise: float, seed: int) -> None:
        """Begin a session."""
        self._workload, self._noise = workload, noise
        self._rng = np.random.default_rng([seed, 17])
        self._session = self._rng.normal(0, noise)
        self.n = 0

    def true_j(self, architecture: Architecture) -> float:
        """Return joules a sample without any error."""
        return formula_joules(architecture, self._workload)

    def read(self, architecture: Architecture) -> EnergyReading:
        """Return a label whose interval contains the deviation between sessions."""
        self.n += 1
        error = self._session + self._rng.normal(0, _WITHIN * self._noise)
        reading = formula_reading(self.true_j(architecture) * math.exp(error), self._workload)
        return reading.between_sessions(self._noise)


@dataclass(frozen=True, slots=True)
class Curve:
    """One search: hypervolume and CPU seconds after each candidate, and what was pruned."""

    volumes: tuple[float, ...]
    cpu_s: tuple[float, ...]
    labels: int
    counts: PruningCounts

    def volume_at(self, seconds: float) -> float:
        """Return the hypervolume that was reached by then."""
        pairs = zip(self.volumes, self.cpu_s, strict=True)
        return max((volume for volume, spent_s in pairs if spent_s <= seconds), default=0.0)


@dataclass(frozen=True, slots=True)
class Costs:
    """What labels cost and how they err, and how many are measured before the first training."""

    label_s: float
    noise: float
    n_calibrated: int


def search(
    config: SearchConfig, trainings: Trainings, folder: Path, costs: Costs, *, prunes: bool
) -> Curve:
    """Run one search, one candidate at a time."""
    workload = get_task(config.task).workload(config.batch_size)
    meter = Meter(workload, costs.noise, config.seed)
    pruning = Pruning(config.space, seed=config.seed) if prunes else None
    session = open_session(
        config,
        workload,
        folder,
        "pruned" if prunes else "whole",
        make_gate=partial(Gate, pruning=pruning) if prunes else KeepAll,
        observations=calibration(config, meter, costs.n_calibrated),
    )
    points: list[tuple[float, float, float]] = []
    volumes, cpu_s, trained_s = [], [], 0.0
    started, training_s = time.process_time(), 0.0
    while (candidate := session.next_candidate()) is not None:
        before = time.process_time()
        training = trainings.of(candidate.architecture, config.seed)
        training_s += time.process_time() - before
        trained_s += training.train_s
        is_loser = (
            candidate.measure_above is not None and training.quality <= candidate.measure_above
        )
        reading = None if is_loser else meter.read(candidate.architecture)
        measurement = Measurement() if reading is None else Measurement(reading)
        score = Score(training.quality, training.standard_error)
        session.finish(
            Trial(candidate, Outcome("complete", quality=score, measurement=measurement))
        )
        true_j = meter.true_j(candidate.architecture)
        points.append((training.quality, training.test_quality, math.log10(true_j)))
        own_s = time.process_time() - started - training_s
        cpu_s.append(trained_s + own_s + costs.label_s * meter.n)
        volumes.append(volume(points, 0))
    return Curve(tuple(volumes), tuple(cpu_s), meter.n, session.snapshot().pruning)


def calibration(config: SearchConfig, meter: Meter, n: int) -> list[Observation]:
    """Return labels of ``n`` random members, which count as measured before the search."""
    rng = np.random.default_rng([config.seed, 7])
    members: dict[Architecture, None] = {}
    while len(members) < n:
        members[sample(config.space, rng)] = None
    workload = get_task(config.task).workload(config.batch_size)
    return [Observation.of_energy(m, workload, meter.read(m)) for m in members]


def pair(sampler: str, seed: int, on: Curve, off: Curve) -> dict[str, Any]:
    """Return both searches at the seconds after which the shorter one ended."""
    seconds = min(on.cpu_s[-1], off.cpu_s[-1])
    return {
        "sampler": sampler,
        "seed": seed,
        "seconds": seconds,
        "on": on.volume_at(seconds),
        "off": off.volume_at(seconds),
        "on_s": on.cpu_s[-1],
        "off_s": off.cpu_s[-1],
        "on_last": on.volumes[-1],
        "off_last": off.volumes[-1],
        "considered": on.counts.considered,
        "pruned": on.counts.share,
        "labels": on.labels,
        "off_labels": off.labels,
    }


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each sampler the mean ratio of hypervolumes with Student's 95% interval."""
    found = []
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        own = [row for row in rows if row["sampler"] == sampler]
        logs = ([math.log(row[way]) for row in own] for way in ("on", "off"))
        log_ratio = Difference.of(*logs)
        found.append(
            {
                "sampler": sampler,
                "seeds": len(own),
                "ratio": math.exp(log_ratio.mean),
                "low": math.exp(log_ratio.mean - log_ratio.half_width),
                "high": math.exp(log_ratio.mean + log_ratio.half_width),
                "pruned": float(np.mean([row["pruned"] for row in own])),
                "labels": sum(r["labels"] for r in own) / sum(r["off_labels"] for r in own),
                "seconds": sum(r["on_s"] for r in own) / sum(r["off_s"] for r in own),
            }
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.sampling.pruning_value",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--samplers", nargs="+", default=["ehvi", "random"])
    parser.add_argument("--seeds", type=int, default=5, help="two at least")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--noise", type=float, default=0.05, help="between sessions")
    parser.add_argument("--calibrated", type=int, default=12)
    parser.add_argument("--label-s", type=float, default=5.3, help="CPU seconds of a label")
    parser.add_argument("--cache", type=Path, default=Path("trainings.jsonl"))
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "pruning-value")
    torch.set_num_threads(1)
    plain = replace(quickstart("cpu"), space=space(), trials=arguments.trials, batch_size=_BATCH)
    if arguments.epochs is not None:
        plain = replace(plain, training=replace(plain.training, epochs=arguments.epochs))
    costs = Costs(arguments.label_s, arguments.noise, arguments.calibrated)
    trainings = Trainings(arguments.cache, plain)
    rows = []
    for seed in range(arguments.seeds):
        for sampler in arguments.samplers:
            name: SamplerName = sampler
            curves = []
            for prunes in (True, False):
                with tempfile.TemporaryDirectory() as folder:
                    config = replace(plain, seed=seed, sampler=name)
                    curves.append(search(config, trainings, Path(folder), costs, prunes=prunes))
            rows.append(pair(sampler, seed, *curves))
            print(f"{rows[-1]}", file=sys.stderr)
    sheet.show(
        Table.of(
            "ratios",
            {
                "sampler": "{sampler}",
                "hypervolume with / without": "{ratio:.3f} [{low:.3f}, {high:.3f}]",
                "seeds": "{seeds}",
                "pruned of what was considered": "{pruned:.0%}",
                "labels with / without": "{labels:.2f}",
                "CPU seconds with / without": "{seconds:.2f}",
            },
            means(rows),
        ),
        Table.of(
            "searches",
            {
                "sampler": "{sampler}",
                "seed": "{seed}",
                "at CPU s": "{seconds:.0f}",
                "with": "{on:.4f}",
                "without": "{off:.4f}",
                "at the end, with": "{on_last:.4f} ({on_s:.0f} s)",
                "without ": "{off_last:.4f} ({off_s:.0f} s)",
                "considered": "{considered}",
                "pruned": "{pruned:.0%}",
            },
            rows,
        ),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
