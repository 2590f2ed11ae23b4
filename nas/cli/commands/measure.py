"""``nas measure``: measure the joules of architectures without a search."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.commands.measure_in_rounds import measure_checkpoint, measure_runtimes
from nas.cli.options.common import named_plugins
from nas.cli.options.measure_options import AUTO, add_options, check
from nas.cli.output.progress import MeasureProgress
from nas.cli.output.tables import print_result

if TYPE_CHECKING:
    from nas.cli.options.architecture_files import Named
    from predictors.campaign.active import Bench
    from predictors.campaign.plan import PlanItem
    from predictors.measurement.protocol import Protocol
    from predictors.measurement.records import EnergyRecord
    from search_spaces.space import SearchSpace
    from search_spaces.workload import Workload

__all__ = ["HELP", "add_options", "run"]

HELP = "measure the joules of architectures or of a checkpoint without a search"
_BATCH_SIZE = 128


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    check(arguments)
    named_plugins(arguments)
    from nas.cli.options.architecture_files import read_named
    from nas.searching.recipes import default_device
    from predictors.campaign.active import Bench
    from predictors.meters.select import choose_meter, limits_of, parse_device

    device = parse_device(arguments.device or default_device())
    named = [each for path in arguments.files for each in read_named(path)]
    for path in arguments.compare or ():
        architectures = read_named(path)
        if len(architectures) != 1:
            raise ValueError(f"--compare requires one architecture per file, got {path}")
        named += architectures
    protocol = _protocol(arguments, device, named)
    meter = choose_meter(arguments.meter, device)
    limits = limits_of(meter)
    meter.close()
    bench = Bench(device, meter.name, meter.source, meter.device, protocol, arguments.seed, limits)
    if arguments.checkpoint is not None:
        return measure_checkpoint(arguments, bench, _batch_size(arguments))
    if arguments.active is not None:
        return _active(arguments, bench)
    items = _sampled(arguments, bench) if arguments.space else _from_files(arguments, named)
    if arguments.compare:
        return _compare(arguments, bench, items)
    if arguments.runtime:
        return measure_runtimes(arguments, bench, items, _records_path(arguments))
    return _measure_items(arguments, bench, items)


def _measure_items(arguments: argparse.Namespace, bench: Bench, items: list[PlanItem]) -> int:
    """Measure the items; ``--batch-size auto`` chooses the batch size of each."""
    from nas.cli.output.measure_report import report
    from predictors.campaign.batch_sizes import measure_batch_sizes
    from predictors.campaign.plan import plan_items

    path = _records_path(arguments)
    with MeasureProgress(quiet=arguments.quiet) as progress:

        def measure(batch: Sequence[PlanItem], left_s: float | None) -> None:
            _measure(arguments, bench, batch, path, progress, left_s)

        if arguments.batch_size == AUTO:
            plan = plan_items(items, protocol=bench.protocol, device=bench.place)
            items = measure_batch_sizes(plan, path, measure, budget_s=arguments.budget_s)
        else:
            measure(items, arguments.budget_s)
    plan = plan_items(items, protocol=bench.protocol, device=bench.place)
    return report(plan, items, path, as_json=arguments.json)


def _workload(arguments: argparse.Namespace, protocol_regime: str) -> Workload:
    """Return the workload of the options; by default the digits."""
    from nas.core.files import read_json
    from nas.tasks.registry import get_task
    from search_spaces.workload import Workload

    size = _batch_size(arguments)
    if arguments.workload is None:
        default = 1 if protocol_regime == "latency" else _BATCH_SIZE
        return get_task(arguments.task or "digits").workload(size or default)
    try:
        workload = Workload.from_dict(read_json(arguments.workload))
    except (ValueError, TypeError) as error:
        raise ValueError(f"workload {arguments.workload}: {error}") from None
    return workload if size is None else workload.with_batch_size(size)


def _batch_size(arguments: argparse.Namespace) -> int | None:
    return None if arguments.batch_size in (None, AUTO) else int(arguments.batch_size)


def _phases(arguments: argparse.Namespace, workload: Workload) -> list[Workload]:
    """Return the workload, or its phases that the options name."""
    if arguments.phase is None:
        return [workload]
    return [workload.with_phase(phase) for phase in dict.fromkeys(arguments.phase)]


def _protocol(arguments: argparse.Namespace, device: str, named: Sequence[Named]) -> Protocol:
    """Return the protocol of the options, else that of the records, else the device's default."""
    from dataclasses import replace

    from predictors.measurement.protocol import get_protocol

    recorded = {each.protocol for each in named}
    (only,) = recorded if len(recorded) == 1 else (None,)
    if only is not None and arguments.protocol is None:
        protocol = only
    else:
        default = "quick" if device == "cpu" else "screening"
        protocol = get_protocol(arguments.protocol or default)
    return protocol if arguments.regime is None else replace(protocol, regime=arguments.regime)


def _from_files(arguments: argparse.Namespace, named: Sequence[Named]) -> list[PlanItem]:
    """Return the architectures of files, each with the workload of the options or its record."""
    from predictors.campaign.plan import PlanItem

    of_options = _workload(arguments, arguments.regime or "throughput")
    size = _batch_size(arguments)
    items = []
    for each in named:
        workload = each.workload
        if workload is None or arguments.task or arguments.workload:
            workload = of_options
        elif size is not None:
            workload = workload.with_batch_size(size)
        workload.check_fits(each.architecture)
        items += [PlanItem(each.architecture, phase) for phase in _phases(arguments, workload)]
    return items


def _available_space(
    arguments: argparse.Namespace, bench: Bench, workloads: Sequence[Workload]
) -> SearchSpace:
    """Return the space without choices that do not run; print those that are only simulated."""
    from nas.searching.controller.available import available_space, unreal_choices
    from search_spaces.cost.kernels import rows_read
    from search_spaces.space.presets import get_space

    named = get_space(arguments.space)
    rows = tuple(rows_read(named, workload) for workload in workloads)
    space = available_space(named, bench.device, rows)
    if not arguments.quiet:
        for line in unreal_choices(named, bench.device, rows):
            print(f"note: {line}", file=sys.stderr)
        if named.runtime and not getattr(arguments, "runtime", None):
            again = " ".join(f"--runtime {name}" for name in named.runtime)
            said = f"runtime of a space is for searches: {again} measures in them"
            print(f"note: {said}", file=sys.stderr)
    return space


def _active(arguments: argparse.Namespace, bench: Bench) -> int:
    """Measure the architectures that narrow the predictor's intervals most."""
    from nas.cli.output.measure_report import render_active, report
    from predictors.campaign.active import ActiveTarget, measure_actively
    from predictors.campaign.plan import plan_items

    # Report a mistyped space or workload before the device is probed.
    (workload,) = _phases(arguments, _workload(arguments, bench.protocol.regime))
    path = _records_path(arguments)
    space = _available_space(arguments, bench, [workload])
    with MeasureProgress(quiet=arguments.quiet) as progress:
        done = measure_actively(
            ActiveTarget(space, workload, bench),
            path,
            arguments.active,
            lambda items, left_s: _measure(arguments, bench, items, path, progress, left_s),
            budget_s=arguments.budget_s,
            retry_failed=arguments.retry_failed,
            say=progress.say,
        )
    plan = plan_items(done.items, protocol=bench.protocol, device=bench.place)
    active = {"active": done.to_dict()}
    code = report(plan, done.items, path, as_json=arguments.json, more=active)
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
            f"space {space.name} has {n} architectures that fit, --sample is {arguments.sample}",
            file=sys.stderr,
        )
    return [
        replace(item, workload=phase) for item in plan.items for phase in (item.workload, *others)
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

    # Samples are in random order already; files may be sorted.
    seed = None if arguments.space else bench.seed
    plan = plan_items(items, protocol=bench.protocol, device=bench.place, seed=seed)
    if pending_items(plan, path, retry_failed=arguments.retry_failed):
        options = SliceOptions(
            budget_s=budget_s,
            ahead=1 if bench.device.startswith("cuda") else 0,
            retry_failed=arguments.retry_failed,
        )
        run_slice(plan, path, measure, options, listener=progress)


def _records_path(arguments: argparse.Namespace) -> Path:
    """Return the file of records; warn of a truncated line in it.

    Raises:
        ValueError: the file cannot be written, or has something other than records.
    """
    from nas.cli.options.architecture_files import read_complete_records

    path: Path = arguments.to or Path("measurements.jsonl")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"records must be a file in a writable folder, got {path}")
    if path.exists():
        read_complete_records(path)
    return path


def _compare(arguments: argparse.Namespace, bench: Bench, pair: Sequence[PlanItem]) -> int:
    from nas.cli.output.measure_report import render_comparison
    from predictors.measurement.compare import compare

    first, second = pair
    if first.workload != second.workload:
        raise ValueError(
            f"--compare requires architectures with one workload, got "
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
    print_result(done.to_dict(), render_comparison(done), as_json=arguments.json)
    return 0
