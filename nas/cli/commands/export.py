"""``nas export``: write a trial as a portable, verified artifact."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.commands.export_checkpoint import check, export_from
from nas.cli.options.common import (
    add_json,
    add_moved_task,
    add_plugins,
    add_quiet,
    named_plugins,
)
from nas.cli.options.front_query import add_query, one_member, queried_front
from nas.cli.options.storage import add_run, loaded
from nas.cli.output.tables import print_result
from nas.core.units import format_bytes, format_joules

if TYPE_CHECKING:
    from nas.exporting.export import Exported
    from nas.store.run import Run
    from nas.tasks.base.metric import Metric


HELP = "write a trial as a verified artifact, or a checkpoint pruned to an architecture"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_run(parser, is_optional=True)
    parser.add_argument(
        "--from",
        dest="checkpoint",
        metavar="DIR",
        help="export a pretrained checkpoint without a search: a Hugging Face folder, a GGUF "
        "file, or a name owner/name of the hub",
    )
    parser.add_argument(
        "--architecture",
        type=Path,
        metavar="FILE",
        help="with --from: architecture to which the checkpoint is pruned, as JSON",
    )
    parser.add_argument(
        "--gguf-type",
        help="with --from and --format gguf: type of the weights, F32 (default), F16 or Q8_0",
    )
    parser.add_argument(
        "--trial", type=int, help="trial number (default: the recommended member of nas front)"
    )
    add_query(parser)
    parser.add_argument(
        "--to", type=Path, required=True, help="folder of the artifact, new or empty"
    )
    parser.add_argument(
        "--joule-tolerance",
        type=float,
        help="maximum relative difference of joules measured again (default: 0.3)",
    )
    parser.add_argument(
        "--format",
        action="append",
        help="formats separated by commas (repeatable): safetensors (always), pt2, onnx, "
        "onnx-int8, openvino, openvino-int8, litert, litert-int8, executorch, executorch-int8, "
        "python, huggingface; beside that of the search's --runtime; with --from one of "
        "huggingface (default), python, gguf",
    )
    parser.add_argument(
        "--quality-tolerance",
        type=float,
        help="maximum loss of validation quality by formats in int8 (default: 0.02)",
    )
    add_moved_task(parser)
    add_plugins(parser)
    add_quiet(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.exporting.export import export

    check(arguments)
    if arguments.checkpoint is not None:
        return export_from(arguments)
    _check_one_choice(arguments)
    options = arguments.format or ["safetensors"]
    formats = [name.strip() for text in options for name in text.split(",")]
    is_int8 = any(name.endswith("-int8") for name in formats)
    if arguments.quality_tolerance is not None and not is_int8:
        raise ValueError(
            "--quality-tolerance is of formats in int8 alone: add --format onnx-int8 or another, "
            "or leave it out"
        )
    named_plugins(arguments)
    source = loaded(arguments)
    if arguments.task is not None:
        source = source.with_task(arguments.task)
    source.check_task()
    trial, rule = _choose(source, arguments, formats)
    if not arguments.quiet:
        print(
            f"exporting trial {trial}{rule}: reloading, evaluating and measuring it in fresh "
            f"processes",
            file=sys.stderr,
        )
    tolerances = {
        name: value
        for name in ("joule_tolerance", "quality_tolerance")
        if (value := getattr(arguments, name)) is not None
    }
    done = export(source, trial, arguments.to, formats=formats, **tolerances)
    data = {"folder": str(done.folder), "card": done.card}
    print_result(data, _card_text(done, source.metric), as_json=arguments.json)
    return 0


def _card_text(done: Exported, metric: Metric) -> str:
    from nas.exporting.card_text import inside_interval

    verified, searched = done.card["verified"], done.card["searched"]
    reading = verified["reading"]
    is_measured = not reading["is_estimate"]
    again = f"measured again ({reading['meter']})" if is_measured else "estimated again"
    test = metric.text(verified["test_quality"], verified["test_quality_se"])
    in_search = format_joules(searched["reading"]["energy_j"])
    lines = [
        f"{done.folder}: {done.card['architecture']}, {done.card['params']:,} parameters",
        f"  outputs     reloaded in a fresh process, differ by "
        f"{verified['output_difference']:.2g} at most",
        f"  {metric.name:<11} validation {metric.text(verified['validation_quality'])}, "
        f"test {test}",
        f"  energy      {format_joules(reading['energy_j'])} per {reading['unit']} {again}, "
        f"{in_search} in the search{inside_interval(verified)}",
    ]
    lines += [
        f"              {format_joules(phase['energy_j'])} per {phase['unit']}, not an objective "
        f"of the search"
        for phase in verified["other_phases"]
    ]
    lines += [
        f"  {name:<11} {_describe(stored, metric)}"
        for name, stored in done.card["formats"].items()
    ]
    return "\n".join(lines)


_QUERY = ("max_joules", "min_quality", "max_latency_ms", "max_params", "max_memory", "exportable")


def _check_one_choice(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` if both a trial and a query are given."""
    is_set = [getattr(arguments, name) is not None for name in _QUERY]
    if arguments.trial is not None and any((*is_set, arguments.knee, arguments.recommended)):
        raise ValueError("--trial names one member: leave out options that choose one")


def _choose(
    source: Run, arguments: argparse.Namespace, formats: Collection[str]
) -> tuple[int, str]:
    """Return the trial to export (by default the recommended member) and the rule as text.

    Raises:
        ValueError: no member qualifies, or the front has no knee.
    """
    if arguments.trial is not None:
        return arguments.trial, ""
    front, exportable = queried_front(source, arguments)
    if exportable is not None and not arguments.quiet:
        print(f"note: {exportable.describe()}", file=sys.stderr)
        unwritten = ",".join(name for name in exportable.formats if name not in formats)
        if unwritten:
            print(f"note: add --format {unwritten} to write that format too", file=sys.stderr)
    if arguments.knee:
        return one_member(front, arguments).members[0].trial, ", at the knee"
    limits = [getattr(arguments, name) for name in _QUERY if name != "exportable"]
    if arguments.recommended or all(limit is None for limit in limits):
        rule = "the cheapest within one standard error of the best"
        return front.recommended().trial, f", recommended ({rule})"
    if arguments.min_quality is not None and arguments.max_joules is None:
        return front.members[0].trial, ", the cheapest of at least this quality"
    return front.best().trial, ", the best within the limits"


def _describe(stored: dict[str, Any], metric: Metric) -> str:
    """Return one line on a format: its size, difference of outputs, quality and joules."""
    verified = stored["verified"]
    reading = verified["reading"]
    size = format_bytes(sum(stored["files"].values()))
    energy = format_joules(reading["energy_j"])
    is_judged = verified["output_tolerance"] is not None
    apart = f"outputs differ by {verified['output_difference']:.2g} at most, " if is_judged else ""
    how = "estimated" if reading["is_estimate"] else "measured"
    quality = metric.text(verified["validation_quality"])
    return f"{size}, {apart}validation {quality}, {energy} {how} in {verified['runtime']}"
