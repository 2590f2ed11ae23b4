"""Options of ``nas measure``, and which combinations are allowed."""

from __future__ import annotations

import argparse
from pathlib import Path

from nas.cli.options.checkpoint import (
    add_from,
    add_size_and_precision,
    refuse_without_from,
)
from nas.cli.options.common import (
    add_device,
    add_json,
    add_meter,
    add_plugins,
    add_quiet,
    add_seed,
    check_seed,
    seconds,
)

AUTO = "auto"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add every option."""
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        help="architectures as .json (one or a list) or .jsonl; records are measured again with "
        "their own workload and protocol",
    )
    add_from(
        parser,
        "measure a pretrained checkpoint in each precision: a Hugging Face folder, a GGUF file, "
        "or a name owner/name of the hub",
    )
    add_size_and_precision(parser, "every one that is real on the device")
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="with --from or --runtime: rounds of fresh processes; intervals are over rounds "
        "(default: 3)",
    )
    parser.add_argument(
        "--runtime",
        action="append",
        help="runtime to measure in, beside torch: torch-eager, onnxruntime, openvino, litert or "
        "executorch (repeatable; default: torch alone)",
    )
    add_plugins(parser)
    parser.add_argument("--space", help="search space to sample from: a preset or a YAML file")
    parser.add_argument(
        "--sample", type=int, help="number of architectures to sample from the space"
    )
    parser.add_argument(
        "--active",
        type=int,
        metavar="N",
        help="measure N architectures of the space, chosen to narrow the predictor's intervals "
        "near the front; counts those in the records, so that it resumes",
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="measure the ratio of A's joules to B's",
    )
    parser.add_argument(
        "--task",
        help="task whose forward pass is measured (default: digits); with --from, the task of "
        "the inputs",
    )
    parser.add_argument("--workload", type=Path, help="workload as JSON, instead of a task's")
    parser.add_argument(
        "--batch-size",
        help="samples per batch (default: 128; 1 in the latency regime and with --from); auto "
        "doubles it until "
        "joules per sample fall by less than 5%%",
    )
    parser.add_argument(
        "--phase",
        action="append",
        help="phase of a language model, prefill or generate, instead of the task's (repeatable; "
        "with --from by default both)",
    )
    add_device(parser)
    add_meter(parser)
    parser.add_argument(
        "--protocol",
        help="quick, screening, brief or final (default: quick on CPUs, else screening)",
    )
    parser.add_argument("--regime", help="throughput (default) or latency")
    add_seed(parser, "seed of samples, weights and order")
    parser.add_argument(
        "--to",
        type=Path,
        help="records file to append to; records in it are not measured again "
        "(default: measurements.jsonl)",
    )
    parser.add_argument("--budget-s", type=seconds, help="stop within this many seconds")
    parser.add_argument("--retry-failed", action="store_true", help="retry failed measurements")
    add_quiet(parser)
    add_json(parser)


def check(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` for options that exclude each other, before anything slow."""
    has_space = arguments.space is not None
    sources = {
        "architecture files": bool(arguments.files),
        "--from DIR": arguments.checkpoint is not None,
        "--space": has_space,
        "--compare": arguments.compare is not None,
    }
    if sum(sources.values()) != 1:
        given = " and ".join(name for name, is_given in sources.items() if is_given) or "none"
        raise ValueError(
            f"name one of architecture files, --from DIR, --space with --sample or --active, and "
            f"--compare A B, got {given}"
        )
    refuse_without_from(arguments, "sequence_length", "image_size", "precision")
    has_rounds = arguments.checkpoint is not None or arguments.runtime is not None
    if arguments.rounds is not None and not has_rounds:
        raise ValueError("--rounds requires --from DIR or --runtime: add one, or leave it out")
    for option in ("active", "compare"):
        if arguments.runtime is not None and getattr(arguments, option) is not None:
            raise ValueError(f"--{option} measures in torch: leave out --runtime")
    if (arguments.sample is not None) + (arguments.active is not None) != has_space:
        raise ValueError("--space must be given with one of --sample and --active")
    for name in ("sample", "active", "budget_s", "sequence_length", "rounds"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be > 0, got {value!r}")
    size = arguments.batch_size
    if size is not None and size != AUTO and not (size.isdecimal() and int(size) > 0):
        raise ValueError(f"batch_size must be an integer > 0 or {AUTO}, got {size!r}")
    if size == AUTO and arguments.checkpoint is not None:
        raise ValueError(f"--from measures at one batch size: give a number, got {AUTO}")
    if size == AUTO and arguments.runtime is not None:
        raise ValueError(f"--runtime measures at one batch size: give a number, got {AUTO}")
    if size == AUTO and arguments.active is not None:
        raise ValueError(f"--active measures on one workload: leave out --batch-size {AUTO}")
    if size == AUTO and arguments.regime == "latency":
        raise ValueError(f"--batch-size {AUTO} needs --regime throughput, got latency")
    check_seed(arguments)
    if arguments.task is not None and arguments.workload is not None:
        raise ValueError("--task and --workload both set the workload: leave one out")
    if len(set(arguments.phase or ())) > 1:
        for option in ("active", "compare"):
            if getattr(arguments, option) is not None:
                raise ValueError(f"--{option} measures on one workload: give one --phase")
    unused = {
        "--to": arguments.to is not None,
        "--budget-s": arguments.budget_s is not None,
        "--retry-failed": arguments.retry_failed,
        f"--batch-size {AUTO}": size == AUTO,
    }
    if arguments.compare is not None and any(unused.values()):
        first = next(option for option, is_set in unused.items() if is_set)
        raise ValueError(f"--compare writes no records and has no budget: leave out {first}")
    if size == AUTO and arguments.retry_failed:
        raise ValueError(f"--batch-size {AUTO} ends at a failed size: leave out --retry-failed")
