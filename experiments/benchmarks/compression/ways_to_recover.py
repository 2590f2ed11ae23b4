"""Cuts of a checkpoint recovered each alone, by one supernet, or with early stopping.

    python -m experiments.benchmarks.compression.ways_to_recover --arm alone \
        --from build/checkpoints/all-minilm-l6-v2 --task work/sst2-2400.yaml --work work/ways

Each arm has the same CPU seconds (``--minutes`` of one thread, the fine-tuning of the checkpoint
apart) and, of a seed, the same cuts in the same order:

* *alone*: cuts are trained shortly, one after the other; the last third of the seconds trains
  those on the front for all epochs, as finalists are.
* *supernet*: half of the seconds train the checkpoint as a supernet (``shared_parent``); a sixth
  judges cuts by their slices; the rest trains those on the front shortly, each from its slice.
* *stopped*: cuts are trained for all epochs and judged after each; one that another dominates at
  the same epoch beyond noise is stopped, as ``nas search --halving`` does.

Compared is the hypervolume of (validation quality, log10 joules by a formula), from half of the
samples right and the checkpoint's joules. Every network that was ready in time counts. Each arm of
a seed is kept in ``--work`` when it is done; without ``--arm`` the table is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from experiments.benchmarks.compression.recoveries import (
    Recoveries,
    add_parent_options,
    cuts_in_order,
    dense_config,
)
from experiments.benchmarks.compression.shared_parent import SharedParent, train_shared
from experiments.benchmarks.paired import Difference
from experiments.formula import formula_joules
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.pareto.dominance import non_dominated_mask
from nas.pareto.hypervolume import hypervolume
from nas.records.rungs import RungPoint
from nas.searching.early_stopping import Contender, dominating
from search_spaces.architecture import Architecture
from search_spaces.models.transformer import Transformer

ARMS = ("alone", "supernet", "stopped")
_FINALISTS_SHARE, _SUPERNET_SHARE, _JUDGE_SHARE = 1 / 3, 1 / 2, 1 / 6
_SLICES = {"attention_rank": [None], "ffn_rank": [None]}


@dataclass(frozen=True, slots=True)
class Result:
    """An arm of one seed: its hypervolume, and what it trained and judged."""

    arm: str
    seed: int
    minutes: float
    volume: float
    best_quality: float
    n_trained: int
    n_judged: int
    n_stopped: int
    cpu_s: float


class Budget:
    """CPU seconds of this process, from its creation."""

    def __init__(self, cpu_s: float) -> None:
        self.cpu_s, self._began_s = cpu_s, time.process_time()

    @property
    def spent_s(self) -> float:
        return time.process_time() - self._began_s

    def left(self, share: float = 1.0) -> bool:
        """Whether this share of the seconds is not spent yet."""
        return self.spent_s < share * self.cpu_s


class Arm:
    """One arm of one seed; ``points`` are (quality, log10 joules) of networks ready in time."""

    def __init__(self, recoveries: Recoveries, minutes: float) -> None:
        self._recoveries, self._budget = recoveries, Budget(60 * minutes)
        self._cuts = cuts_in_order(recoveries.config.space, recoveries.config.seed)
        self.points: list[tuple[float, float]] = []
        self.n_trained = self.n_judged = self.n_stopped = 0
        self.found: list[tuple[Architecture, float]] = []

    @property
    def cpu_s(self) -> float:
        return self._budget.spent_s

    def alone(self) -> None:
        """Short trainings, then long ones of the front's."""
        epochs = self._recoveries.config.training.epochs
        share = self._recoveries.config.training.recovery.inherit_share or 1.0
        for cut in self._cuts:
            if not self._budget.left(1 - _FINALISTS_SHARE):
                break
            self._train(cut, self._recoveries.cut, max(1, round(share * epochs)))
        for cut in self._front():
            if self._budget.left():
                self._train(cut, self._recoveries.cut, epochs)

    def supernet(self) -> None:
        """One training for all, slices judged, then short trainings from them."""
        training = self._recoveries.config.training
        shared = SharedParent(self._recoveries)
        budget_s = _SUPERNET_SHARE * self._budget.cpu_s
        train_shared(shared, self._recoveries, budget_s, time.process_time)
        for cut in self._cuts:
            if not self._budget.left(_SUPERNET_SHARE + _JUDGE_SHARE):
                break
            self._judge(cut, shared.extracted(cut))
        share = training.recovery.inherit_share or 1.0
        for cut in self._front():
            if self._budget.left():
                self._train(cut, shared.extracted, max(1, round(share * training.epochs)))

    def stopped(self) -> None:
        """Long trainings, stopped where another is better at the same epoch for no more joules."""
        rungs: dict[int, list[Contender]] = {}
        for cut in self._cuts:
            if not self._budget.left():
                break
            self._train_watched(cut, rungs)

    def _train(
        self, cut: Architecture, start: Callable[[Architecture], Transformer], epochs: int
    ) -> None:
        network = self._recoveries.trained(start(cut), epochs)
        self.n_trained += 1
        self._judge(cut, network)

    def _train_watched(self, cut: Architecture, rungs: dict[int, list[Contender]]) -> None:
        recoveries = self._recoveries
        number, energy_j = self.n_trained, formula_joules(cut, recoveries.workload)
        self.n_trained += 1
        epochs = recoveries.config.training.epochs
        network = recoveries.cut(cut)

        def look(epoch: int, _: float) -> None:
            if epoch == epochs:
                return
            quality = recoveries.setting.quality(network.eval())
            network.train()
            point = RungPoint(epoch, quality.value, quality.standard_error)
            rung = rungs.setdefault(epoch, [])
            contender = Contender(number, point, energy_j)
            better = dominating(contender, rung)
            rung.append(contender)
            if better is not None:
                raise _StoppedError

        try:
            training = replace(recoveries.config.training, epochs=epochs)
            recoveries.setting.train(network, training, on_epoch=look)
        except _StoppedError:
            self.n_stopped += 1
        else:
            self._judge(cut, network.eval())

    def _judge(self, cut: Architecture, network: Transformer) -> None:
        quality = self._recoveries.setting.quality(network).value
        self.n_judged += 1
        if self._budget.left():
            energy_j = formula_joules(cut, self._recoveries.workload)
            self.points.append((quality, math.log10(energy_j)))
            self.found.append((cut, quality))

    def _front(self) -> Iterator[Architecture]:
        """Yield the cuts on the front, then those of the next fronts, the best first."""
        left = list(self.found)
        while left:
            rows = [
                (quality, formula_joules(cut, self._recoveries.workload)) for cut, quality in left
            ]
            mask = non_dominated_mask(rows, (True, False))
            layer = [each for each, is_on in zip(left, mask, strict=True) if is_on]
            yield from (cut for cut, _ in sorted(layer, key=lambda each: -each[1]))
            left = [each for each, is_on in zip(left, mask, strict=True) if not is_on]


class _StoppedError(Exception):
    """Ends a training at a rung."""


def run_arm(recoveries: Recoveries, arm: str, minutes: float) -> Result:
    """Run one arm of the seed of ``recoveries``."""
    made = Arm(recoveries, minutes)
    {"alone": made.alone, "supernet": made.supernet, "stopped": made.stopped}[arm]()
    parent = recoveries.teacher.architecture
    reference = (0.5, math.log10(formula_joules(parent, recoveries.workload)))
    return Result(
        arm,
        recoveries.config.seed,
        minutes,
        hypervolume(made.points, reference, (True, False)) if made.points else 0.0,
        max((quality for quality, _ in made.points), default=0.0),
        made.n_trained,
        made.n_judged,
        made.n_stopped,
        round(made.cpu_s, 1),
    )


def read_results(path: Path, minutes: float) -> dict[tuple[str, int], Result]:
    """Return the results of arms of so many minutes in a file, by arm and seed."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    results = [Result(**json.loads(line)) for line in lines]
    return {(r.arm, r.seed): r for r in results if r.minutes == minutes}


def table_of(results: Sequence[Result], minutes: float, task: str) -> Table:
    """Return each arm's mean over the seeds that all have, and its difference to *alone*."""
    by_arm = {arm: {r.seed: r for r in results if r.arm == arm} for arm in ARMS}
    arms = [arm for arm in ARMS if by_arm[arm]]
    seeds = sorted(set.intersection(*(set(by_arm[arm]) for arm in arms)))
    rows: list[dict[str, Any]] = []
    for arm in arms:
        own = [by_arm[arm][seed] for seed in seeds]
        row: dict[str, Any] = {
            "arm": arm,
            "seeds": len(seeds),
            "volume": mean(r.volume for r in own),
            "best": 100 * mean(r.best_quality for r in own),
            "trained": mean(r.n_trained for r in own),
            "judged": mean(r.n_judged for r in own),
            "stopped": mean(r.n_stopped for r in own),
            "more": None,
            "half": None,
        }
        if arm != "alone" and "alone" in arms and len(seeds) > 1:
            alone = [by_arm["alone"][seed].volume for seed in seeds]
            difference = Difference.of([r.volume for r in own], alone)
            row |= {"more": difference.mean, "half": difference.half_width}
        rows.append(row)
    columns = {
        "way": "{arm}",
        "seeds": "{seeds}",
        "hypervolume": "{volume:.4f}",
        "more than alone [95%]": "{more:+.4f} ± {half:.4f}",
        "best quality, %": "{best:.2f}",
        "trainings": "{trained:.1f}",
        "networks judged": "{judged:.1f}",
        "stopped": "{stopped:.1f}",
    }
    note = f"{task}; {minutes:g} CPU minutes an arm; validation quality; joules by a formula"
    return Table.of("ways", columns, rows, note)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.compression.ways_to_recover",
        description=__doc__.splitlines()[0],
    )
    add_parent_options(parser)
    parser.add_argument("--arm", choices=ARMS, help="arm to run, unless it is done")
    parser.add_argument("--minutes", type=float, default=20.0, help="CPU minutes of an arm")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    sheet = Sheet(parser, arguments, f"ways-to-recover-{arguments.checkpoint.name}")
    path = arguments.work / "ways.jsonl"
    done = read_results(path, arguments.minutes)
    if arguments.arm is not None:
        if (arguments.arm, arguments.seed) not in done:
            config = dense_config(
                arguments.checkpoint,
                arguments.task,
                arguments.work,
                epochs=arguments.epochs,
                seed=arguments.seed,
                genes=_SLICES,
            )
            result = run_arm(Recoveries(config, arguments.work), arguments.arm, arguments.minutes)
            with path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(asdict(result)) + "\n")
            done[result.arm, result.seed] = result
        print(json.dumps(asdict(done[arguments.arm, arguments.seed])), file=sys.stderr)
    if not done:
        parser.error("--arm must name an arm to run, as none is done yet")
    arms = {arm for arm, _ in done}
    if not set.intersection(*({seed for a, seed in done if a == arm} for arm in arms)):
        print("no seed is done by all arms yet", file=sys.stderr)
        return 0
    task = Path(arguments.task).stem
    sheet.show(table_of(list(done.values()), arguments.minutes, task))
    return 0


if __name__ == "__main__":
    sys.exit(main())
