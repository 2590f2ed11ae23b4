"""What the command does: announces its steps, runs them, and says what the records hold."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.campaign import figures
from experiments.campaign.planned import protocol_of, records_folder
from experiments.campaign.steps import Bench, Step, StepError, plan_of, steps_of
from nas.cli.output.progress import MeasureProgress
from nas.core.files import write_json
from predictors.campaign.slices import SliceProgress
from predictors.measurement.process import MeasureError
from predictors.measurement.records import read_records
from predictors.meters.base import MeterError
from predictors.meters.nvml import NvmlMeter
from predictors.meters.select import choose_meter, parse_device


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        if arguments.check is not None:
            return _check(arguments.check, as_json=arguments.json)
        return _campaign(arguments, time.monotonic())
    except KeyboardInterrupt:
        print("campaign: ended by Ctrl-C; the same command goes on", file=sys.stderr)
        return 130
    except (MeterError, ValueError, OSError) as error:
        print(f"campaign: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    except MeasureError as error:
        print(f"campaign: nothing could be measured: {error}", file=sys.stderr)
        return 1


@dataclass
class _Run:
    """What came of each step."""

    states: dict[str, str] = field(default_factory=dict)
    causes: list[str] = field(default_factory=list)


def _campaign(arguments: argparse.Namespace, started_s: float) -> int:
    minutes = arguments.minutes
    if not (math.isfinite(minutes) and minutes > 0):
        raise ValueError(f"--minutes must be finite and > 0, got {minutes!r}")
    if arguments.n is not None and arguments.n < 1:
        raise ValueError(f"--n must be >= 1, got {arguments.n!r}")
    bench = _bench(arguments)
    plan = plan_of(bench)
    with MeasureProgress(quiet=arguments.quiet) as progress:
        listener = _Counting(progress)
        steps = steps_of(
            bench,
            plan,
            listener,
            retry_failed=arguments.retry_failed,
            progress=progress.on_window,
        )
        for line in announcement(bench, steps, minutes, len(plan.items)):
            progress.say(line)
        if arguments.plan:
            return _show_plan(bench, steps, arguments)
        bench.folder.mkdir(parents=True, exist_ok=True)
        end_s = started_s + 60.0 * minutes
        done = _run_steps(steps, end_s, progress)
    return _report(bench, done, listener, as_json=arguments.json)


def _bench(arguments: argparse.Namespace) -> Bench:
    device = parse_device(arguments.device or _default_device())
    protocol = protocol_of(device, arguments.protocol)
    meter = choose_meter(None, device)
    uuid = meter.read_board().uuid if isinstance(meter, NvmlMeter) else None
    meter.close()
    folder: Path = arguments.to or records_folder(meter.device)
    bench = Bench(device, meter.name, meter.source, meter.device, protocol, folder, arguments.n)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"--to must be a writable folder, got {folder}")
    if bench.records.exists():
        _check_existing(bench, uuid)
    return bench


def _check_existing(bench: Bench, uuid: str | None) -> None:
    """Refuse to add to records of another device, and say what is unlike in those of this one.

    Records of another board of the model count as done all the same: where a board is lent anew
    each time, the next is hardly the one before.
    """
    file = read_records(bench.records)
    if file.cut_off:
        print(f"{bench.records}: a line that was cut off is left out", file=sys.stderr)
    devices = {record.reading.device for record in file.records} - {bench.board}
    if devices:
        raise ValueError(
            f"--to must be a folder of {bench.board}: {bench.records} holds records of "
            f"{', '.join(sorted(devices))}; name another folder"
        )
    boards = {r.reading.board.uuid for r in file.records if r.reading.board is not None}
    others = boards - {uuid} if uuid is not None else set()
    if others:
        print(
            f"{bench.records} holds records of another {bench.board} ({', '.join(sorted(others))}"
            f", this is {uuid}): what they hold is not measured again; --to with another folder "
            f"begins anew",
            file=sys.stderr,
        )


def _default_device() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def announcement(bench: Bench, steps: Sequence[Step], minutes: float, n_items: int) -> list[str]:
    """What is to be done and how long it takes, before anything is."""
    lines = [
        f"campaign on {bench.board} ({bench.source}), protocol {bench.protocol.name}: "
        f"{n_items} measurements planned; writes to {bench.folder}"
    ]
    lines += [f"  {step.name:<6} {step.what}: about {_minutes(step.seconds)}" for step in steps]
    if not steps:
        return [*lines, "  nothing is left to be done"]
    total_s = sum(step.seconds for step in steps)
    part = "all of it" if total_s <= 60 * minutes else "as much as fits, the first steps first"
    lines.append(
        f"this run takes {_minutes(min(60 * minutes, total_s))} of about {_minutes(total_s)} "
        f"({part}); every record is on disk at once, and the same command goes on"
    )
    return lines


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _show_plan(bench: Bench, steps: Sequence[Step], arguments: argparse.Namespace) -> int:
    if arguments.json:
        rows = [{"name": s.name, "what": s.what, "seconds": s.seconds} for s in steps]
        print(json.dumps({"folder": str(bench.folder), "device": bench.board, "steps": rows}))
    elif arguments.quiet:
        raise ValueError("--plan says what is to be done: leave out --quiet")
    return 0


def _run_steps(steps: Sequence[Step], end_s: float, progress: MeasureProgress) -> _Run:
    done = _Run()
    for step in steps:
        left_s = end_s - time.monotonic()
        is_measuring = step.name in ("first", "rest")
        if left_s <= 0 or (not is_measuring and left_s < step.seconds):
            done.states[step.name] = "left for the next run"
            continue
        try:
            step.run(left_s)
            done.states[step.name] = "run"
        except StepError as error:
            done.states[step.name] = f"failed: {error}"
            progress.say(f"{step.name} failed: {error}")
        except MeasureError as error:
            done.states[step.name] = f"failed: {error}"
            done.causes.append(str(error))
            progress.say(f"{step.name}: nothing could be measured: {error}")
    return done


def _report(bench: Bench, done: _Run, listener: _Counting, *, as_json: bool) -> int:
    found = figures.read_figures(bench.records) if bench.records.exists() else []
    write_json(bench.folder / "figures.json", [one.to_dict() for one in found])
    code = 1 if done.causes and not listener.n_records else 0
    if as_json:
        result: dict[str, Any] = {
            "records": str(bench.records),
            "device": bench.board,
            "protocol": bench.protocol.name,
            "new_records": listener.n_records,
            "new_failures": listener.n_failures,
            "steps": done.states,
            "figures": [one.to_dict() for one in found],
        }
        print(json.dumps(result, allow_nan=False))
        return code
    for one in found:
        print(figures.render(one))
    print(f"{bench.records}: {listener.n_records} records more in this run")
    for name, state in done.states.items():
        if state != "run":
            print(f"  {name}: {state}")
    if code:
        print(f"campaign: nothing could be measured: {done.causes[0]}", file=sys.stderr)
    return code


class _Counting:
    """Counts what a run leaves, and hands it on to the progress."""

    def __init__(self, progress: MeasureProgress) -> None:
        self._progress = progress
        self.n_records = self.n_failures = 0

    def on_item(self, progress: SliceProgress, item: Any, role: Any, result: Any) -> None:
        """See ``predictors.campaign.slices.SliceListener``."""
        self.n_failures += isinstance(result, str)
        self.n_records += not isinstance(result, str)
        self._progress.on_item(progress, item, role, result)


def _figures(path: Path) -> list[figures.Figures]:
    """Figures of the records at ``path``; none of a file of which ``problems`` says what it is."""
    try:
        return figures.read_figures(path)
    except ValueError:
        return []


def _check(folder: Path, *, as_json: bool) -> int:
    """Say of each file of records whether it may be used."""
    if not folder.is_dir():
        raise ValueError(f"--check must be a folder of records, got {folder}")
    paths = sorted(
        path
        for path in folder.rglob("*.jsonl")
        if not path.name.endswith(".failures.jsonl") and path.name != "cold-start.jsonl"
    )
    if not paths:
        raise ValueError(f"--check must be a folder with .jsonl files of records, got {folder}")
    wrong = {str(path): figures.problems(path) for path in paths}
    found = {str(path): _figures(path) for path in paths}
    if as_json:
        rows = {
            path: {"problems": wrong[path], "figures": [one.to_dict() for one in found[path]]}
            for path in wrong
        }
        print(json.dumps(rows, allow_nan=False))
    else:
        for path, causes in wrong.items():
            for one in found[path]:
                print(figures.render(one))
            print(f"{path}: {'; '.join(causes) or 'may be used'}")
    return 1 if any(wrong.values()) else 0
