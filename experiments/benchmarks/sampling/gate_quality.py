"""How much the gate drops, and how often wrongly, on HW-GPT-Bench.

``python -m experiments.benchmarks.sampling.gate_quality --hwgpt FOLDER``

Perplexity and energy are predictions of the benchmark's surrogates. After ``--evaluations``
ungated uniform samples, uniform samples pass through the gate one by one; what it lets pass, and
the audited share of what it would drop, is evaluated and learned from. A drop is false when the
candidate would be on the front of all that was evaluated by the end. The audit evaluates only its
share of the drops; the benchmark has figures of all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.tables.hwgpt import load_oracle
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.core.estimate import Estimate, Score
from nas.pareto.dominance import non_dominated_mask
from nas.records.candidate import Candidate, Measurement
from nas.records.candidate import Outcome as TrialOutcome
from nas.records.config import GateConfig
from nas.records.trial import Trial
from nas.searching.gating.gate import CandidatePool, Gate, audit_summary
from nas.searching.gating.surrogates import ArchitectureSurrogates
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

WORKLOAD = Workload("hwgpt", "language_modelling", (1024,), 50_257, 1, vocab_size=50_257)
# The record's accuracy lies in [0, 1]: perplexity over this, from above, is its error.
_PERPLEXITY_SCALE = 1000.0
_RELATIVE_SD = 0.01
_RIVALS = 2000


@dataclass(frozen=True)
class Outcome:
    """One seed: ``judged`` candidates after ``evaluations`` ungated ones."""

    seed: int
    evaluations: int
    confidence: float
    judged: int
    dropped: int
    false_drops: int
    audited: int
    audited_false: int


def to_architecture(model: tuple[int, int, list[int], list[int], bool]) -> Architecture:
    """A model of HW-GPT-Bench as ours; its biases have no counterpart and change no count."""
    width, _, ratios, heads, _ = model
    layers = tuple(
        LayerSpec(AttentionSpec(h, h, width // h), FfnSpec(ratio * width))
        for ratio, h in zip(ratios, heads, strict=True)
    )
    return Architecture(width, layers)


def evaluate(module: Any, oracle: Any, models: Sequence[Any], device: str) -> list[Trial]:
    """Complete trials with the surrogates' values."""
    perplexity = oracle.perplexity(models)
    energy = oracle.hw_metric(models, device=device, metric="energies")
    return [
        Trial(
            Candidate(index, to_architecture(model)),
            TrialOutcome(
                "complete",
                quality=Score(1 - float(perplexity[index]) / _PERPLEXITY_SCALE, 0.0),
                measurement=Measurement(_reading(float(energy[index]))),
            ),
        )
        for index, model in enumerate(models)
    ]


def _reading(energy_j: float) -> EnergyReading:
    half = 1.96 * _RELATIVE_SD * energy_j
    return EnergyReading(
        energy_j=energy_j,
        low_j=energy_j - half,
        high_j=energy_j + half,
        n_repeats=6,
        converged=True,
        meter="replay",
        source="hwgpt-surrogate",
        is_estimate=True,
        device="hwgpt",
        workload=WORKLOAD.key,
        batch_size=1,
        latency_s=1.0,
        power_w=energy_j,
        duration_s=1.0,
        protocol_hash="hwgpt",
    )


def run(
    module: Any,
    *,
    scale: str,
    device: str,
    evaluations: int,
    judged: int,
    confidence: float,
    seed: int,
) -> Outcome:
    """One seed: evaluate, then judge one by one."""
    oracle, rng = module.Oracle(scale), np.random.default_rng(seed)
    models = [module.sample(rng, scale) for _ in range(evaluations + judged)]
    records = evaluate(module, oracle, models, device)
    rivals = [to_architecture(module.sample(rng, scale)) for _ in range(_RIVALS)]
    gate = Gate(
        ArchitectureSurrogates(WORKLOAD, seed=seed),
        GateConfig(confidence=confidence),
        pool=CandidatePool(ArchitectureBatch.of(rivals), rivals.__getitem__),
    )
    evaluated, dropped = records[:evaluations], []
    for record in records[evaluations:]:
        gate.refit(evaluated)
        verdict = gate.judge(record.architecture)
        if verdict.reason is not None:
            dropped.append(record)
        if verdict.reason is None or verdict.audit:
            candidate = replace(record.candidate, is_audit=verdict.audit)
            evaluated.append(replace(record, candidate=candidate))
    points = np.array([record.objectives for record in evaluated])
    front = points[non_dominated_mask(points, (True, False))]
    summary = audit_summary(evaluated)
    return Outcome(
        seed=seed,
        evaluations=evaluations,
        confidence=confidence,
        judged=judged,
        dropped=len(dropped),
        false_drops=sum(_would_be_on(record, front) for record in dropped),
        audited=summary.n_audited,
        audited_false=summary.n_false,
    )


def _would_be_on(record: Trial, front: Any) -> bool:
    accuracy, energy_j = record.objectives
    better = (front[:, 0] >= accuracy) & (front[:, 1] <= energy_j)
    strictly = (front[:, 0] > accuracy) | (front[:, 1] < energy_j)
    return not bool(np.any(better & strictly))


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row for each confidence; intervals are of 95%."""
    rows = []
    for confidence in sorted({o.confidence for o in outcomes}):
        found = [o for o in outcomes if o.confidence == confidence]
        row = {
            "confidence": confidence,
            "dropped": float(np.median([o.dropped / o.judged for o in found])),
        }
        row |= _rate("every", sum(o.false_drops for o in found), sum(o.dropped for o in found))
        row |= _rate("audit", sum(o.audited_false for o in found), sum(o.audited for o in found))
        rows.append(row)
    rate = "{NAME_false}/{NAME_drops} = {NAME:.2%} [{NAME_low:.2%}, {NAME_high:.2%}]"
    columns = {
        "confidence": "{confidence:.2f}",
        "dropped (median)": "{dropped:.1%}",
        "false of all drops [95%]": rate.replace("NAME", "every"),
        "by the audit [95%]": rate.replace("NAME", "audit"),
    }
    return Table.of("drops", columns, rows)


def _rate(name: str, false: int, drops: int) -> dict[str, float | None]:
    found: dict[str, float | None] = {f"{name}_false": false, f"{name}_drops": drops}
    if not drops:
        return found | {name: None, f"{name}_low": None, f"{name}_high": None}
    rate = Estimate.of_share(false, drops)
    return found | {name: rate.mean, f"{name}_low": rate.low, f"{name}_high": rate.high}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.sampling.gate_quality", description=__doc__
    )
    parser.add_argument("--hwgpt", type=Path, required=True, help="folder with oracle.py (is run)")
    parser.add_argument("--scale", default="s")
    parser.add_argument("--device", default="h100")
    parser.add_argument("--evaluations", type=int, default=100, help="before the gate works")
    parser.add_argument("--judged", type=int, default=400, help="fresh candidates a seed")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--confidence", type=float, nargs="+", default=[GateConfig().confidence])
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "gate-quality")
    try:
        module = load_oracle(arguments.hwgpt)
        outcomes = [
            run(
                module,
                scale=arguments.scale,
                device=arguments.device,
                evaluations=arguments.evaluations,
                judged=arguments.judged,
                confidence=confidence,
                seed=seed,
            )
            for confidence in arguments.confidence
            for seed in range(arguments.seeds)
        ]
    except ValueError as error:
        print(f"gate_quality: {error}", file=sys.stderr)
        return 2
    sheet.show(table(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
