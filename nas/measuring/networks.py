"""Measure architectures with random weights in several runtimes, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nas.core.estimate import Estimate
from nas.core.names import TORCH
from nas.measuring.measure import check_path
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
from predictors.measurement.runner import make_job
from search_spaces.runtimes.base import Runtime


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """Joules per ``unit`` of an architecture in a runtime; see ``nas.measuring.measure.Row``.

    ``ratio`` is to torch on the same architecture and workload.
    """

    architecture: str
    runtime: str
    workload: str
    unit: str
    energy: Estimate
    ratio: Estimate | None
    latency_s: float
    n_rounds: int
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NetworksEnergy:
    """The joules of architectures, a row for each architecture, workload and runtime.

    ``failed`` has the cause of each that could not be measured, ``left_out`` a line for each that
    its runtime cannot hold, ``missing`` the number of measurements that are left.
    """

    device: str
    meter: str
    is_estimate: bool
    records: str
    rows: tuple[NetworkRow, ...]
    failed: dict[str, str]
    missing: int
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NetworksPlan:
    """The rounds to measure, and a line for each form that is left out."""

    rounds: Rounds
    bench: Bench
    path: Path
    left_out: tuple[str, ...]


def plan_networks(
    items: Sequence[PlanItem],
    bench: Bench,
    path: Path,
    runtimes: Sequence[Runtime],
    *,
    n_rounds: int,
) -> NetworksPlan:
    """Plan to measure ``items`` in torch, the baseline, and in each of ``runtimes``.

    Raises:
        ValueError: the file of records cannot be written, or no runtime holds any architecture.
    """
    if n_rounds < 1:
        raise ValueError(f"rounds must be an integer >= 1, got {n_rounds}")
    check_path(path)
    groups: list[tuple[PlanItem, ...]] = []
    left_out: list[str] = []
    for item in dict.fromkeys(items):
        group = [item]
        for runtime in runtimes:
            refused = runtime.refusal(item.architecture, item.workload, bench.device)
            if refused is not None:
                left_out.append(f"{_name(replace(item, runtime=runtime.name))}: {refused}")
            elif runtime.name != TORCH:
                group.append(replace(item, runtime=runtime.name))
        groups.append(tuple(group))
    if left_out and all(len(group) == 1 for group in groups):
        raise ValueError(f"runtime must be one that holds the architectures: {left_out[0]}")
    every = [item for group in groups for item in group]
    plan = plan_items(every, protocol=bench.protocol, device=bench.place)
    rounds = Rounds(tuple(groups), n_rounds, replace(plan, reference=None))
    return NetworksPlan(rounds, bench, path, tuple(left_out))


def measure_networks(
    plan: NetworksPlan,
    *,
    budget_s: float | None = None,
    retry_failed: bool = False,
    listener: RoundListener | None = None,
) -> NetworksEnergy:
    """Measure what the records lack, and return the joules of all rounds.

    Raises:
        OSError: a record could not be written.
    """
    bench, rounds = plan.bench, plan.rounds

    def job(item: PlanItem) -> Mapping[str, Any]:
        return make_job(
            "serve",
            item.architecture,
            item.workload,
            protocol=bench.protocol,
            device=bench.device,
            meter=bench.meter,
            seed=bench.seed,
            runtime=item.runtime,
        )

    measure_rounds(
        rounds,
        plan.path,
        job,
        bench.device,
        budget_s=budget_s,
        retry_failed=retry_failed,
        listener=listener,
    )
    variants, failures = summarise(rounds, plan.path), failures_of(rounds, plan.path)
    n_items = sum(map(len, rounds.groups))
    n_measured = sum(min(variant.n_rounds, rounds.n_rounds) for variant in variants)
    return NetworksEnergy(
        device=bench.board,
        meter=bench.meter,
        is_estimate=any(r.reading.is_estimate for v in variants for r in v.records),
        records=str(plan.path),
        rows=tuple(map(_row, variants)),
        failed={_name(item): cause for item, cause in failures.items()},
        missing=max(0, (n_items - len(failures)) * rounds.n_rounds - n_measured),
        left_out=plan.left_out,
    )


def _row(variant: VariantEnergy) -> NetworkRow:
    item = variant.item
    flags = dict.fromkeys(flag for record in variant.records for flag in record.flags)
    return NetworkRow(
        architecture=item.architecture.describe(),
        runtime=item.runtime,
        workload=item.workload.key,
        unit=item.workload.unit,
        energy=variant.energy,
        ratio=variant.ratio,
        latency_s=variant.latency_s,
        n_rounds=variant.n_rounds,
        flags=tuple(flags),
    )


def _name(item: PlanItem) -> str:
    return f"{item.runtime} {item.workload.key} {item.architecture.describe()}"
