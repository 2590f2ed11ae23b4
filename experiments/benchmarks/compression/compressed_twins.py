"""Do a front's compressed members dominate what they would be without compression?

    python -m experiments.benchmarks.compression.compressed_twins runs/quickstart-1

Every compressed member (low rank, bf16, int8, ...) is set beside its *twin*: the same width,
depth, heads, channels and patches in fp32, of full rank, dense. Both are trained by the run's own
recipe from the same seeds, and their joules measured in turns, pair by pair of fresh processes.
Judged by validation accuracy; test accuracy is shown beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

import nas
from experiments.benchmarks.paired import Difference
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.evaluation.teacher import load_teacher
from nas.pareto.queries import FrontMember
from nas.records.front_member import member_of
from nas.store.run import Run
from nas.tasks.registry import get_task
from nas.training.evaluate import evaluate
from nas.training.fit import Setting, fit
from predictors.measurement.compare import Comparison, compare
from predictors.measurement.protocol import get_protocol
from search_spaces.architecture import Architecture, Compression, LayerSpec
from search_spaces.compression.apply import compress, run_eagerly


def twin_of(architecture: Architecture) -> Architecture:
    """The same network with no rank, precision or sparsity of its own."""
    dense = Compression()
    return replace(
        architecture,
        layers=tuple(
            LayerSpec(
                replace(layer.attention, rank=None, compression=dense),
                replace(layer.ffn, rank=None, compression=dense),
            )
            for layer in architecture.layers
        ),
    )


def accuracies(
    run: Run, architecture: Architecture, seeds: int
) -> tuple[list[float], list[float]]:
    """Validation and test accuracy of the compressed network, one for each seed."""
    task, config = get_task(run.task), run.config
    teacher = None
    if config.teacher is not None:
        teacher = load_teacher(run.teacher_folder, run.task, config.device)
    found: tuple[list[float], list[float]] = ([], [])
    for seed in range(1, seeds + 1):
        fitted = fit(
            architecture,
            Setting(task, run.workload, seed=seed, device=config.device, teacher=teacher),
            config.training,
        )
        call = run_eagerly(compress(fitted.model, architecture)).call
        test = evaluate(call, task.split("test"), batch_size=128, device=config.device)
        found[0].append(fitted.validation.value)
        found[1].append(test.value)
    return found


def verdict(accuracy: Difference, joules: Comparison) -> str:
    """Which of both dominates, by 95% intervals for joules and by the mean for accuracy."""
    if joules.ratio.high >= 1:
        return "no cheaper" if joules.ratio.low <= 1 else "dearer"
    if accuracy.mean >= 0:
        return "the member dominates"
    if accuracy.mean + accuracy.half_width < 0:
        return "cheaper and less accurate, neither dominates"
    return "cheaper, accuracy alike within noise"


def dominated_trials(run: Run, member: FrontMember) -> list[int]:
    """Uncompressed trials of the run that cost more and are no more accurate."""
    found = []
    for record in run.trials():
        if record.state != "complete" or twin_of(record.architecture) != record.architecture:
            continue
        other = member_of(record, run.config.device)
        if other.quality <= member.quality and other.energy_j > member.energy_j:
            found.append(record.number)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.compression.compressed_twins",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each (default: 5)")
    parser.add_argument("--trials", type=int, nargs="*", help="members, in place of all")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    run = nas.load(arguments.run)
    torch.set_num_threads(1)
    protocol = get_protocol(run.config.protocol)
    plain = [r.number for r in run.trials() if twin_of(r.architecture) == r.architecture]
    sheet, rows = Sheet(parser, arguments, "compressed-twins", run.config.device), []
    for member in run.front():
        architecture = Architecture.from_dict(member.architecture)
        twin = twin_of(architecture)
        wanted = arguments.trials is None or member.trial in arguments.trials
        if twin == architecture or not wanted:
            continue
        ours, theirs = (accuracies(run, a, arguments.seeds) for a in (architecture, twin))
        joules = compare(
            architecture,
            twin,
            run.workload,
            protocol=protocol,
            device=run.config.device,
            meter=run.meter,
            on_pair=lambda n, _: print(f"pair {n}", file=sys.stderr),
        )
        validation_apart, test_apart = (
            Difference.of(a, b) for a, b in zip(ours, theirs, strict=True)
        )
        rows += [
            {
                "trial": member.trial,
                "network": name,
                "architecture": shape.describe(),
                "validation": 100 * mean(found[0]),
                "test": 100 * mean(found[1]),
                "energy_uj": 1e6 * energy_j,
                "is_estimate": member.is_estimate,
                "beaten": ", ".join(map(str, beaten)) or "none",
                **dict.fromkeys(("on_validation", "on_test", "ratio", "low", "high", "verdict")),
            }
            for name, shape, found, energy_j, beaten in (
                ("twin", twin, theirs, joules.energy_b_j, ()),
                ("member", architecture, ours, joules.energy_a_j, dominated_trials(run, member)),
            )
        ]
        rows[-1] |= {
            "on_validation": validation_apart.points(),
            "on_test": test_apart.points(),
            "ratio": joules.ratio.mean,
            "low": joules.ratio.low,
            "high": joules.ratio.high,
            "verdict": verdict(validation_apart, joules),
        }
        print(f"trial {member.trial}: {rows[-1]['verdict']}", file=sys.stderr)
    if not rows:
        print("compressed_twins: no member of the front is compressed", file=sys.stderr)
        return 2
    columns = {
        "trial": "{trial}",
        "network": "{network}",
        "architecture": "{architecture}",
        "val %": "{validation:.2f}",
        "test %": "{test:.2f}",
        "uJ a sample": "{energy_uj:.3g}",
        "an estimate": "{is_estimate}",
        "val, points": "{on_validation}",
        "test, points": "{on_test}",
        "joules": "x{ratio:.3f} [{low:.3f}, {high:.3f}]",
        "found": "{verdict}",
        "dominates, in the run": "{beaten}",
    }
    note = f"{len(plain)} of the run's {len(run.trials())} trials are uncompressed"
    sheet.show(Table.of("twins", columns, rows, note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
