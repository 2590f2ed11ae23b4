"""What one training for all saves: fronts of the digits by a supernet and from scratch.

    python -m experiments.benchmarks.training.supernet_cost --cache curves.jsonl --out OUT

Both searches of a seed have the same sampler seed, gate, space, recipe and closed form of joules
as the search from scratch (``scratch_search``, trainings in ``--cache``), run in this process and
count CPU seconds of one thread. From scratch, a search is charged for its trainings. By a supernet
it is charged for the supernet's own training, extraction, compression and evaluation of each
sub-network, the largest member's outputs and the fine-tunes of finalists. Sampler and gate are
left out of both and told apart, as they depend on the number of candidates alone. Hypervolume is
of (accuracy on validation, log10 joules) of networks with weights of their own: nothing inherited
counts. Of a supernet's search the volume is 0 until its first finalist is ready. Joules are not
measured anywhere.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from experiments.benchmarks.one_process import open_session
from experiments.benchmarks.training.scratch_search import (
    Outcome,
    Trainings,
    search,
    space,
    volume,
)
from experiments.formula import formula_joules, formula_reading
from experiments.recipes import quickstart
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.evaluation.evaluator import TrainingEvaluator
from nas.evaluation.fidelity import fidelity_of
from nas.evaluation.supernet_evaluator import SupernetEvaluator
from nas.evaluation.supernet_weights import prepare_supernet
from nas.records.candidate import Candidate
from nas.records.config import SearchConfig
from nas.records.supernet import SupernetConfig, choose_finalists
from nas.records.trial import Trial
from nas.tasks.registry import get_task
from nas.training.config import SupernetRecipe
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

_BATCH = 512


@dataclass(frozen=True, slots=True)
class Shared:
    """One search by a supernet: CPU seconds of its parts, and what its finalists came to.

    ``volumes`` and ``test_volumes`` are after each finalist, ``finish_s`` when, counted from the
    end of the search; ``proposing_s`` is the sampler's and the gate's.
    """

    seed: int
    train_s: float
    judge_s: float
    proposing_s: float
    candidates: int
    finish_s: tuple[float, ...]
    volumes: tuple[float, ...]
    test_volumes: tuple[float, ...]
    inherited_volume: float
    tau: float | None

    @property
    def total_s(self) -> float:
        """All that is charged for."""
        return self.train_s + self.judge_s + self.finish_s[-1]


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What ``function`` returns, and the CPU seconds that it took."""
    started = time.process_time()
    found = function(*arguments)
    return found, time.process_time() - started


def by_supernet(config: SearchConfig, folder: Path) -> Shared:
    """One search in this process, one candidate at a time."""
    supernet = config.supernet
    assert supernet is not None
    workload = get_task(config.task).workload(config.batch_size)
    home = folder / "supernet"
    _, train_s = timed(prepare_supernet, config.evaluation(), home, folder / "locks")
    trainer = TrainingEvaluator(config.evaluation(), folder / "none", folder / "locks")
    evaluator = SupernetEvaluator.of(config.evaluation(), trainer, home)
    session = open_session(config, workload, folder, "supernet")
    measure = _by_formula(workload)

    def home_of(candidate: Candidate) -> Path:
        path = folder / "trials" / str(candidate.number)
        path.mkdir(parents=True)
        return path

    started = time.process_time()
    judge_s = 0.0
    while (candidate := session.next_candidate()) is not None:
        outcome, cost_s = timed(evaluator.evaluate, candidate, home_of(candidate), measure)
        record = Trial(candidate, outcome)
        judge_s += cost_s
        session.finish(record)
    proposing_s = time.process_time() - started - judge_s
    complete = [r for r in session.searched() if r.state == "complete"]
    inherited = volume([(*_accuracies(r), math.log10(r.objectives[1])) for r in complete], 0)
    energies = [formula_joules(r.architecture, workload) for r in complete]
    session.add_finalists(choose_finalists(complete, energies, supernet))
    points: list[tuple[float, float, float]] = []
    finish_s: list[float] = []
    volumes: list[tuple[float, float]] = []
    while (candidate := session.next_candidate()) is not None:
        outcome, cost_s = timed(evaluator.evaluate, candidate, home_of(candidate), measure)
        record = Trial(candidate, outcome)
        session.finish(record)
        points.append((*_accuracies(record), math.log10(record.objectives[1])))
        finish_s.append((finish_s[-1] if finish_s else 0.0) + cost_s)
        volumes.append((volume(points, 0), volume(points, 1)))
    fidelity = fidelity_of(session.records())
    return Shared(
        seed=config.seed,
        train_s=train_s,
        judge_s=judge_s,
        proposing_s=proposing_s,
        candidates=len(complete),
        finish_s=tuple(finish_s),
        volumes=tuple(v for v, _ in volumes),
        test_volumes=tuple(v for _, v in volumes),
        inherited_volume=inherited,
        tau=None if fidelity is None else fidelity.tau.mean,
    )


def _accuracies(record: Trial) -> tuple[float, float]:
    assert record.quality is not None
    return record.quality, record.test_quality or math.nan


def _by_formula(workload: Workload) -> Any:
    def measure(architecture: Architecture, *_: object) -> Any:
        reading = formula_reading(formula_joules(architecture, workload), workload)
        return type("Record", (), {"reading": reading, "spent_energy_j": 0.0, "versions": {}})()

    return measure


def supernet_searches(
    config: SearchConfig, seeds: Sequence[int], kept: Path, listener: Callable[[Shared], None]
) -> list[Shared]:
    """One search a seed; those in the file ``kept``, of the same configuration, are not run."""
    key = json.dumps(config.to_dict() | {"seed": None}, sort_keys=True)
    known: dict[int, Shared] = {}
    if kept.is_file():
        for line in kept.read_text(encoding="utf-8").splitlines():
            data = json.loads(line)
            if data.pop("config") == key:
                lists = {n: tuple(v) for n, v in data.items() if isinstance(v, list)}
                known[data["seed"]] = Shared(**(data | lists))
    for seed in seeds:
        if seed not in known:
            with tempfile.TemporaryDirectory() as folder:
                known[seed] = by_supernet(replace(config, seed=seed), Path(folder))
            with kept.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(asdict(known[seed]) | {"config": key}) + "\n")
        listener(known[seed])
    return [known[seed] for seed in seeds]


def break_even(scratch: Outcome, shared: Shared) -> tuple[float, float]:
    """Seconds that scratch needs for the supernet's last volume, and their ratio to its own.

    Infinite where scratch did not reach it.
    """
    needed = scratch.seconds_to(shared.volumes[-1])
    return needed, needed / shared.total_s


def curve_of(
    runs: Sequence[tuple[Sequence[float], Sequence[float]]], at_s: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Quartiles over seeds of the volume reached by each of ``at_s``: low, median, high."""
    found = []
    for seconds in at_s:
        reached = sorted(
            max((v for v, s in zip(volumes, times, strict=True) if s <= seconds), default=0.0)
            for volumes, times in runs
        )
        low, middle, high = quantiles(reached, n=4, method="inclusive")
        found.append((low, middle, high))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training.supernet_cost",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--trials", type=int, default=30, help="candidates from scratch")
    parser.add_argument("--candidates", type=int, default=200, help="sub-networks")
    parser.add_argument("--finalists", type=int, default=12)
    parser.add_argument("--finish-share", type=float, default=SupernetConfig().finish_share)
    parser.add_argument("--epochs-factor", type=float, default=SupernetRecipe().epochs_factor)
    parser.add_argument("--cache", type=Path, default=Path("trainings.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("supernet-cost"))
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "supernet-cost")
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    plain = replace(quickstart("cpu"), space=space(), trials=arguments.trials, batch_size=_BATCH)
    config = replace(
        plain,
        trials=arguments.candidates,
        supernet=SupernetConfig(
            SupernetRecipe(epochs_factor=arguments.epochs_factor),
            measure_first=arguments.candidates,
            finalists=arguments.finalists,
            controls=0,
            finish_share=arguments.finish_share,
        ),
    )

    def say(found: Shared) -> None:
        print(f"supernet, seed {found.seed}: {found.total_s:.0f} CPU s", file=sys.stderr)

    shared = supernet_searches(config, arguments.seeds, arguments.out / "supernet.jsonl", say)
    trainings = Trainings(arguments.cache, plain)
    outcomes = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            outcome = search(replace(plain, seed=seed), trainings, Path(folder))
        outcomes.append(outcome)
        print(f"scratch, seed {seed}: {outcome.train_s[-1]:.0f} CPU s", file=sys.stderr)
    tables = [_searches(outcomes, shared)]
    if len(shared) > 1:
        tables.append(_report(outcomes, shared, arguments.out))
    ratios = [break_even(o, s)[1] for o, s in zip(outcomes, shared, strict=True)]
    middle = median(ratios)
    sheet.show(
        *tables,
        note="scratch / supernet, seconds to the supernet's volume: median "
        + (f"x {middle:.2f}" if math.isfinite(middle) else "not reached"),
    )
    return 0


def _searches(outcomes: Sequence[Outcome], shared: Sequence[Shared]) -> Table:
    rows = []
    for scratch, ours in zip(outcomes, shared, strict=True):
        needed_s, ratio = break_even(scratch, ours)
        is_reached = math.isfinite(needed_s)
        rows.append(
            {
                "seed": ours.seed,
                "train_s": ours.train_s,
                "judge_s": ours.judge_s,
                "finish_s": ours.finish_s[-1],
                "total_s": ours.total_s,
                "proposing_s": ours.proposing_s,
                "candidates": ours.candidates,
                "finalists": len(ours.finish_s),
                "inherited": ours.inherited_volume,
                "final": ours.volumes[-1],
                "test": ours.test_volumes[-1],
                "tau": ours.tau,
                "trainings": len(scratch.train_s),
                "scratch_s": scratch.train_s[-1],
                "scratch": scratch.validation[-1],
                "scratch_test": scratch.test[-1],
                # None where the search from scratch did not come so far.
                "needed_s": needed_s if is_reached else None,
                "ratio": ratio if is_reached else None,
            }
        )
    columns = {
        "seed": "{seed}",
        "supernet, CPU s: train + judge + finalists": (
            "{train_s:.0f} + {judge_s:.0f} + {finish_s:.0f} = {total_s:.0f}"
        ),
        "HV inherited": "{inherited:.4f}",
        "HV final": "{final:.4f}",
        "HV test": "{test:.4f}",
        "tau of finalists": "{tau:.2f}",
        "scratch: CPU s, HV": "{scratch_s:.0f}, {scratch:.4f}",
        "to equal HV, CPU s": "{needed_s:.0f}",
        "ratio": "x {ratio:.2f}",
    }
    return Table.of("searches", columns, rows)


def _report(outcomes: Sequence[Outcome], shared: Sequence[Shared], out: Path) -> Table:
    last = max([*(o.train_s[-1] for o in outcomes), *(s.total_s for s in shared)])
    at_s = [last * 2 ** (-step / 2) for step in range(12, -1, -1)]
    scratch = curve_of([(o.validation, o.train_s) for o in outcomes], at_s)
    supernet = curve_of(
        [(s.volumes, [s.train_s + s.judge_s + f for f in s.finish_s]) for s in shared], at_s
    )
    draw_curves(
        {"from scratch": scratch, "supernet and finalists": supernet}, at_s, out / "curve.png"
    )
    parts = ("low", "median", "high")
    rows = [
        {"cpu_s": seconds}
        | {f"scratch_{part}": value for part, value in zip(parts, a, strict=True)}
        | {f"supernet_{part}": value for part, value in zip(parts, b, strict=True)}
        for seconds, a, b in zip(at_s, scratch, supernet, strict=True)
    ]
    quartiles = "{WAY_median:.4f} [{WAY_low:.4f}, {WAY_high:.4f}]"
    columns = {
        "CPU s": "{cpu_s:.0f}",
        "scratch, median [quartiles]": quartiles.replace("WAY", "scratch"),
        "supernet, median [quartiles]": quartiles.replace("WAY", "supernet"),
    }
    return Table.of("volume-by-seconds", columns, rows)


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    at_s: Sequence[float],
    path: Path,
) -> None:
    """Medians over seeds with quartiles as bands. matplotlib is imported when needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # Okabe & Ito's palette, told apart by colour-blind readers.
    for (name, points), colour in zip(curves.items(), ("#0072B2", "#D55E00"), strict=False):
        low, middle, high = zip(*points, strict=True)
        axes.plot(at_s, middle, "o-", color=colour, markersize=3, label=name)
        axes.fill_between(at_s, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("CPU seconds of training and judging, the supernet's own included")
    axes.set_ylabel("hypervolume on validation")
    axes.grid(visible=True, alpha=0.25)
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    sys.exit(main())
