"""A search whose processes are killed at random, next to one that nothing befalls.

    python -m experiments.benchmarks.chaos --kills 100 --keep

A Ray of four nodes on this machine (one to lead, two that train, one that measures), a search on
it, and so many ``kill -9``, drawn from a seed: of the driver, of a worker that trains, of a
process that measures, of a whole node, which is replaced. A driver that was killed is started
again as ``nas resume`` does. Then the trials that it completed are evaluated by a second search of
the same seed that is left alone, and both fronts are compared.

Each trial trains a small classifier on digits by gradient descent, from a seed that follows from
its architecture, so that who evaluates it, when and how often changes nothing in its figures.
Joules are a formula: what is tried here is whether anything is lost, not what it costs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nas
from experiments.benchmarks.formula import formula_reading
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.core.estimate import Score
from nas.core.files import read_json, write_atomic, write_json
from nas.core.retry import is_os_error, persist
from nas.evaluation.evaluator import Measure
from nas.records.candidate import Candidate, Measurement, Outcome
from nas.records.config import GateConfig, SearchConfig
from nas.records.rungs import Tell
from nas.records.spent import Spent
from nas.records.trial import Trial
from nas.store.run import Run
from nas.tasks.registry import get_task
from predictors.measurement.protocol import Protocol, get_protocol
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
KINDS = ("driver", "worker", "measurement", "node")
SHARES = (0.25, 0.4, 0.2, 0.15)
# Seconds from one kill to the next, and that an epoch and a measurement take at least.
PAUSE_S, EPOCH_S, MEASURE_S = (0.3, 3.0), 0.25, 0.5
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class SmallEvaluator:
    """A softmax on random features of digits; see the module's description."""

    alive: Path
    epoch_s: float

    def evaluate(
        self, candidate: Candidate, folder: Path, measure: Measure, tell: Tell | None = None
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
        return formula_record(architecture, workload, protocol)

    return measure


def formula_record(
    architecture: Architecture, workload: Workload, protocol: Protocol
) -> EnergyRecord:
    counts = count(architecture, workload)
    energy_j = 1e-6 + 1e-10 * sum(
        block.macs * (0.5 if block.precision == "bf16" else 1.0) for block in counts.blocks
    )
    reading = formula_reading(energy_j, workload, protocol_hash=protocol.hash)
    return EnergyRecord(
        architecture=architecture,
        workload=workload,
        reading=reading,
        repeats_j=(energy_j,) * 6,
        job="chaos",
        mode="eager",
        date="2026-11-26T00:00:00.000+00:00",
        versions={},
        protocol=protocol.to_dict(),
        spent_energy_j=1.0,
        session="chaos",
        order=0,
    )


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


class Chaos:
    """The cluster, the driver on it, and who is killed next."""

    def __init__(self, folder: Path, trials: int, seed: int) -> None:
        from ray.cluster_utils import Cluster

        self.run, self.alive = folder / "run", folder / "alive"
        self.alive.mkdir(parents=True)
        self._trials, self._seed = trials, seed
        self._random = random.Random(seed)
        self._log = (folder / "driver.log").open("a")
        plain = {"include_dashboard": False, "object_store_memory": 80 * 1024 * 1024}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "resources": {"lead": 1}, **plain}
        )
        self._kinds = [
            {"num_cpus": 1, **plain},
            {"num_cpus": 1, **plain},
            {"num_cpus": 0, "resources": {"joule_meter": 1}, **plain},
        ]
        self._nodes = [self._cluster.add_node(**kind) for kind in self._kinds]
        self.address = self._cluster.address
        self.killed: Counter[str] = Counter()
        self.finished: dict[int, Trial] = {}
        self.driver = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        code = "import sys; from experiments.benchmarks.chaos import drive; drive(*sys.argv[1:])"
        arguments = (self.run, self.address, self.alive, self._trials, self._seed)
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            stdout=self._log,
            stderr=self._log,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JOULENAS_PATIENCE_S": "60"},
        )

    def go_on(self, more: int = 0) -> bool:
        """Start the driver again if it has ended; whether the search is over."""
        code = self.driver.poll()
        if code is None:
            return False
        if code == 0:
            if not more:
                return True
            self._trials += more
        elif code != -signal.SIGKILL:
            raise RuntimeError(f"a driver ended with code {code}; see driver.log")
        self.driver = self._start()
        return False

    def kill(self) -> None:
        """Kill one process, drawn at random, of a kind drawn at random."""
        kind = self._random.choices(KINDS, SHARES)[0]
        time.sleep(self._random.uniform(*PAUSE_S))
        # What has finished by now must be there, as it is, at the end.
        self.look()
        if kind == "driver":
            self.driver.kill()
            self.driver.wait()
        elif kind == "node":
            index = self._random.randrange(len(self._nodes))
            self._cluster.remove_node(self._nodes[index], allow_graceful=False)
            self._nodes[index] = self._cluster.add_node(**self._kinds[index])
        elif not self._kill_process(kind):
            return
        self.killed[kind] += 1

    def _kill_process(self, kind: str) -> bool:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.driver.poll() is None:
            pids = [int(mark.name.split("-")[1]) for mark in self.alive.glob(f"{kind}-*")]
            known = [pid for pid in pids if _is_of_ray(pid)]
            if known:
                os.kill(self._random.choice(known), signal.SIGKILL)
                return True
            time.sleep(0.05)
        return False

    def look(self) -> None:
        """Compare what had finished with what the study says now.

        Raises:
            AssertionError: something is lost or another thing than before.
        """
        if not (self.run / "records.jsonl").is_file():
            return
        now = {r.number: r for r in nas.load(self.run).records() if r.state != "running"}
        for number, record in self.finished.items():
            assert now.get(number) == record, f"trial {number} was finished and is not as it was"
        self.finished = now

    def close(self) -> None:
        if self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        self._cluster.shutdown()
        self._log.close()


def _is_of_ray(pid: int) -> bool:
    """Whether the process lives and is a worker of Ray's: numbers are given again."""
    try:
        return b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def front_of(run: Run) -> list[list[Any]]:
    return sorted([m.architecture_text, m.quality, m.energy_j] for m in run.front())


def undisturbed(folder: Path, chaotic: list[Trial], seed: int) -> Run:
    """A search that is left alone, of the same seed and over the same candidates."""
    folder.mkdir()
    write_json(folder / "baselines.json", [r.architecture.to_dict() for r in chaotic])
    code = "import sys; from experiments.benchmarks.chaos import drive; drive(*sys.argv[1:])"
    arguments = (folder / "run", "local", folder, len(chaotic), seed)
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return nas.load(folder / "run")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.chaos", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--trials", type=int, default=60, help="at least; more while kills go on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keeps the runs (default: removed)")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, f"chaos-seed{arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="joulenas-chaos-") as scratch:
        result = compare(arguments.folder or Path(scratch), arguments)
    sheet.show(table_of(result))
    good = result["lost"] == result["duplicated"] == 0 and result["fronts_are_equal"]
    return 0 if good else 1


def table_of(result: dict[str, Any]) -> Table:
    """One row: what was killed, and what became of the search."""
    return Table.of(
        "kills",
        {
            "seed": "{seed}",
            "kills: driver, worker, measurement, node": (
                "{kills_driver}, {kills_worker}, {kills_measurement}, {kills_node}"
            ),
            "trials": "{trials}",
            "complete": "{complete}",
            "failed": "{failed}",
            "lost": "{lost}",
            "duplicated": "{duplicated}",
            "epochs again": "{epochs_trained_again}",
            "on the front": "{front}",
            "front as undisturbed": "{fronts_are_equal}",
            "seconds": "{chaos_s}",
        },
        [result],
    )


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    os.environ["PYTHONPATH"] = str(ROOT)
    chaos = Chaos(folder, arguments.trials, arguments.seed)
    try:
        while chaos.killed.total() < arguments.kills:
            chaos.kill()
            chaos.go_on(more=20)
            print(f"{chaos.killed.total()} {dict(chaos.killed)}", file=sys.stderr, flush=True)
        while not chaos.go_on():
            time.sleep(0.2)
        chaos.look()
    finally:
        chaos.close()
    chaos_s = time.perf_counter() - started
    run = nas.load(chaos.run)
    records = run.records()
    complete = [r for r in records if r.state == "complete"]
    hashes = Counter(r.architecture.hash for r in records if r.state != "dropped")
    epochs = [
        Counter((run.trial_folder(r.number) / "epochs").read_text().split()) for r in complete
    ]
    calm = undisturbed(folder / "calm", complete, arguments.seed)
    figures = {r.architecture.hash: (r.quality, r.energy_j) for r in complete}
    calm_figures = {r.architecture.hash: (r.quality, r.energy_j) for r in calm.records()}
    return {
        **{f"kills_{kind}": chaos.killed[kind] for kind in KINDS},
        "seed": arguments.seed,
        "trials": len(records),
        "complete": len(complete),
        "failed": len(failed := [r for r in records if r.state == "failed"]),
        "failed_reasons": "; ".join(sorted({str(r.reason) for r in failed})),
        # Asserted at each kill and at the end: nothing that had finished is lost or changed.
        "lost": sum(number not in {r.number for r in records} for number in chaos.finished),
        "duplicated": sum(n - 1 for n in hashes.values()),
        "epochs_trained": sum(c.total() for c in epochs),
        "epochs_trained_again": sum(c.total() - len(c) for c in epochs),
        "front": len(run.front()),
        "fronts_are_equal": front_of(run) == front_of(calm),
        "figures_are_equal": figures == calm_figures,
        "chaos_s": round(chaos_s),
        "protocol": get_protocol("quick").hash,
    }


if __name__ == "__main__":
    sys.exit(main())
