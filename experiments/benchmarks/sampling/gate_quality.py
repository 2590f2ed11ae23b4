"""How much the gate drops, and how often wrongly, with noisy labels.

``python -m experiments.benchmarks.sampling.gate_quality --hwgpt FOLDER --nvml FILE``

A first search evaluates ``--evaluations`` uniform samples without the gate. Then uniform samples
pass through the gate, a hundred between its updates; what it lets pass, and the audited share of
what it would drop, is evaluated and learned from. A second search starts from as many trials of a
prior one, whose joules share a session effect of their own. It evaluates members of its front
first, and has no samples without the gate.

The gate sees noisy labels only. Its errors are of true values: a drop is false if nothing that was
evaluated by the end dominates the candidate, and a member of the front of all proposals is lost
if it was not evaluated. The audit is what a search itself sees.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from experiments.benchmarks.sampling.gate_problems import (
    Array,
    HwGpt,
    Labels,
    Members,
    Nvml,
    Problem,
)
from experiments.benchmarks.tables.gpt_readings import read_gpt_readings
from experiments.benchmarks.tables.hwgpt import load_oracle
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.core.estimate import Estimate
from nas.pareto.dominance import non_dominated_mask
from nas.pareto.hypervolume import hypervolume, reference_point
from nas.records.config import GateConfig
from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.searching.gating.gate import CandidatePool, Gate, audit_summary
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.searching.gating.warm_start_data import QualityLabel, WarmStartData
from predictors.energy.models import Observation
from search_spaces.space.batch import ArchitectureBatch

_MINIMISE = (False, False)
# Members of the pool at most; a table has fewer.
_POOL = 500
# A second search evaluates at most this share of the prior trials again, from their front.
_FIRST_SHARE = 4
# Candidates that are judged between two updates of the gate.
_ROUND = 100
# Labels of a prior search are of one session.
_ONE_SESSION = 10**9

Search = Literal["first", "second"]


@dataclass(frozen=True)
class Setting:
    """What is run: ``noise`` is the relative deviation of joules between sessions."""

    problem: Problem
    search: Search
    noise: float
    confidence: float
    evaluations: int
    judged: int
    states_sessions: bool = True


@dataclass(frozen=True)
class Outcome:
    """One seed of a setting; true errors and those that the audit sees."""

    dropped: int
    false_drops: int
    audited: int
    audited_false: int
    front: int
    lost: int
    volume_lost: float


def run(setting: Setting, seed: int) -> Outcome:
    """One seed: evaluate, then judge."""
    rng = np.random.default_rng(seed)
    n, judged = setting.evaluations, setting.judged
    members = setting.problem.draw(n + judged + _POOL, rng)
    first, warm_start = list(range(n)), None
    if setting.search == "second":
        first, warm_start = _prior(setting, members.rows(slice(n)), rng)
    pool = members.rows(slice(n + judged, None)).architectures
    gate = Gate(
        ArchitectureSurrogates(setting.problem.workload, seed=seed, warm_start=warm_start),
        GateConfig(confidence=setting.confidence),
        pool=CandidatePool(ArchitectureBatch.of(pool), pool.__getitem__),
    )
    labels = _labels(setting, rng)
    trials = [labels.trial(members, index) for index in first]
    evaluated, dropped = list(first), []
    for start in range(n, n + judged, _ROUND):
        gate.refit(trials)
        positions = np.arange(start, min(start + _ROUND, n + judged))
        # The gate drops what is below this (``Gate.judge``), and audits a share of it.
        chances = gate.front_probabilities([members.architectures[i] for i in positions])
        assert chances is not None
        is_drop = chances < 1 - setting.confidence
        is_audit = is_drop & (rng.random(len(positions)) < GateConfig().audit_share)
        dropped += positions[is_drop].tolist()
        passed = positions[~is_drop | is_audit].tolist()
        audits = set(positions[is_audit].tolist())
        trials += [labels.trial(members, index, is_audit=index in audits) for index in passed]
        evaluated += passed
    return _outcome(members.losses, evaluated, dropped, trials)


def _labels(setting: Setting, rng: np.random.Generator, **more: int) -> Labels:
    return Labels(
        setting.problem.workload,
        setting.noise,
        rng,
        states_sessions=setting.states_sessions,
        **more,
    )


def _prior(
    setting: Setting, members: Members, rng: np.random.Generator
) -> tuple[list[int], WarmStartData]:
    """Return the members to evaluate first, and the labels of a prior search of ``members``."""
    labels = _labels(setting, rng, labels_a_session=_ONE_SESSION)
    trials = [labels.trial(members, index) for index in range(len(members.architectures))]
    front = sorted(Goals().front(trials), key=lambda trial: trial.objectives[1])
    most = max(1, len(trials) // _FIRST_SHARE)
    chosen = np.unique(np.linspace(0, len(front) - 1, min(most, len(front))).round())
    readings = [(trial, trial.reading) for trial in trials if trial.reading is not None]
    workload = setting.problem.workload
    data = WarmStartData(
        tuple(Observation.of_energy(t.architecture, workload, r) for t, r in readings),
        tuple(QualityLabel(t.architecture, t.objectives[0], t.quality_se or 0.0) for t in trials),
    )
    return [front[int(i)].number for i in chosen], data


def _outcome(
    losses: Array, evaluated: Sequence[int], dropped: Sequence[int], trials: Sequence[Trial]
) -> Outcome:
    """Errors of true values, whose ``losses`` are those of all members."""
    points = losses[list(evaluated)]
    front = points[non_dominated_mask(points, _MINIMISE)]
    proposed = sorted({*evaluated, *dropped})
    every = losses[proposed]
    on_front = non_dominated_mask(every, _MINIMISE)
    is_evaluated = np.isin(proposed, list(evaluated))
    reference = reference_point(every).tolist()
    volume = hypervolume(every, reference, _MINIMISE)
    summary = audit_summary(trials)
    return Outcome(
        dropped=len(dropped),
        false_drops=sum(not _is_dominated(losses[index], front) for index in dropped),
        audited=summary.n_audited,
        audited_false=summary.n_false,
        front=int(on_front.sum()),
        lost=int((on_front & ~is_evaluated).sum()),
        volume_lost=1 - hypervolume(points, reference, _MINIMISE) / volume,
    )


def _is_dominated(point: Array, front: Array) -> bool:
    no_worse = np.all(front <= point, axis=1)
    return bool(np.any(no_worse & np.any(front < point, axis=1)))


def table(results: Sequence[tuple[Setting, Outcome]]) -> Table:
    """A row for each setting; intervals are of 95%."""
    rows = []
    for setting, pairs in groupby(results, key=lambda pair: pair[0]):
        outcomes = [outcome for _, outcome in pairs]
        row = {
            "problem": setting.problem.name,
            "noise": setting.noise,
            "stated": setting.states_sessions,
            "confidence": setting.confidence,
            "dropped": float(np.median([o.dropped for o in outcomes])) / setting.judged,
            "volume": float(np.mean([o.volume_lost for o in outcomes])),
        }
        row |= _rate("every", outcomes, "false_drops", "dropped")
        row |= _rate("audit", outcomes, "audited_false", "audited")
        row |= _rate("front", outcomes, "lost", "front")
        rows.append(row)
    rate = "{NAME_k}/{NAME_n} = {NAME:.1%} [{NAME_low:.1%}, {NAME_high:.1%}]"
    columns = {
        "problem": "{problem}",
        "noise": "{noise:.0%}",
        "stated": "{stated}",
        "confidence": "{confidence:.2f}",
        "dropped (median)": "{dropped:.1%}",
        "false drops [95%]": rate.replace("NAME", "every"),
        "by the audit [95%]": rate.replace("NAME", "audit"),
        "front members lost": "{front_k}/{front_n} = {front:.1%}",
        "hypervolume lost": "{volume:.2%}",
    }
    return Table.of("drops", columns, rows)


def _rate(
    name: str, outcomes: Sequence[Outcome], part: str, whole: str
) -> dict[str, float | None]:
    k, n = (sum(getattr(outcome, field) for outcome in outcomes) for field in (part, whole))
    found: dict[str, float | None] = {f"{name}_k": k, f"{name}_n": n}
    if not n:
        return found | {name: None, f"{name}_low": None, f"{name}_high": None}
    rate = Estimate.of_share(k, n)
    return found | {name: rate.mean, f"{name}_low": rate.low, f"{name}_high": rate.high}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.sampling.gate_quality",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--hwgpt", type=Path, required=True, help="folder with oracle.py (is run)")
    parser.add_argument("--device", nargs="*", default=["h100"], help="of HW-GPT-Bench, scale s")
    parser.add_argument("--nvml", type=Path, help="readings.csv.gz, for --gpu")
    parser.add_argument("--gpu", nargs="*", default=["rtx2080:m"], help="GPU:SCALE")
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 0.01, 0.03, 0.07, 0.15])
    parser.add_argument(
        "--unstated",
        type=float,
        nargs="*",
        default=[],
        metavar="NOISE",
        help="as --noise, but readings state the noise within their session only",
    )
    parser.add_argument("--search", choices=get_args(Search), default="first")
    parser.add_argument("--evaluations", type=int, default=100, help="before the gate works")
    parser.add_argument("--judged", type=int, default=300, help="fresh candidates a seed")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--confidence", type=float, nargs="+", default=[GateConfig().confidence])
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, f"gate-quality-{arguments.search}")
    try:
        problems = _problems(arguments)
        settings = [
            Setting(
                problem,
                arguments.search,
                noise,
                confidence,
                arguments.evaluations,
                arguments.judged,
                states_sessions,
            )
            for problem in problems
            for confidence in arguments.confidence
            for states_sessions in (True, False)
            for noise in (arguments.noise if states_sessions else arguments.unstated)
        ]
        first = arguments.first_seed
        seeds = range(first, first + arguments.seeds)
        results = [(setting, run(setting, seed)) for setting in settings for seed in seeds]
    except ValueError as error:
        print(f"gate_quality: {error}", file=sys.stderr)
        return 2
    sheet.show(table(results))
    return 0


def _problems(arguments: argparse.Namespace) -> list[Problem]:
    module = load_oracle(arguments.hwgpt)
    problems: list[Problem] = [HwGpt(module, device) for device in arguments.device]
    if arguments.nvml is not None:
        for name in arguments.gpu:
            gpu, _, scale = name.partition(":")
            problems.append(Nvml(module, read_gpt_readings(arguments.nvml, gpu, scale)))
    return problems


if __name__ == "__main__":
    sys.exit(main())
