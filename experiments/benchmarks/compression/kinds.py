"""What each kind of compression pays, by choice and shape.

``python -m experiments.benchmarks.compression.kinds --device cpu``

At each shape (width, batch size) a two-layer encoder on 64 tokens is built once for every choice:
precisions, 2:4, and the smaller dense networks that take its weights (half of the feed-forward
channels, half of the layers, half of the width, rank d/4). All are prepared as measuring prepares
them, then timed in turns in one process, beside plain fp32 op by op. On a device with a real
meter each also runs for a second under it. Ratios are to fp32 eager, to fp32 prepared in the same
way, and to bf16; ``bf16 again`` is the same network prepared twice, whose ratio to itself is the
noise. Size is of the tensors that ``compression.store`` writes. Output error is the distance of
the logits from those of fp32, relative to their norm, on random weights: for choices of structure
it says how far the network is from where a fine-tune would start.

Accuracy is of a network trained on the digits, before any fine-tune, and after one of a sixth of
its training (for structure and masks; ``--no-accuracy`` leaves it out).

With ``--records FILE`` each shape is appended as it is done, and a second run goes on where the
first was cut: ``--budget-s`` starts no second shape that would end later.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch

from experiments.benchmarks.compression.digits_accuracy import digits_accuracies
from experiments.benchmarks.compression.lines import (
    COMPILED,
    CONTROL,
    EAGER,
    Line,
    append_lines,
    read_lines,
)
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.searching.recipes import default_device
from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.per_call import joules_per_call, real_meter
from predictors.meters.select import parse_device
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.architecture.layer_kinds import compressed_layer_kinds
from search_spaces.architecture.simulated import simulated_choices
from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
from search_spaces.compression.inherit import inherit
from search_spaces.compression.probing import top_kernel
from search_spaces.compression.store import stored_tensors
from search_spaces.compression.timing import median_ratio, time_in_turns
from search_spaces.models.build import build
from search_spaces.models.device import use_device
from search_spaces.workload import Workload

DEPTH, TOKEN_SIDE = 2, 8
PRECISIONS = ("fp32", "bf16", "int8", "fp8", "int8wo", "int4wo")
STRUCTURES = ("half-ffn", "half-depth", "half-width", "rank-d/4")
CHOICES = (*PRECISIONS, *COMPILED, "2:4", "unstructured-90", *STRUCTURES, "half-ffn int8", CONTROL)
_TURNS, _TURN_S = 9, 0.1


def architecture_of(choice: str, d_model: int) -> Architecture:
    """The reference encoder with ``choice`` applied."""
    heads = max(2, d_model // 64)
    d_head, d_ff, depth, rank = d_model // heads, 4 * d_model, DEPTH, None
    structure, _, precision = (
        choice.removesuffix(" compiled").removesuffix(" again").partition(" ")
    )
    if structure == "half-ffn":
        d_ff //= 2
    elif structure == "half-depth":
        depth //= 2
    elif structure == "half-width":
        d_model, heads, d_ff = d_model // 2, max(1, heads // 2), d_ff // 2
    elif structure == "rank-d/4":
        rank = d_model // 4
    else:
        precision = structure
    compression = Compression()
    if precision in PRECISIONS:
        compression = Compression(precision=precision)  # type: ignore[arg-type]
    elif precision:
        compression = Compression("bf16", precision)  # type: ignore[arg-type]
    layer = LayerSpec(
        AttentionSpec(heads, heads, d_head, rank, compression), FfnSpec(d_ff, rank, compression)
    )
    return Architecture(d_model, (layer,) * depth, patch_size=2)


def workload_of(batch_size: int) -> Workload:
    """Grey images of 64 patches."""
    side = 2 * TOKEN_SIDE
    return Workload("benchmark", "image_classification", (1, side, side), 10, batch_size)


def run_shape(
    d_model: int, batch_size: int, device: str, on_choice: Callable[[str], None]
) -> list[Line]:
    """Prepare every choice beside others on the device, then time them in turns alone on it."""
    torch.compiler.reset()
    use_device(device)
    lock = DeviceLock(None, device)
    with lock.shared():
        calls, lines = _prepared(d_model, batch_size, device, on_choice)
    with lock.exclusive():
        times = time_in_turns(calls, device, turns=_TURNS, turn_s=_TURN_S)
        joules = _joules(calls, device)
        kernels = {name: top_kernel(call, calls.get("fp32")) for name, call in calls.items()}
    fp32_bytes = lines["fp32"].size_bytes
    found = [
        replace(
            line,
            time_s=median(times[choice]),
            time_to_eager=median_ratio(times, choice, EAGER),
            time_to_fp32=median_ratio(times, choice, *_references(choice, "fp32")),
            time_to_bf16=median_ratio(times, choice, *_references(choice, "bf16")),
            size_ratio=None if fp32_bytes is None else (line.size_bytes or 0) / fp32_bytes,
            joules_per_sample=None if joules is None else joules[choice] / batch_size,
            joules_to_bf16=_joules_to_bf16(joules or {}, choice),
            kernel=kernels[choice],
        )
        if choice in calls
        else line
        for choice, line in lines.items()
    ]
    # fp32 op by op is what most people run.
    plain = Line(
        d_model,
        batch_size,
        EAGER,
        "real",
        time_s=median(times[EAGER]),
        time_to_eager=1.0,
        time_to_fp32=median_ratio(times, EAGER, "fp32"),
        time_to_bf16=median_ratio(times, EAGER, "bf16"),
        size_ratio=1.0,
        mode="eager",
    )
    return [plain, *found]


def _prepared(
    d_model: int, batch_size: int, device: str, on_choice: Callable[[str], None]
) -> tuple[dict[str, Callable[[], object]], dict[str, Line]]:
    """What runs each choice that can run, and a line of every choice without its times."""
    workload = workload_of(batch_size)
    reference = architecture_of("fp32", d_model)
    teacher = build(reference, workload, generator_seed=0).to(device)
    shape = (batch_size, *workload.input_shape)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    eager = run_eagerly(compress(teacher, reference))
    expected = eager.call(inputs).float()
    calls: dict[str, Callable[[], object]] = {EAGER: eager.repeat(inputs)}
    lines: dict[str, Line] = {}
    for choice in CHOICES:
        if choice in COMPILED and not device.startswith("cuda"):
            continue
        on_choice(choice)
        architecture = architecture_of(choice, d_model)
        blank = Line(d_model, batch_size, choice, "absent")
        try:
            if architecture.d_model == d_model:
                trained = inherit(teacher, reference, architecture, workload)
            else:
                trained = build(architecture, workload, generator_seed=0).to(device)
            model = compress(trained, architecture)
            prepared = prepare_for_inference(
                model,
                architecture,
                inputs,
                keep_compiled=True,
                compile_plain=choice in COMPILED,
            )
        except Exception as error:
            print(f"{choice}: {str(error).splitlines()[0][:150]}", file=sys.stderr)
            lines[choice] = blank
            continue
        distance = (prepared.call(inputs).float() - expected).norm() / expected.norm()
        calls[choice] = prepared.repeat(inputs)
        simulated = simulated_choices(architecture, device)
        lines[choice] = replace(
            blank,
            status="simulated" if simulated else "real",
            mode=prepared.mode,
            size_bytes=sum(t.nbytes for t in stored_tensors(model, architecture).values()),
            # A network of another width inherits nothing, so its outputs say nothing.
            output_error=float(distance) if architecture.d_model == d_model else None,
        )
    return calls, lines


def _references(choice: str, plain: str) -> tuple[str, ...]:
    """What a choice is compared with: compiled ones also with the plain variant compiled."""
    if compressed_layer_kinds(architecture_of(choice, 64)):
        return (plain, f"{plain} compiled")
    return (plain,)


def _joules_to_bf16(joules: dict[str, float], choice: str) -> float | None:
    """``None`` without a meter, or where bf16 could not run."""
    known = [joules[name] for name in _references(choice, "bf16") if name in joules]
    return joules[choice] / min(known) if known else None


def _joules(calls: dict[str, Callable[[], object]], device: str) -> dict[str, float] | None:
    meter = real_meter(device)
    if meter is None:
        return None
    try:
        return {name: joules_per_call(meter, device, call) for name, call in calls.items()}
    finally:
        meter.close()


def tables(
    lines: Sequence[Line], accuracies: dict[str, tuple[float, float | None]]
) -> list[Table]:
    """The ratios, with a column of joules only where a real meter gave some, and accuracies."""
    has_joules = any(line.joules_to_bf16 is not None for line in lines)
    columns = {
        "shape": "d{d_model}/b{batch_size}",
        "choice": "{choice}",
        "time / fp32 eager": "{time_to_eager:.2f}x",
        "time / fp32": "{time_to_fp32:.2f}x",
        "time / bf16": "{time_to_bf16:.2f}x",
        "size": "{size_ratio:.2f}x",
        "output error": "{output_error:.3f}",
        **({"joules / bf16": "{joules_to_bf16:.2f}x"} if has_joules else {}),
        "verdict": "{verdict}",
        "kernel": "{kernel}",
    }
    rows = [asdict(line) | {"verdict": line.verdict} for line in lines if line.status != "absent"]
    absent = sorted({line.choice for line in lines if line.status == "absent"})
    note = f"not here: {', '.join(absent)}" if absent else ""
    found = [Table.of("ratios", columns, rows, note)]
    if accuracies:
        found.append(
            Table.of(
                "accuracy",
                {
                    "choice": "{choice}",
                    "drop, points": "{drop:+.2f}",
                    "after a short fine-tune": "{later:+.2f}",
                },
                [
                    {"choice": name, "drop": drop, "later": later}
                    for name, (drop, later) in accuracies.items()
                ],
                "digits, validation accuracy of one trained network (d64, 2 layers)",
            )
        )
    return found


def _shapes(text: str | None, device: str) -> list[tuple[int, int]]:
    if text is None:
        if device.startswith("cuda"):
            return [(d, b) for d in (256, 512, 1024, 2048, 4096) for b in (1, 32, 256)]
        return [(64, 128), (512, 1), (512, 32)]
    found = []
    for part in text.split(","):
        d_model, _, batch_size = part.partition("x")
        if not (d_model.isdigit() and batch_size.isdigit() and int(d_model) % 64 == 0):
            raise ValueError(f"shapes must be WIDTHxBATCH with widths of 64s, got {part!r}")
        found.append((int(d_model), int(batch_size)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.compression.kinds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", help="cpu or cuda:N (default: CUDA where there is one)")
    parser.add_argument("--shapes", help="such as 512x32,64x1 (default: the device's own)")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (default: 1)")
    parser.add_argument("--records", type=Path, help="JSONL file to append to and go on from")
    parser.add_argument("--budget-s", type=float, default=480.0, help="seconds (default: 480)")
    parser.add_argument("--no-accuracy", action="store_true", help="leave the digits out")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    try:
        device = parse_device(arguments.device or default_device())
    except ValueError as error:
        print(f"compression: {error}", file=sys.stderr)
        return 2
    sheet = Sheet(parser, arguments, "compression", device)
    try:
        shapes = _shapes(arguments.shapes, device)
    except ValueError as error:
        print(f"compression: {error}", file=sys.stderr)
        return 2
    torch.set_num_threads(arguments.threads)
    # More than one network of a class is compiled here on purpose.
    torch.compiler.config.recompile_limit = 64
    started, longest_s = time.monotonic(), 0.0
    lines = [] if arguments.records is None else read_lines(arguments.records, device)
    left = [s for s in shapes if s not in {(line.d_model, line.batch_size) for line in lines}]
    # One shape at least: a slice that starts none would never end.
    while left and (
        longest_s == 0 or time.monotonic() - started + longest_s <= arguments.budget_s
    ):
        d_model, batch_size = left.pop(0)
        begun = time.monotonic()

        def on_choice(choice: str, d_model: int = d_model, batch_size: int = batch_size) -> None:
            if not arguments.quiet:
                print(f"d{d_model}/b{batch_size}: {choice}", file=sys.stderr, flush=True)

        found = run_shape(d_model, batch_size, device, on_choice)
        lines += found
        if arguments.records is not None:
            append_lines(arguments.records, found, device)
        longest_s = max(longest_s, time.monotonic() - begun)
    accuracies = {} if arguments.no_accuracy or left else digits_accuracies(device)
    sheet.show(*tables(lines, accuracies), keep=not left)
    if left:
        print(f"shapes left: {len(left)}; run the same command again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
