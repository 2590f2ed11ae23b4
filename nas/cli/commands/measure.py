"""``nas measure``: measure the joules of architectures without a search."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.commands.measure_active import (
    ActiveBench,
    Bench,
    measure_actively,
    render_active,
)
from nas.cli.options.measure_options import AUTO, add_options, check
from nas.cli.options.plugins import named_plugins
from nas.cli.output.progress import MeasureProgress

if TYPE_CHECKING:
    from nas.cli.options.architecture_files import Named
    from predictors.campaign.plan import PlanItem
    from predictors.measurement.protocol import Protocol
    from predictors.measurement.records import EnergyRecord
    from search_spaces.space import SearchSpace
    from search_spaces.workload import Workload

_BATCH_SIZE = 128


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    add_options(
        subparsers.add_parser(
            "measure", help="measure the joules of architectures without a search"
        )
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    check(arguments)
    named_plugins(arguments)
    from nas.cli.options.architecture_files import read_named
    from nas.searching.recipes import default_device
    from predictors.meters.select import choose_meter, limits_of, parse_device

    device = parse_device(arguments.device or default_device())
    named = [one for path in arguments.files for one in read_named(path)]
    pair = [read_named(path) for path in arguments.compare or ()]
    for path, found in zip(arguments.compare or (), pair, strict=True):
        if len(found) != 1:
            raise ValueError(f"--compare must be given one architecture a file, got {path}")
        named += found
    protocol = _protocol(arguments, device, named)
    meter = choose_meter(arguments.meter, device)
    limits = limits_of(meter)
    meter.close()
    bench = Bench(device, meter.name, meter.source, meter.device, protocol, arguments.seed, limits)
    if arguments.active is not None:
        return _active(arguments, bench)
    items = _sampled(arguments, bench) if arguments.space else _given(arguments, named)
    if arguments.compare:
        return _compare(arguments, bench, items)
    path = arguments.to or Path("measurements.jsonl")
    _check_records(path)
    with MeasureProgress(quiet=arguments.quiet) as progress:
        if arguments.batch_size == AUTO:
            items = _measure_auto(arguments, bench, items, path, progress)
        else:
            _measure(arguments, bench, items, path, progress, arguments.budget_s)
    from nas.cli.output.measure_report import report
    from predictors.campaign.plan import plan_items

    plan = plan_items(items, protocol=protocol, device=bench.place)
    return report(plan, items, path, as_json=arguments.json)


def _workload(arguments: argparse.Namespace, protocol_regime: str) -> Workload:
    """Return the workload of the options; by default the digits."""
    from nas.core.files import read_json
    from nas.tasks.registry import get_task
    from search_spaces.workload import Workload

    size = None if arguments.batch_size in (None, AUTO) else int(arguments.batch_size)
    if arguments.workload is None:
        usual = 1 if protocol_regime == "latency" else _BATCH_SIZE
        return get_task(arguments.task or "digits").workload(size or usual)
    try:
        workload = Workload.from_dict(read_json(arguments.workload))
    except (ValueError, TypeError) as error:
        raise ValueError(f"workload {arguments.workload}: {error}") from None
    return workload if size is None else workload.with_batch_size(size)


def _phases(arguments: argparse.Namespace, workload: Workload) -> list[Workload]:
    """Return the workload, or its phases that the options name."""
    if arguments.phase is None:
        return [workload]
    return [workload.with_phase(phase) for phase in dict.fromkeys(arguments.phase)]


def _protocol(arguments: argparse.Namespace, device: str, named: Sequence[Named]) -> Protocol:
    """Return the protocol of the options, else of the records, else the device's default."""
    from dataclasses import replace

    from predictors.measurement.protocol import get_protocol

    recorded = {one.protocol for one in named}
    (only,) = recorded if len(recorded) == 1 else (None,)
    if only is not None and arguments.protocol is None:
        protocol = only
    else:
        name = arguments.protocol or ("quick" if device == "cpu" else "screening")
        protocol = get_protocol(name)
    return protocol if arguments.regime is None else replace(protocol, regime=arguments.regime)


def _given(arguments: argparse.Namespace, named: Sequence[Named]) -> list[PlanItem]:
    """Return the architectures of files, each on the options' workload or its record's."""
    from predictors.campaign.plan import PlanItem

    of_options = _workload(arguments, arguments.regime or "throughput")
    size = None if arguments.batch_size in (None, AUTO) else int(arguments.batch_size)
    items = []
    for one in named:
        workload = one.workload
        if workload is None or arguments.task or arguments.workload:
            workload = of_options
        elif size is not None:
            workload = workload.with_batch_size(size)
        workload.check_fits(one.architecture)
        items += [PlanItem(one.architecture, each) for each in _phases(arguments, workload)]
    return items


def _available_space(
    arguments: argparse.Namespace, bench: Bench, workloads: Sequence[Workload]
) -> SearchSpace:
    """Return the space without choices that do not run, and note those only simulated."""
    from nas.searching.controller.available import available_space, unreal_choices
    from search_spaces.cost.kernels import rows_read
    from search_spaces.space.presets import get_space

    own = get_space(arguments.space)
    rows = tuple(rows_read(own, workload) for workload in workloads)
    space = available_space(own, bench.device, rows)
    if not arguments.quiet:
        for line in unreal_choices(own, bench.device, rows):
            print(f"note: {line}", file=sys.stderr)
    return space


def _active(arguments: argparse.Namespace, bench: Bench) -> int:
    """Measure the architectures that narrow the predictor's intervals most."""
    from nas.cli.output.measure_report import report
    from predictors.campaign.plan import plan_items

    path = arguments.to or Path("measurements.jsonl")
    # Report a mistyped space or workload before the device is probed.
    (workload,) = _phases(arguments, _workload(arguments, bench.protocol.regime))
    _check_records(path)
    space = _available_space(arguments, bench, [workload])
    active = ActiveBench(space, workload, bench)
    with MeasureProgress(quiet=arguments.quiet) as progress:
        done = measure_actively(
            active,
            path,
            arguments.active,
            lambda items, left_s: _measure(arguments, bench, items, path, progress, left_s),
            budget_s=arguments.budget_s,
            retry_failed=arguments.retry_failed,
            say=progress.say,
        )
    plan = plan_items(done.items, protocol=bench.protocol, device=bench.place)
    code = report(
        plan,
        done.items,
        path,
        as_json=arguments.json,
        more={"active": done.to_dict()},
    )
    if not arguments.json:
        print(render_active(done))
    return code


def _sampled(arguments: argparse.Namespace, bench: Bench) -> list[PlanItem]:
    """Return a sample of the space in order of priority, in every requested phase."""
    from dataclasses import replace

    from nas.searching.controller.available import is_preset
    from predictors.campaign.plan import Part, plan_campaign
    from search_spaces.space.presets import get_space

    workload, *others = _phases(arguments, _workload(arguments, bench.protocol.regime))
    space = _available_space(arguments, bench, [workload, *others])
    plan = plan_campaign(
        [Part(space, workload, arguments.sample)],
        protocol=bench.protocol,
        device=bench.device,
        seed=bench.seed,
        with_simulated=not is_preset(get_space(arguments.space)),
    )
    n = len({item.architecture for item in plan.items})
    if n < arguments.sample and not arguments.quiet:
        print(
            f"space {space.name} gave {n} architectures that fit, --sample is {arguments.sample}",
            file=sys.stderr,
        )
    return [
        replace(item, workload=each) for item in plan.items for each in (item.workload, *others)
    ]


def _measure(
    arguments: argparse.Namespace,
    bench: Bench,
    items: Sequence[PlanItem],
    path: Path,
    progress: MeasureProgress,
    budget_s: float | None,
) -> None:
    """Measure the items that are not in the records yet."""
    from predictors.campaign.pending import pending_items
    from predictors.campaign.plan import plan_items
    from predictors.campaign.slices import SliceOptions, run_slice
    from predictors.measurement.runner import measure_fresh

    def measure(item: PlanItem, timeout_s: float | None) -> EnergyRecord:
        return measure_fresh(
            item.architecture,
            item.workload,
            protocol=bench.protocol,
            device=bench.device,
            meter=bench.meter,
            seed=bench.seed,
            on_window=progress.on_window,
            timeout_s=timeout_s,
        )

    # A sample is in random order already, a file may be sorted.
    plan = plan_items(
        items,
        protocol=bench.protocol,
        device=bench.place,
        seed=None if arguments.space else bench.seed,
    )
    if pending_items(plan, path, retry_failed=arguments.retry_failed):
        run_slice(
            plan,
            path,
            measure,
            SliceOptions(
                budget_s=budget_s,
                ahead=1 if bench.device.startswith("cuda") else 0,
                retry_failed=arguments.retry_failed,
            ),
            listener=progress,
        )


def _measure_auto(
    arguments: argparse.Namespace,
    bench: Bench,
    requested: Sequence[PlanItem],
    path: Path,
    progress: MeasureProgress,
) -> list[PlanItem]:
    """Double batch sizes while joules fall; return the items at the sizes found or still due."""
    from dataclasses import replace

    from predictors.campaign.failures import read_failures
    from predictors.campaign.plan import plan_items
    from predictors.measurement.batching import search_batch_size
    from predictors.measurement.records import read_records

    started_s = time.monotonic()
    naming = plan_items((), protocol=bench.protocol, device=bench.place)
    before: list[PlanItem] = []
    while True:
        records = read_records(path).records if path.exists() else ()
        found_j: dict[str, float | None] = dict.fromkeys(read_failures(path))
        found_j |= {record.item: record.reading.energy_j for record in records}
        following, items = [], []
        for item in dict.fromkeys(requested):
            sizes: dict[int, float | None] = {}
            state = search_batch_size(sizes)
            while state.following is not None:
                size = state.following
                trial = replace(item, workload=item.workload.with_batch_size(size))
                if naming.key(trial) not in found_j:
                    following.append(trial)
                    break
                sizes[size] = found_j[naming.key(trial)]
                state = search_batch_size(sizes)
            chosen = state.settled or state.following or 1
            items.append(replace(item, workload=item.workload.with_batch_size(chosen)))
        left_s = arguments.budget_s
        if left_s is not None:
            left_s -= time.monotonic() - started_s
        if not following or following == before or (left_s is not None and left_s <= 0):
            return items
        before = following
        _measure(arguments, bench, following, path, progress, left_s)


def _check_records(path: Path) -> None:
    """Raise ``ValueError`` if ``path`` cannot hold records; warn of a truncated line."""
    from predictors.measurement.records import read_records

    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"records must be a file in a writable folder, got {path}")
    if path.exists() and read_records(path).cut_off:
        print(f"{path}: skipped a truncated line", file=sys.stderr)


def _compare(arguments: argparse.Namespace, bench: Bench, pair: Sequence[PlanItem]) -> int:
    from nas.cli.output.measure_report import render_comparison
    from predictors.measurement.compare import compare

    first, second = pair
    if first.workload != second.workload:
        raise ValueError(
            f"--compare must be given architectures on one workload, got "
            f"{first.workload.key} and {second.workload.key}"
        )
    with MeasureProgress(quiet=arguments.quiet) as progress:
        done = compare(
            first.architecture,
            second.architecture,
            first.workload,
            protocol=bench.protocol,
            device=bench.device,
            meter=bench.meter,
            seed=bench.seed,
            on_pair=lambda n, width: progress.on_pair(n, width, bench.protocol.max_repeats),
        )
    if arguments.json:
        print(json.dumps(done.to_dict(), allow_nan=False))
    else:
        print(render_comparison(done))
    return 0
