"""The planned measuring campaign: ``python -m experiments.campaign`` runs its next slice.

Each slice takes at most ``--slice-s`` seconds (8 minutes by default), best items first, and
appends to the records of its device; the same command goes on where the last one stopped. On an
NVIDIA GPU the plan covers encoders, vision and decoders in every precision and sparsity that a
probe finds real there; on a CPU, small vision models on the digits.

Decoders are measured on whole sequences (prefill); token by token needs a cache that the models do
not have yet.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from nas.cli.progress import MeasureProgress
from nas.searching.offered import cache_folder
from nas.searching.recipes import default_device
from nas.tasks.registry import get_task
from predictors.campaign.plan import Part, Plan, PlanItem, plan_campaign
from predictors.campaign.process import MeasureError
from predictors.campaign.protocol import Protocol, get_protocol
from predictors.campaign.records import EnergyRecord, read_records
from predictors.campaign.runner import measure_fresh
from predictors.campaign.slices import run_slice
from predictors.meters.base import MeterError
from predictors.meters.select import choose_meter, parse_device
from search_spaces.compression.probing import probe, shapes_for
from search_spaces.compression.realness import Shape, real_choices
from search_spaces.kernels import rows_read
from search_spaces.presets import get_space
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

MEASUREMENTS = Path(__file__).parent.parent / "predictors" / "measurements"
SEED = 0
# What takes longer than half a slice fails, so that it cannot hold up each slice anew.
ITEM_TIMEOUT_S = 240.0
# Architectures of each workload; with a tenth repeated in other processes.
N_GPU, N_CPU = 200, 60
CPU_SPACE, CPU_BATCH_SIZE = "digits-tiny", 128
GPU_WORKLOADS: dict[str, Workload] = {
    "encoder-base": Workload("encoder-128", "text_classification", (128,), 2, 32, 8192),
    "vision-base": Workload("vision-224", "image_classification", (3, 224, 224), 1000, 32),
    "decoder-base": Workload("decoder-256", "language_modelling", (256,), 8192, 8, 8192),
}


def make_plan(
    device: str, precisions: Sequence[str], sparsities: Sequence[str], n: int | None = None
) -> Plan:
    """The campaign of a device, limited to what is real on it."""

    def real(name: str) -> SearchSpace:
        return get_space(name).restrict(precisions=precisions, sparsities=sparsities)

    if device.startswith("cuda"):
        parts = [Part(real(name), work, n or N_GPU) for name, work in GPU_WORKLOADS.items()]
    else:
        workload = get_task("digits").workload(CPU_BATCH_SIZE)
        parts = [Part(real(CPU_SPACE), workload, n or N_CPU)]
    return plan_campaign(parts, protocol=protocol_of(device), device=device, seed=SEED)


def protocol_of(device: str) -> Protocol:
    """The protocol of a device's campaign."""
    return get_protocol("screening" if device.startswith("cuda") else "quick")


def planned_shapes(device: str) -> tuple[Shape, ...]:
    """The probed shapes that stand for the campaign's models."""
    parts = {CPU_SPACE: get_task("digits").workload(CPU_BATCH_SIZE)}
    if device.startswith("cuda"):
        parts = GPU_WORKLOADS
    found = {
        shape
        for space, workload in ((get_space(name), work) for name, work in parts.items())
        for shape in shapes_for(device, space.values("d_model"), [rows_read(space, workload)])
    }
    return tuple(sorted(found))


def records_path(device_name: str, protocol_name: str) -> Path:
    """Where records of a device are kept, such as ``nvidia-h200/screening.jsonl``."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")
    return MEASUREMENTS / slug / f"{protocol_name}.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the next slice."""
    parser = argparse.ArgumentParser(prog="python -m experiments.campaign", description=__doc__)
    parser.add_argument("--device", help="cpu or cuda:N (default: CUDA where there is one)")
    parser.add_argument("--slice-s", type=float, default=480.0, help="seconds (default: 480)")
    parser.add_argument("--n", type=int, help="architectures of each workload")
    parser.add_argument("--to", type=Path, help="records (default: the device's own)")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    arguments = parser.parse_args(argv)
    try:
        return _run_slice(arguments, time.monotonic())
    except KeyboardInterrupt:
        print("campaign: ended by Ctrl-C; the same command goes on", file=sys.stderr)
        return 130
    except (MeterError, ValueError, OSError) as error:
        print(f"campaign: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    except MeasureError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 1


def _run_slice(arguments: argparse.Namespace, started_s: float) -> int:
    if not (math.isfinite(arguments.slice_s) and arguments.slice_s > 0):
        raise ValueError(f"slice_s must be finite and > 0, got {arguments.slice_s!r}")
    if arguments.n is not None and arguments.n < 1:
        raise ValueError(f"n must be >= 1, got {arguments.n!r}")
    device = parse_device(arguments.device or default_device())
    meter = choose_meter(None, device)
    meter.close()
    path: Path = arguments.to or records_path(meter.device, protocol_of(device).name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"records must be a file in a writable folder, got {path}")
    if path.exists() and read_records(path).cut_off:
        print(f"{path}: a line that was cut off is left out", file=sys.stderr)
    report = probe(device, shapes=planned_shapes(device), cache_dir=cache_folder())
    plan = make_plan(device, *real_choices(report), arguments.n)
    lock_folder = Path(tempfile.gettempdir()) / f"joulenas-locks-{os.getuid()}"
    with MeasureProgress(quiet=arguments.quiet) as progress:

        def measure(item: PlanItem, timeout_s: float | None) -> EnergyRecord:
            return measure_fresh(
                item.architecture,
                item.workload,
                protocol=plan.protocol,
                device=device,
                meter=meter.name,
                lock_folder=lock_folder,
                on_window=progress.on_window,
                timeout_s=timeout_s,
                item_timeout_s=ITEM_TIMEOUT_S,
            )

        done = run_slice(
            plan,
            path,
            measure,
            # What probing took is part of the slice.
            budget_s=max(0.0, started_s + arguments.slice_s - time.monotonic()),
            ahead=1 if device.startswith("cuda") else 0,
            retry_failed=arguments.retry_failed,
            listener=progress,
            clock=time.monotonic,
        )
    print(f"{path}: {done.done} of {done.total} measured, {done.failed} failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
