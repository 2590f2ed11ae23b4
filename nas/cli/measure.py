"""``nas measure``: joules of architectures, with no search around them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.account import meter_label
from nas.cli.progress import MeasureProgress
from nas.cli.tables import render_columns
from nas.cli.units import format_joules

if TYPE_CHECKING:
    from predictors.campaign.compare import Comparison
    from predictors.campaign.drift import DriftReport
    from predictors.campaign.plan import Plan, PlanItem
    from predictors.campaign.protocol import Protocol
    from predictors.campaign.records import EnergyRecord
    from search_spaces.architecture import Architecture
    from search_spaces.workload import Workload


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "measure", help="measure architectures, with no search around them"
    )
    parser.add_argument(
        "files", nargs="*", type=Path, help="architectures: .json (one or a list) or .jsonl"
    )
    parser.add_argument("--space", help="preset or YAML file to sample from")
    parser.add_argument("--sample", type=int, help="how many architectures of the space")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="joules of A over those of B"
    )
    parser.add_argument("--task", help="task whose forward pass is measured (default: digits)")
    parser.add_argument("--workload", type=Path, help="JSON workload, in place of a task's")
    parser.add_argument("--batch-size", type=int, help="samples a batch (default: 128)")
    parser.add_argument("--device", help="cpu or cuda:N (default: CUDA where there is one)")
    parser.add_argument("--meter", help="meter, in place of the best one; see nas doctor")
    parser.add_argument(
        "--protocol", help="quick, screening or final (default: quick on CPUs, else screening)"
    )
    parser.add_argument("--regime", help="throughput (default) or latency")
    parser.add_argument("--seed", type=int, default=0, help="seed of samples, weights and order")
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("measurements.jsonl"),
        help="records to append to; what is there is not measured again "
        "(default: measurements.jsonl)",
    )
    parser.add_argument("--budget-s", type=float, help="stop before this many seconds are over")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    _check(arguments)
    from nas.searching.recipes import default_device
    from predictors.campaign.runner import measure_fresh
    from predictors.meters.select import choose_meter

    device = arguments.device or default_device()
    workload = _workload(arguments)
    protocol = _protocol(arguments, device)
    meter = choose_meter(arguments.meter, device)
    meter_name = meter.name
    meter.close()
    lock_folder = Path(tempfile.gettempdir()) / f"joulenas-locks-{os.getuid()}"
    if arguments.compare is not None:
        return _compare(arguments, device, meter_name, workload, protocol, lock_folder)

    from predictors.campaign.records import read_records
    from predictors.campaign.slices import pending_items, run_slice

    plan = _plan(arguments, device, workload, protocol)
    path: Path = arguments.to
    n_pending = len(pending_items(plan, path, retry_failed=arguments.retry_failed))
    if path.exists() and read_records(path).cut_off:
        print(f"{path}: a line that was cut off is left out", file=sys.stderr)
    _check_writable(path)
    with MeasureProgress(quiet=arguments.quiet) as progress:

        def measure(item: PlanItem) -> EnergyRecord:
            return measure_fresh(
                item.architecture,
                item.workload,
                protocol=protocol,
                device=device,
                meter=meter_name,
                lock_folder=lock_folder,
                seed=arguments.seed,
                on_window=progress.on_window,
            )

        if n_pending:
            run_slice(
                plan,
                path,
                measure,
                budget_s=arguments.budget_s,
                ahead=1 if device.startswith("cuda") else 0,
                retry_failed=arguments.retry_failed,
                listener=progress,
            )
    return _report(plan, path, as_json=arguments.json)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together, before anything slow."""
    sources = [
        bool(arguments.files),
        arguments.space is not None,
        arguments.compare is not None,
    ]
    if sum(sources) != 1:
        raise ValueError("name architecture files, or --space with --sample, or --compare A B")
    if (arguments.space is None) != (arguments.sample is None):
        raise ValueError("--space and --sample must be given together")
    for name in ("sample", "batch_size", "budget_s"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be > 0, got {value!r}")
    if arguments.seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {arguments.seed!r}")
    if arguments.task is not None and arguments.workload is not None:
        raise ValueError("--task and --workload name the same thing: give one")


def _workload(arguments: argparse.Namespace) -> Workload:
    from nas.tasks.registry import get_task
    from search_spaces.workload import Workload

    if arguments.workload is None:
        return get_task(arguments.task or "digits").workload(arguments.batch_size or 128)
    try:
        workload = Workload.from_dict(_read_json(arguments.workload))
    except (ValueError, TypeError) as error:
        raise ValueError(f"workload {arguments.workload}: {error}") from None
    if arguments.batch_size is not None:
        workload = workload.with_batch_size(arguments.batch_size)
    return workload


def _protocol(arguments: argparse.Namespace, device: str) -> Protocol:
    from dataclasses import replace

    from predictors.campaign.protocol import get_protocol

    name = arguments.protocol or ("quick" if device == "cpu" else "screening")
    protocol = get_protocol(name)
    return protocol if arguments.regime is None else replace(protocol, regime=arguments.regime)


def _plan(
    arguments: argparse.Namespace, device: str, workload: Workload, protocol: Protocol
) -> Plan:
    from nas.searching.offered import offered_space, unreal_choices
    from predictors.campaign.plan import Part, PlanItem, plan_campaign, plan_items
    from search_spaces.presets import get_space

    if arguments.space is not None:
        asked = get_space(arguments.space)
        space = offered_space(asked, device, workload.batch_size)
        if not arguments.quiet:
            for line in unreal_choices(asked, device, workload.batch_size):
                print(f"note: {line}", file=sys.stderr)
        return plan_campaign(
            [Part(space, workload, arguments.sample)],
            protocol=protocol,
            device=device,
            seed=arguments.seed,
        )
    found = [a for path in arguments.files for a in read_architectures(path)]
    for architecture in found:
        workload.check_fits(architecture)
    return plan_items(
        [PlanItem(architecture, workload) for architecture in found],
        protocol=protocol,
        device=device,
    )


def read_architectures(path: Path) -> list[Architecture]:
    """Architectures in a .json file (one or a list) or a .jsonl file (one a line).

    Raises:
        ValueError: the file is missing or holds something else; names the file.
    """
    from search_spaces.architecture import Architecture

    try:
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            data = [json.loads(line) for line in lines if line.strip()]
        else:
            data = _read_json(path)
        found = [
            # A line of records, such as this command writes, names its architecture.
            Architecture.from_dict(one.get("architecture", one) if isinstance(one, dict) else one)
            for one in (data if isinstance(data, list) else [data])
        ]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"architectures {path}: {error}") from None
    if not found:
        raise ValueError(f"architectures {path}: must hold one or more, got none")
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} must be a readable JSON file: {error}") from None


def _check_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"records must be a file in a writable folder, got {path}")


def _compare(
    arguments: argparse.Namespace,
    device: str,
    meter: str,
    workload: Workload,
    protocol: Protocol,
    lock_folder: Path,
) -> int:
    from predictors.campaign.compare import compare

    pair = []
    for path in arguments.compare:
        found = read_architectures(path)
        if len(found) != 1:
            raise ValueError(f"--compare must be given one architecture a file, got {path}")
        workload.check_fits(found[0])
        pair.append(found[0])
    with MeasureProgress(quiet=arguments.quiet) as progress:
        done = compare(
            pair[0],
            pair[1],
            workload,
            protocol=protocol,
            device=device,
            meter=meter,
            lock_folder=lock_folder,
            seed=arguments.seed,
            on_pair=progress.on_window,
        )
    print(json.dumps(done.to_dict(), allow_nan=False) if arguments.json else _comparison(done))
    return 0


def _comparison(done: Comparison) -> str:
    label = meter_label(done.meter, is_estimate=done.is_estimate)
    mark = "" if done.converged else ", not converged"
    flags = f"\nflags: {', '.join(done.flags)}" if done.flags else ""
    return (
        f"A takes {done.ratio:.3f}x [{done.low:.3f}, {done.high:.3f}] the joules of B "
        f"({done.n_pairs} pairs of fresh processes{mark})\n"
        f"A {format_joules(done.energy_a_j)}, B {format_joules(done.energy_b_j)} per sample "
        f"({label}, {done.workload} on {done.device}){flags}"
    )


def _report(plan: Plan, path: Path, *, as_json: bool) -> int:
    from predictors.campaign.drift import correct_drift
    from predictors.campaign.records import read_records

    keys = {plan.key(item) for item in plan.items}
    every = read_records(path).records if path.exists() else ()
    sessions = {record.session for record in every if record.item in keys}
    corrected, reports = correct_drift([r for r in every if r.session in sessions])
    found = [record for record in corrected if record.item in keys]
    missing = len(keys) - len({record.item for record in found})
    if as_json:
        result = {
            "records": str(path),
            "measured": [record.to_dict() for record in found],
            "missing": missing,
            "drift": [asdict(report) for report in reports],
        }
        print(json.dumps(result, allow_nan=False))
        return 0
    print(render_records(found))
    for report in reports:
        print(render_drift(report))
    print(f"records: {path}" + (f", {missing} items are still to be measured" if missing else ""))
    return 0


def render_drift(report: DriftReport) -> str:
    """How the reference moved, and what was done about it."""
    if report.is_applied:
        left = "" if report.residual is None else f", which leaves {report.residual:.1%}"
        done = f"joules above are corrected for it{left}"
    elif report.is_irregular:
        done = "it followed no trend, so nothing is corrected: is the machine busy?"
    else:
        done = "no more than its own intervals, so nothing is corrected"
    return (
        f"drift: the reference moved by {report.span:.1%} over {report.n_references} "
        f"measurements; {done}"
    )


def render_records(records: list[EnergyRecord]) -> str:
    """Aligned columns, corrected for drift; joules gross and, where idle was measured, net."""
    if not records:
        return "nothing is measured yet"
    first = records[0].reading
    label = meter_label(first.meter, is_estimate=first.is_estimate)
    rows = []
    for record in records:
        reading = record.reading
        flags = [*record.flags] + ([] if reading.converged else ["not_converged"])
        net_j = reading.net_energy_j
        rows.append(
            (
                f"{format_joules(reading.energy_j)} "
                f"[{format_joules(reading.low_j)}, {format_joules(reading.high_j)}]",
                "" if net_j is None else format_joules(net_j),
                f"{reading.latency_s * 1e3:.3g} ms",
                record.architecture.describe(),
                ", ".join(flags),
            )
        )
    head = (f"energy per sample ({label})", "net", "latency", "architecture", "flags")
    return (
        render_columns(head, rows)
        + f"\nenergy with 95% interval, {first.workload} on {first.device}"
    )
