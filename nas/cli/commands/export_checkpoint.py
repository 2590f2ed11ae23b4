"""``nas export --from``: prune a checkpoint to an architecture and write it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.output.tables import print_result
from nas.core.names import printable
from nas.core.units import format_bytes

if TYPE_CHECKING:
    from nas.exporting.export import Exported

FORMS = ("huggingface", "python", "gguf")
GGUF_TYPES = ("F32", "F16", "Q8_0")
# Attributes of the options that choose a trial of a run.
_OF_RUNS = ("run", "trial", "storage", "task", "max_joules", "min_quality", "max_latency_ms")
_ALSO_OF_RUNS = ("max_params", "max_memory", "exportable", "knee", "recommended", "plugin")
_TOLERANCES = ("joule_tolerance", "quality_tolerance")


def check(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` unless a run or a checkpoint is given, with its own options."""
    if arguments.checkpoint is None:
        if arguments.run is None:
            raise ValueError("a run folder or --from DIR must be given, got neither")
        if arguments.architecture is not None:
            raise ValueError("--architecture requires --from DIR: add it, or leave it out")
        if arguments.gguf_type is not None:
            raise ValueError("--gguf-type requires --from DIR: add it, or leave it out")
        return
    for name in (*_OF_RUNS, *_ALSO_OF_RUNS, *_TOLERANCES):
        # By identity: a tolerance of 0 is one, too.
        value = getattr(arguments, name)
        if value is not None and value is not False and value != []:
            option = "a run folder" if name == "run" else f"--{name.replace('_', '-')}"
            raise ValueError(f"--from DIR exports a checkpoint, not a run: leave out {option}")
    if arguments.architecture is None:
        raise ValueError("--from DIR requires --architecture FILE")
    form, kind = form_of(arguments), arguments.gguf_type
    if kind is not None and form != "gguf":
        raise ValueError(f"--gguf-type requires --format gguf, got --format {form}")
    if kind is not None and kind not in GGUF_TYPES:
        raise ValueError(f"--gguf-type must be one of {', '.join(GGUF_TYPES)}, got {kind}")


def form_of(arguments: argparse.Namespace) -> str:
    """Return the format that ``--format`` names, by default ``huggingface``.

    Raises:
        ValueError: the format is unknown, or there are several.
    """
    requested = arguments.format or [FORMS[0]]
    if len(requested) != 1 or requested[0] not in FORMS:
        raise ValueError(
            f"format must be one of {', '.join(FORMS)} with --from DIR, got {','.join(requested)}"
        )
    return str(requested[0])


def export_from(arguments: argparse.Namespace) -> int:
    """Export the checkpoint that ``--from`` names."""
    from nas.cli.options.architecture_files import read_named
    from nas.exporting.checkpoint import export_checkpoint
    from search_spaces.pretrained import load_checkpoint

    named = read_named(Path(arguments.architecture))
    if len(named) != 1:
        raise ValueError(
            f"--architecture must have one architecture, got {len(named)} in "
            f"{arguments.architecture}"
        )
    checkpoint = load_checkpoint(arguments.checkpoint)
    if not arguments.quiet:
        print(
            f"pruning {printable(str(checkpoint.folder))}, then loading the result in a fresh "
            f"process",
            file=sys.stderr,
        )
    form = form_of(arguments)
    done = export_checkpoint(
        checkpoint,
        named[0].architecture,
        arguments.to,
        form=form,
        gguf_type=arguments.gguf_type or GGUF_TYPES[0],
    )
    data = {"folder": str(done.folder), "card": done.card}
    print_result(data, _text(done), as_json=arguments.json)
    return 0


def _exact(n_weights: int) -> list[str]:
    return [f"  exact    {n_weights} quantised weights, to the bit"] if n_weights else []


def _text(done: Exported) -> str:
    card = done.card
    parent, verification = card["parent"], card["load_verification"]
    licence = parent["license"] or "no licence named"
    lines = [
        f"{done.folder}: {card['architecture']}, {card['params']:,} parameters, "
        f"{format_bytes(card['files'][card['weights']])}",
        f"  parent   {parent['name']} ({licence}), {parent['params']:,} parameters",
        f"  changed  {'; '.join(card['changed']) or 'nothing'}",
        f"  loads    as {verification['stock_class']} by {verification['version']} without "
        f"JouleNAS; outputs differ by {verification['output_difference']:.2g} at most (allowed "
        f"{verification['output_tolerance']:.2g})",
        *_exact(verification["n_exact"]),
        f"  files    README.md, {', '.join(card['files'])}",
        "  note     not trained after pruning, and no quality was evaluated",
    ]
    if card["format"] == "gguf" and not card["has_tokenizer"]:
        lines.append("  note     the parent has no tokenizer, so the file contains none")
    return "\n".join(lines)
