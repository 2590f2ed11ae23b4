"""``nas export``: write one trial as an artifact that runs elsewhere, verified."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.front import add_query, query
from nas.cli.limits import asked_limits
from nas.cli.options import add_json, add_quiet
from nas.cli.plugins import add_plugins, named_plugins
from nas.cli.storage import add_run_storage, loaded
from nas.cli.units import format_bytes, format_joules

if TYPE_CHECKING:
    from nas.tasks.metric import Metric


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "export", help="write a trial as a verified artifact"
    )
    parser.add_argument("run", help="run folder")
    add_run_storage(parser)
    parser.add_argument("--trial", type=int, help="trial number; see nas front")
    add_query(parser)
    parser.add_argument("--to", type=Path, required=True, help="folder of the artifact")
    parser.add_argument(
        "--joule-tolerance",
        type=float,
        default=0.3,
        help="how far joules measured again may differ, relative (default: 0.3)",
    )
    parser.add_argument(
        "--format",
        action="append",
        help="forms to write, separated by commas or given again: safetensors (always), pt2, "
        "onnx, onnx-int8, python, huggingface",
    )
    parser.add_argument(
        "--accuracy-tolerance",
        type=float,
        default=0.02,
        help="how much validation accuracy onnx-int8 may lose (default: 0.02)",
    )
    add_plugins(parser)
    add_quiet(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.exporting.export import export

    queries = (
        arguments.knee,
        arguments.max_joules,
        arguments.min_accuracy,
        arguments.max_latency_ms,
        arguments.max_params,
        arguments.max_memory,
    )
    asked = [option is not None and option is not False for option in (arguments.trial, *queries)]
    if not any(asked):
        raise ValueError(
            "name a member: --trial N, --knee, --min-accuracy A, --max-joules X or another limit"
        )
    if asked[0] and any(asked[1:]):
        raise ValueError("--trial names one member already; leave the other options out")
    asked_for = arguments.format or ["safetensors"]
    formats = [name.strip() for text in asked_for for name in text.split(",")]
    named_plugins(arguments)
    found = loaded(arguments)
    limits = asked_limits(arguments)
    if arguments.trial is not None:
        trial = arguments.trial
    elif arguments.knee:
        trial = query(found.front(limits), arguments).members[0].trial
    else:
        chosen = query(found.front(limits), arguments)
        cheapest = arguments.min_accuracy is not None and arguments.max_joules is None
        trial = (chosen.members[0] if cheapest else chosen.best()).trial
    if not arguments.quiet:
        print(
            f"exporting trial {trial}: reloading, evaluating and measuring it in fresh processes",
            file=sys.stderr,
        )
    with _cleared_when_ended():
        done = export(
            found,
            trial,
            arguments.to,
            joule_tolerance=arguments.joule_tolerance,
            formats=formats,
            accuracy_tolerance=arguments.accuracy_tolerance,
        )
    if arguments.json:
        print(json.dumps({"folder": str(done.folder), "card": done.card}, allow_nan=False))
        return 0
    verified, searched = done.card["verified"], done.card["searched"]
    reading = verified["reading"]
    is_measured = not reading["is_estimate"]
    again = f"measured again ({reading['meter']})" if is_measured else "estimated again"
    print(f"{done.folder}: {done.card['architecture']}, {done.card['params']:,} parameters")
    print(
        f"  outputs     reloaded in a fresh process, differ by "
        f"{verified['output_difference']:.2g} at most"
    )
    metric = found.metric
    test = metric.text(verified["test_accuracy"], verified["test_accuracy_se"])
    print(
        f"  {metric.name:<11} validation {metric.text(verified['validation_accuracy'])}, "
        f"test {test}"
    )
    print(
        f"  energy      {format_joules(reading['energy_j'])} per {reading['unit']} {again}, "
        f"{format_joules(searched['reading']['energy_j'])} in the search"
    )
    for other in verified["other_phases"]:
        print(
            f"              {format_joules(other['energy_j'])} per {other['unit']}, which it was "
            f"not searched by"
        )
    for name, form in done.card["formats"].items():
        print(f"  {name:<11} {_describe(form, found.metric)}")
    return 0


@contextmanager
def _cleared_when_ended() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C is taken: what was begun goes, and the process that verifies too."""

    def ended(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe(form: dict[str, Any], metric: Metric) -> str:
    """One line on a further form: its size, how far it is from the network, what it takes."""
    verified = form["verified"]
    reading = verified["reading"]
    size = format_bytes(sum(form["files"].values()))
    energy = format_joules(reading["energy_j"])
    is_judged = verified["output_tolerance"] is not None
    apart = f"outputs differ by {verified['output_difference']:.2g} at most, " if is_judged else ""
    how = "estimated" if reading["is_estimate"] else "measured"
    quality = metric.text(verified["validation_accuracy"])
    return f"{size}, {apart}validation {quality}, {energy} {how} in {verified['runtime']}"
