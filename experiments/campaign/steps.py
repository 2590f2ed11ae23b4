"""The steps of a campaign on one device, each with its file and its seconds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.campaign.figures import compile_seconds
from experiments.campaign.planned import make_plan
from predictors.campaign.costs import ItemCosts, held_s
from predictors.campaign.pending import is_reference_of, pending_items
from predictors.campaign.plan import Plan, PlanItem
from predictors.campaign.slices import SliceListener, SliceOptions, run_slice
from predictors.measurement.exclusive import DeviceLock, lock_folder
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord, read_records
from predictors.measurement.runner import measure_fresh
from search_spaces.architecture.layer_kinds import compressed_layer_kinds

OnWindow = Callable[[int, float | None], None]

# A model that takes longer to build and measure, without compiling, fails.
ITEM_TIMEOUT_S = 120.0
_FACTS_S, _COLD_S = 40.0, 150.0
_COLD_FILE = "cold-start.jsonl"
# Steps of the counter, where it is not known yet.
_TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class Bench:
    """The device of a campaign, its meter, and the folder that everything is written to."""

    device: str
    meter: str
    source: str
    board: str
    protocol: Protocol
    folder: Path
    n: int | None = None

    @property
    def records(self) -> Path:
        """File of the records."""
        return self.folder / f"{self.protocol.name}.jsonl"

    @property
    def is_gpu(self) -> bool:
        """Whether the device is an NVIDIA GPU."""
        return self.device.startswith("cuda")


@dataclass(frozen=True, slots=True)
class Step:
    """One step; ``seconds`` is what is left of it. ``run`` gets the seconds that it may take."""

    name: str
    what: str
    seconds: float
    run: Callable[[float], None]


class StepError(RuntimeError):
    """A step other than measuring failed; the campaign goes on without it."""


def costs_of(bench: Bench) -> ItemCosts:
    """Seconds of an item: compiling as measured so far, the rest by the protocol."""
    by_precision = compile_seconds(_records(bench))
    return replace(
        ItemCosts(windows_s=held_s(bench.protocol, _TICK_S if bench.is_gpu else 0.0)),
        by_precision=by_precision,
    )


def plan_of(bench: Bench) -> Plan:
    """The whole plan of the device."""
    return make_plan(bench.device, bench.protocol, costs_of(bench).seconds, bench.n)


def steps_of(
    bench: Bench, plan: Plan, listener: SliceListener, *, retry_failed: bool, progress: OnWindow
) -> list[Step]:
    """What is still to be done, in order."""
    costs = costs_of(bench)
    left = pending_items(plan, bench.records, retry_failed=retry_failed, sets_aside=True)
    n_first = _first_stage(plan)
    before_compiling = set(plan.items[:n_first])
    first = [item for item in left if item in before_compiling]
    rest = len(left) - len(first)

    def measure(items: tuple[int, int], left_s: float) -> None:
        part = replace(plan, items=plan.items[items[0] : items[1]])
        _measure(bench, part, costs, listener, progress, left_s, retry_failed=retry_failed)

    hidden_s = costs.process_s if bench.is_gpu else 0.0
    references = 1 + 1 / max(1, plan.protocol.block_size)
    first_s = sum(costs.seconds(item) - hidden_s for item in first) * references
    every_s = sum(costs.seconds(item) - hidden_s for item in left) * references
    steps = []
    if bench.is_gpu and not (bench.folder / "facts.json").exists():
        steps.append(Step("facts", "facts of the board", _FACTS_S, _facts(bench)))
    if first:
        n_due = max(0, plan.n_references - _n_references(bench, plan))
        what = f"{len(first)} models without compiling"
        if n_due:
            what += f", and the reference in {n_due} fresh processes or more"
        steps.append(Step("first", what, first_s, lambda s: measure((0, n_first), s)))
    if bench.is_gpu and not (bench.folder / _COLD_FILE).exists():
        steps.append(Step("cold", "a start from rest", _COLD_S, _cold_start(bench)))
    if rest:
        what = f"{rest} models more, what pays most a second first"
        last = len(plan.items)
        steps.append(Step("rest", what, every_s - first_s, lambda s: measure((0, last), s)))
    return steps


def _first_stage(plan: Plan) -> int:
    """Items at the beginning of the plan that come before the first that compiles."""
    return next(
        (
            index
            for index, item in enumerate(plan.items)
            if compressed_layer_kinds(item.architecture) and plan.device.startswith("cuda")
        ),
        len(plan.items),
    )


def _records(bench: Bench) -> tuple[EnergyRecord, ...]:
    return read_records(bench.records).records if bench.records.exists() else ()


def _n_references(bench: Bench, plan: Plan) -> int:
    return sum(is_reference_of(plan, record) for record in _records(bench))


def _measure(
    bench: Bench,
    plan: Plan,
    costs: ItemCosts,
    listener: SliceListener,
    progress: OnWindow,
    left_s: float,
    *,
    retry_failed: bool,
) -> None:
    def measure(item: PlanItem, timeout_s: float | None) -> EnergyRecord:
        return measure_fresh(
            item.architecture,
            item.workload,
            protocol=bench.protocol,
            device=bench.device,
            meter=bench.meter,
            lock_folder=lock_folder(),
            on_window=progress,
            timeout_s=timeout_s,
            item_timeout_s=ITEM_TIMEOUT_S,
        )

    options = SliceOptions(
        budget_s=left_s,
        ahead=1 if bench.is_gpu else 0,
        retry_failed=retry_failed,
        sets_aside=True,
        item_s=costs.seconds,
    )
    run_slice(plan, bench.records, measure, options, listener=listener, clock=time.monotonic)


def _facts(bench: Bench) -> Callable[[float], None]:
    def run(left_s: float) -> None:
        _run_facts(bench, "facts.json", min(left_s, 2 * _FACTS_S))
        # Last, since it may hang or be forbidden where the board itself answers.
        program = shutil.which("nvidia-smi")
        if program is not None:
            text = _run([program, "-q"], min(left_s, 30.0))
            (bench.folder / "nvidia-smi.txt").write_text(text, encoding="utf-8")

    return run


def _cold_start(bench: Bench) -> Callable[[float], None]:
    def run(left_s: float) -> None:
        # By another name until it is whole: a start that was cut off is followed again.
        part = f"{_COLD_FILE}.part"
        _run_facts(bench, part, left_s, "--cold")
        (bench.folder / part).replace(bench.folder / _COLD_FILE)

    return run


def _run_facts(bench: Bench, name: str, limit_s: float, *options: str) -> None:
    command = [sys.executable, "-m", "experiments.campaign.facts", "--device", bench.device]
    with DeviceLock(lock_folder(), bench.device).exclusive():
        _run([*command, "--to", str(bench.folder / name), *options], limit_s)


def _run(command: list[str], limit_s: float) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"{command[-1]} took longer than {limit_s:.0f} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        raise StepError(lines[-1])
    return done.stdout
