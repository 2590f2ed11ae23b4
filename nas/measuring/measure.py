"""Measure a checkpoint's joules in each precision and runtime, from its folder to a table."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.estimate import Estimate
from nas.core.names import TORCH
from nas.measuring.inputs import Inputs, inputs_of, write_inputs
from nas.measuring.memory import most_beside
from nas.measuring.precisions import Variant, Variants, variants_of
from nas.measuring.subject import Sizes, Subject, subject_of
from predictors.campaign.active import Bench
from predictors.campaign.plan import PlanItem, plan_items
from predictors.campaign.rounds import (
    RoundListener,
    Rounds,
    VariantEnergy,
    failures_of,
    measure_rounds,
    summarise,
)
from predictors.measurement.records import read_records
from predictors.measurement.runner import make_job
from search_spaces.architecture import Precision
from search_spaces.cost.counting import count
from search_spaces.runtimes.registry import parse_runtimes
from search_spaces.workload import Phase

if TYPE_CHECKING:
    from search_spaces.pretrained import Checkpoint

# Student's interval of three values is already a quarter of that of two.
DEFAULT_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Forms:
    """Names of precisions and runtimes to measure in; empty: those that are real, in torch."""

    precisions: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: the subject in each form, in ``rounds`` at ``path``."""

    subject: Subject
    variants: Variants
    rounds: Rounds
    bench: Bench
    path: Path
    inputs: Inputs

    @property
    def notes(self) -> tuple[str, ...]:
        """Defaults that were chosen and precisions that are left out, one line each."""
        inputs = (self.inputs.note,) if self.inputs.note else ()
        n, most = len(self.variants.variants), self.rounds.most_beside
        parts = f"memory holds {most} of {n} forms: they are measured in parts"
        notes = (*self.subject.notes, *inputs, *self.variants.left_out)
        return notes if most is None else (*notes, parts)


@dataclass(frozen=True, slots=True)
class Row:
    """Joules per ``unit`` of a precision in a ``runtime`` and a phase (``None``: a forward pass).

    ``energy`` and ``ratio`` (to torch's fp32) are of ``n_rounds`` rounds, see
    ``predictors.campaign.rounds``. ``latency_s`` is a batch's, ``weight_bytes`` the size of the
    weights as torch stores them on the device, ``None`` in other runtimes. ``flags`` name
    disturbances.
    """

    precision: Precision
    phase: Phase | None
    workload: str
    unit: str
    energy: Estimate
    ratio: Estimate | None
    latency_s: float
    weight_bytes: float | None
    n_rounds: int
    flags: tuple[str, ...]
    runtime: str = TORCH


@dataclass(frozen=True, slots=True)
class CheckpointEnergy:
    """The joules of a checkpoint: a row for each phase, precision and runtime.

    ``failed`` has the cause of each variant that could not be measured, ``missing`` the number of
    measurements that are left, ``left_out`` a line for each precision that is not real here.
    """

    checkpoint: str
    device: str
    meter: str
    is_estimate: bool
    records: str
    rows: tuple[Row, ...]
    failed: dict[str, str]
    missing: int
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def plan_measurement(
    checkpoint: Checkpoint,
    bench: Bench,
    path: Path,
    *,
    sizes: Sizes,
    forms: Forms = Forms(),  # noqa: B008  (frozen)
    n_rounds: int = DEFAULT_ROUNDS,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Plan the measurement of ``checkpoint``; ``path`` is the file of records.

    ``say`` is called with a line for each probe of the device, which takes seconds.

    Raises:
        ValueError: sizes or forms do not fit checkpoint or device, a runtime is not installed, or
            memory is short.
    """
    if n_rounds < 1:
        raise ValueError(f"rounds must be an integer >= 1, got {n_rounds}")
    check_path(path)
    subject = subject_of(checkpoint, sizes)
    runtimes = parse_runtimes(forms.runtimes)
    variants = variants_of(subject, bench.device, forms.precisions, runtimes, say)
    most = most_beside(subject, variants.variants, bench.device)
    inputs = Inputs(None) if sizes.task is None else inputs_of(sizes.task, subject)
    groups = tuple(
        tuple(
            PlanItem(each.architecture, workload, runtime=each.runtime)
            for each in variants.variants
        )
        for workload in subject.workloads
    )
    items = [item for group in groups for item in group]
    plan = plan_items(items, protocol=bench.protocol, device=bench.place)
    rounds = Rounds(groups, n_rounds, replace(plan, reference=None), most)
    return Plan(subject, variants, rounds, bench, path, inputs)


def run_plan(
    plan: Plan,
    *,
    budget_s: float | None = None,
    retry_failed: bool = False,
    listener: RoundListener | None = None,
) -> CheckpointEnergy:
    """Measure what the records lack, and return the joules of all rounds.

    Raises:
        ValueError: the task's data are invalid, or the records contain something else.
        OSError: a record could not be written.
    """
    bench, subject = plan.bench, plan.subject
    with tempfile.TemporaryDirectory(prefix="joulenas-") as folder:
        inputs = write_inputs(plan.inputs, Path(folder))

        def job(item: PlanItem) -> dict[str, Any]:
            return make_job(
                "serve",
                item.architecture,
                item.workload,
                protocol=bench.protocol,
                device=bench.device,
                meter=bench.meter,
                checkpoint=subject.checkpoint.folder,
                origin=subject.origin,
                inputs=inputs,
                seed=bench.seed,
                runtime=item.runtime,
            )

        measure_rounds(
            plan.rounds,
            plan.path,
            job,
            bench.device,
            budget_s=budget_s,
            retry_failed=retry_failed,
            listener=listener,
        )
    return energy_of(plan)


def energy_of(plan: Plan) -> CheckpointEnergy:
    """Return the joules that the records contain."""
    by_item = {(each.runtime, each.architecture.hash): each for each in plan.variants.variants}

    def of(item: PlanItem) -> Variant:
        return by_item[item.runtime, item.architecture.hash]

    has_fp32 = plan.variants.variants[0].name == "fp32"
    variants = summarise(plan.rounds, plan.path)
    failures = failures_of(plan.rounds, plan.path)
    items = [item for group in plan.rounds.groups for item in group]
    n_measured = sum(min(v.n_rounds, plan.rounds.n_rounds) for v in variants)
    n_left = (len(items) - len(failures)) * plan.rounds.n_rounds - n_measured
    return CheckpointEnergy(
        checkpoint=plan.subject.origin,
        device=plan.bench.board,
        meter=plan.bench.meter,
        is_estimate=any(r.reading.is_estimate for v in variants for r in v.records),
        records=str(plan.path),
        rows=tuple(_row(v, of(v.item).precision, has_fp32=has_fp32) for v in variants),
        failed={
            " ".join(filter(None, (of(item).name, item.workload.phase))): cause
            for item, cause in failures.items()
        },
        missing=max(0, n_left),
        left_out=plan.variants.left_out,
    )


def _row(variant: VariantEnergy, precision: Precision, *, has_fp32: bool) -> Row:
    item = variant.item
    # Intervals are over rounds: whether one process's windows converged does not matter.
    flags = [flag for record in variant.records for flag in record.flags]
    return Row(
        precision=precision,
        phase=item.workload.phase,
        workload=item.workload.key,
        unit=item.workload.unit,
        energy=variant.energy,
        ratio=variant.ratio if has_fp32 else None,
        latency_s=variant.latency_s,
        weight_bytes=_weight_bytes(variant),
        n_rounds=variant.n_rounds,
        flags=tuple(dict.fromkeys(flags)),
        runtime=item.runtime,
    )


def _weight_bytes(variant: VariantEnergy) -> float | None:
    item, reading = variant.item, variant.records[0].reading
    if not item.runtime.startswith(TORCH):
        return None
    return count(item.architecture, item.workload, reading.device_type).weight_bytes


def check_path(path: Path) -> None:
    """Raise ``ValueError`` unless records can be appended to ``path``."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"records must be a file in a writable folder, got {path}")
    if path.exists():
        read_records(path)
