"""What else makes a checkpoint cheaper, at equal training, beside the front of a search around it.

    python -m experiments.benchmarks.compression.checkpoint_rivals --run work/minilm --work rivals

The run is one of ``checkpoint_search``. Each rival starts from the run's fine-tuned checkpoint, is
trained as its finalists are (all epochs, distilled from the checkpoint) and measured by its
protocol and meter: every other layer (DistilBERT's recipe, Sanh et al. 2019); half or a quarter of
the heads and channels by magnitude, or by Torch-Pruning's criteria where it is installed; each
trained in fp32 and then in every precision of the run's space; and the checkpoint itself in each
of these, without training. A rival is dominated by the first member of the front with no less
validation quality for no more joules. Each row is kept in ``--work`` when it is done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

import nas
from experiments.benchmarks.compression.cut_quality import Parent, narrower, torch_pruning
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.evaluation.teacher import load_teacher
from nas.pareto.queries import FrontMember
from nas.store.run import Run
from nas.tasks.registry import get_task
from nas.training.evaluate import evaluate
from nas.training.fit import Setting
from nas.training.weights import save_weights
from predictors.measurement.protocol import get_protocol
from predictors.measurement.runner import measure_candidate
from search_spaces.architecture import Architecture, Precision
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.compression.inherit import inherit
from search_spaces.compression.prune import Importance, magnitude_importance
from search_spaces.models.transformer import Transformer

_LOST = (0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Rival:
    """One way in one precision, trained and measured."""

    way: str
    precision: str
    architecture: str
    quality: float
    test_quality: float
    energy_j: float
    is_estimate: bool


@dataclass(frozen=True, slots=True)
class Way:
    """A way to cut, and the network that it starts from; ``is_trained`` unless it is as it is."""

    name: str
    architecture: Architecture
    start: Callable[[], Transformer]
    is_trained: bool = True


def every_other(depth: int) -> torch.Tensor:
    """Return the layers that stay at each depth, as ``Importance.layers``: every other at half."""
    keeps = torch.ones(depth, depth, dtype=torch.bool).tril()
    half = list(range(0, depth, 2))
    keeps[len(half) - 1] = False
    keeps[len(half) - 1, half] = True
    return keeps


def ways_of(parent: Parent) -> Iterator[Way]:
    """Return the ways to cut ``parent``."""
    network, of = parent.network, parent.architecture

    def cut(to: Architecture, importance: Importance) -> Transformer:
        return inherit(network, of, to, parent.workload, importance=importance)

    yield Way("checkpoint", of, lambda: network, is_trained=False)
    magnitude = magnitude_importance(network)
    half = replace(of, layers=of.layers[: len(range(0, of.depth, 2))])
    layered = replace(magnitude, layers=every_other(of.depth))
    yield Way("every other layer", half, partial(cut, half, layered))
    criteria = {"magnitude": magnitude, **torch_pruning(parent)}
    for name, scores in criteria.items():
        for lost in _LOST:
            to = narrower(of, lost)
            yield Way(f"{name}, {lost:.0%} less", to, partial(cut, to, scores))


class Rivals:
    """Rivals of a run's front, each kept in a file when it is done."""

    def __init__(self, run: Run, work: Path) -> None:
        self.run, self._work = run, work
        config = run.config
        task = get_task(config.task)
        teacher = load_teacher(run.teacher_folder, config.task, config.device, has_features=False)
        workload = task.workload(config.batch_size)
        self.parent = Parent(teacher.model, teacher.architecture, task, workload)
        self._setting = Setting(task, workload, config.seed, config.device, teacher)
        work.mkdir(parents=True, exist_ok=True)
        self._path = work / "rivals.jsonl"
        lines = self._path.read_text().splitlines() if self._path.is_file() else []
        self.done = [Rival(**json.loads(line)) for line in lines]

    @property
    def precisions(self) -> list[Precision]:
        """The precisions of whole networks in the run's space."""
        space = self.run.config.space
        both = set(space.values("attention_precision")) & set(space.values("ffn_precision"))
        return ["fp32", *sorted(both - {"fp32"})]

    def add(self, way: Way) -> None:
        """Train and measure ``way`` in every precision that is not done."""
        done = {rival.precision for rival in self.done if rival.way == way.name}
        missing = [precision for precision in self.precisions if precision not in done]
        if not missing:
            return
        weights = self._work / f"{way.name.replace(' ', '-').replace(',', '')}.safetensors"
        network = way.start()
        if weights.is_file():
            from nas.training.weights import load_weights

            load_weights(network, weights)
        else:
            if way.is_trained:
                self._setting.train(network, self.run.config.training)
            save_weights(network.eval(), weights)
        for precision in missing:
            rival = self._measured(way, network.eval(), precision, weights)
            self.done.append(rival)
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(asdict(rival)) + "\n")

    def _measured(
        self, way: Way, network: Transformer, precision: Precision, weights: Path
    ) -> Rival:
        config = self.run.config
        architecture = way.architecture.in_precision(precision)
        call = run_eagerly(compress(network, architecture)).call
        quality, test_quality = (
            evaluate(
                call,
                self.parent.task.split(split),
                batch_size=config.batch_size,
                objective=self.parent.objective,
            ).value
            for split in ("validation", "test")
        )
        record = measure_candidate(
            architecture,
            self.parent.workload,
            protocol=get_protocol(config.protocol),
            device=config.device,
            meter=self.run.meter,
            weights=weights.resolve(),
            inputs=self.run.inputs_path.resolve(),
        )
        reading = record.reading
        return Rival(
            way.name,
            precision,
            architecture.describe(),
            quality,
            test_quality,
            reading.energy_j,
            reading.is_estimate,
        )


def dominating(rival: Rival, members: Sequence[FrontMember]) -> FrontMember | None:
    """Return the first member with no less quality for no more joules."""
    return next(
        (m for m in members if m.quality >= rival.quality and m.energy_j <= rival.energy_j), None
    )


def table_of(rivals: Sequence[Rival], run: Run) -> Table:
    """Return the rivals, each with the member that dominates it."""
    members, rows = run.front().members, []
    for rival in rivals:
        better = dominating(rival, members)
        rows.append(
            {
                "way": rival.way,
                "precision": rival.precision,
                "quality": run.metric.text(rival.quality),
                "test": run.metric.text(rival.test_quality),
                "energy_mj": 1e3 * rival.energy_j,
                "trial": None if better is None else better.trial,
                "ratio": None if better is None else rival.energy_j / better.energy_j,
                "gain": None if better is None else run.metric.text(better.quality),
            }
        )
    n = sum(row["trial"] is not None for row in rows)
    kind = "estimates" if any(r.is_estimate for r in rivals) else "measured"
    note = f"{n} of {len(rows)} are dominated by a member of the front; joules are {kind}"
    columns = {
        "way": "{way}",
        "precision": "{precision}",
        run.metric.name: "{quality}",
        f"test {run.metric.name}": "{test}",
        f"mJ per {run.unit}": "{energy_mj:.3f}",
        "dominated by trial": "{trial}",
        "with": "{gain}",
        "fewer joules": "{ratio:.2f}x",
    }
    return Table.of("rivals", columns, rows, note)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.compression.checkpoint_rivals",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--run", type=Path, required=True, help="run of checkpoint_search")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps what is done")
    parser.add_argument("--minutes", type=float, default=1e6, help="start no way after so many")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    until_s = time.monotonic() + 60 * arguments.minutes
    sheet = Sheet(parser, arguments, f"checkpoint-rivals-{arguments.run.name}")
    rivals = Rivals(nas.load(arguments.run), arguments.work)
    ways = list(ways_of(rivals.parent))
    for number, way in enumerate(ways, 1):
        if time.monotonic() > until_s:
            print(f"{number - 1} of {len(ways)} ways: call the command again", file=sys.stderr)
            return 0
        rivals.add(way)
        print(f"{number} of {len(ways)}: {way.name}", file=sys.stderr, flush=True)
    sheet.show(table_of(rivals.done, rivals.run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
