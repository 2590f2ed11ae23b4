"""The search that ``chaos`` disturbs: small trainings and joules by a formula.

Each trial trains a small classifier on digits by gradient descent from a seed that follows from
its architecture, so its figures do not depend on who evaluates it, when and how often. A process
that may be killed marks itself by a file.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nas
from experiments.formula import formula_record
from nas.core.estimate import Score
from nas.core.files import read_json, write_atomic, write_json
from nas.core.retry import is_os_error, persist
from nas.evaluation.in_runtimes import Measure
from nas.records.candidate import Candidate, Measurement, Outcome
from nas.records.config import GateConfig, SearchConfig
from nas.records.rungs import OnProgress
from nas.records.spent import Spent
from nas.tasks.registry import get_task
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord
from search_spaces.architecture import Architecture
from search_spaces.cost.counting import count
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

WORKLOAD = Workload("digits", "image_classification", (1, 8, 8), 10, 64)
SPACE = SearchSpace.from_dict(
    {
        "name": "chaos",
        "d_model": [16, 32, 48, 64, 96],
        "depth": [1, 2, 3, 4],
        "n_heads": [1, 2, 4],
        "n_kv_heads": [1, 2, 4],
        "ffn_ratio": [0.5, 1, 2, 4],
        "patch_size": [2, 4],
        "attention_precision": ["fp32", "bf16"],
        "ffn_precision": ["fp32", "bf16"],
    }
)
EPOCHS = 4
# Least seconds of an epoch and of a measurement.
EPOCH_S, MEASURE_S = 0.25, 0.5


@dataclass(frozen=True)
class SmallEvaluator:
    """A softmax on random features of digits; see the module's description."""

    alive: Path
    epoch_s: float

    def evaluate(
        self, candidate: Candidate, folder: Path, measure: Measure, tell: OnProgress | None = None
    ) -> Outcome:
        """See ``nas.evaluation.evaluator.Evaluator.evaluate``."""
        with _alive(self.alive, "worker"):
            accuracy, error = self._train(candidate.architecture, folder)
            record = measure(
                candidate.architecture, WORKLOAD, folder / "state.npy", folder / "state.npy"
            )
        return Outcome(
            "complete",
            quality=Score(accuracy, error),
            params=count(candidate.architecture, WORKLOAD).params,
            measurement=Measurement(record.reading),
            spent=Spent(train_energy_j=1.0, measure_energy_j=record.spent_energy_j),
        )

    def _train(self, architecture: Architecture, folder: Path) -> tuple[float, float]:
        task = get_task("digits")
        train, validation = task.split("train"), task.split("validation")
        rng = np.random.default_rng(int(architecture.hash, 16))
        x = train.inputs.reshape(len(train), -1) / 16
        random_DF = rng.normal(size=(x.shape[1], architecture.d_model))
        weights_FC, start = _restored(folder, (architecture.d_model, 10))
        for epoch in range(start + 1, EPOCHS + 1):
            began = time.perf_counter()
            for _ in range(10 * architecture.depth):
                features_NF = np.maximum(x @ random_DF, 0)
                logits_NC = features_NF @ weights_FC
                logits_NC -= logits_NC.max(axis=1, keepdims=True)
                p_NC = np.exp(logits_NC)
                p_NC /= p_NC.sum(axis=1, keepdims=True)
                p_NC[np.arange(len(x)), train.targets] -= 1
                weights_FC = weights_FC - 0.5 * features_NF.T @ p_NC / len(x)
            _keep(folder, weights_FC, epoch)
            time.sleep(max(0.0, self.epoch_s - (time.perf_counter() - began)))
        v = validation.inputs.reshape(len(validation), -1) / 16
        right = (np.maximum(v @ random_DF, 0) @ weights_FC).argmax(axis=1) == validation.targets
        accuracy = float(right.mean())
        return accuracy, float(np.sqrt(accuracy * (1 - accuracy) / len(right)) + 1e-6)


def _restored(folder: Path, shape: tuple[int, int]) -> tuple[np.ndarray[Any, Any], int]:
    try:
        epoch = int(read_json(folder / "state.json")["epoch"])
        return np.load(folder / f"state-{epoch}.npy", allow_pickle=False), epoch
    except (ValueError, OSError):
        return np.zeros(shape), 0


def _keep(folder: Path, weights: np.ndarray[Any, Any], epoch: int) -> None:
    def write(path: Path) -> None:
        with path.open("wb") as handle:
            np.save(handle, weights, allow_pickle=False)

    write_atomic(folder / f"state-{epoch}.npy", write)
    # Last: what it names is whole.
    write_json(folder / "state.json", {"epoch": epoch})
    (folder / f"state-{epoch - 1}.npy").unlink(missing_ok=True)
    persist(lambda: _append(folder / "epochs", epoch), is_os_error)


def _append(path: Path, epoch: int) -> None:
    with path.open("a") as log:
        log.write(f"{epoch}\n")


@contextlib.contextmanager
def _alive(folder: Path, kind: str) -> Any:
    """Say that this process is one that may be killed."""
    mark = folder / f"{kind}-{os.getpid()}"
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def make_measure(alive: Path, at_least_s: float) -> Any:
    """What the measuring task runs: a formula, and a while in which it can be killed."""

    def measure(
        architecture: Architecture, workload: Workload, *, protocol: Protocol, **_: Any
    ) -> EnergyRecord:
        with _alive(alive, "measurement"):
            time.sleep(at_least_s)
        return formula_record(architecture, workload, energy_j(architecture, workload), protocol)

    return measure


def energy_j(architecture: Architecture, workload: Workload) -> float:
    """Return joules per sample by a formula."""
    blocks = count(architecture, workload).blocks
    macs = sum(block.macs * (0.5 if block.precision == "bf16" else 1.0) for block in blocks)
    return 1e-6 + 1e-10 * macs


def config_of(trials: int, seed: int, baselines: tuple[Architecture, ...] = ()) -> SearchConfig:
    return SearchConfig(
        task="digits",
        space=SPACE,
        trials=trials,
        batch_size=WORKLOAD.batch_size,
        seed=seed,
        sampler="random",
        meter="estimate",
        protocol="quick",
        # Without a gate: which trials it drops depends on which have ended.
        gate=GateConfig(startup_trials=10**6),
        baselines=baselines,
    )


def drive(folder: str, address: str, alive: str, trials: str, seed: str) -> None:
    """A driver in a process of its own: begins the run, or goes on with it."""
    from nas.cluster import driver as ray_driver
    from nas.searching import study

    run, is_slow = Path(folder), address != "local"
    measure = make_measure(Path(alive), MEASURE_S if is_slow else 0.0)
    ray_driver.RayMeasure = functools.partial(  # type: ignore[misc,assignment]
        ray_driver.RayMeasure, function=measure
    )
    study.TrainingEvaluator = lambda *_: SmallEvaluator(  # type: ignore[misc,assignment]
        Path(alive), EPOCH_S if is_slow else 0.0
    )
    if (run / "run.json").is_file():
        nas.resume(run, trials=int(trials))
    else:
        for left in run.glob("*") if run.is_dir() else ():
            # Killed before it had a configuration to go on with.
            left.unlink() if left.is_file() else left.rmdir()
        baselines = Path(alive) / "baselines.json"
        known = read_json(baselines) if baselines.is_file() else []
        config = config_of(int(trials), int(seed), tuple(Architecture.from_dict(a) for a in known))
        nas.search(config, run, workers=2, address=address)
