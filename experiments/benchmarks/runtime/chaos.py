"""A search whose processes are killed at random, next to one that nothing befalls.

    python -m experiments.benchmarks.runtime.chaos --kills 100 --keep

A Ray of four nodes on this machine (one to lead, two that train, one that measures), a search on
it, and so many ``kill -9``, drawn from a seed: of the driver, of a worker that trains, of a
process that measures, of a whole node, which is replaced. A driver that was killed is started
again as ``nas resume`` does. Then the trials that it completed are evaluated by a second search of
the same seed that is left alone, and both fronts are compared.

Trainings are small and joules are a formula (``chaos_search``): the question is whether anything
is lost, not what it costs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import nas
from experiments.benchmarks.runtime import chaos_search
from experiments.results.sheet import ROOT, Sheet, add_keep_option
from experiments.results.table import Table
from nas.core.files import write_json
from nas.records.trial import Trial
from nas.store.run import Run
from predictors.measurement.protocol import get_protocol

KINDS = ("driver", "worker", "measurement", "node")
SHARES = (0.25, 0.4, 0.2, 0.15)
# Seconds from one kill to the next.
PAUSE_S = (0.3, 3.0)
_DRIVE = f"import sys; from {chaos_search.__name__} import drive; drive(*sys.argv[1:])"


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
        arguments = (self.run, self.address, self.alive, self._trials, self._seed)
        return subprocess.Popen(
            [sys.executable, "-c", _DRIVE, *map(str, arguments)],
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
        self.compare_finished()
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

    def compare_finished(self) -> None:
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
    arguments = (folder / "run", "local", folder, len(chaotic), seed)
    subprocess.run(
        [sys.executable, "-c", _DRIVE, *map(str, arguments)],
        cwd=ROOT,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return nas.load(folder / "run")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.runtime.chaos", description=__doc__.splitlines()[0]
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
        chaos.compare_finished()
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
