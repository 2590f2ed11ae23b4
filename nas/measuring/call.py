"""``nas.measure``: measure a checkpoint from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from nas.measuring.measure import (
    DEFAULT_ROUNDS,
    CheckpointEnergy,
    Forms,
    plan_measurement,
    run_plan,
)
from nas.measuring.subject import Sizes
from nas.searching.recipes import default_device
from nas.tasks.base import Task
from nas.tasks.registry import get_task
from predictors.campaign.active import Bench
from predictors.measurement.protocol import Protocol, Regime, get_protocol
from predictors.meters.select import choose_meter, limits_of, parse_device
from search_spaces.pretrained import Checkpoint, load_checkpoint

if TYPE_CHECKING:
    from predictors.campaign.rounds import RoundListener


class MeasureOptions(TypedDict, total=False):
    """Options of ``nas.measure``; each has the default of ``nas measure --from``.

    ``precisions`` are by default all that are real on the device, ``phases`` of a language model
    both. ``runtimes`` are names of runtimes (``nas measure --runtime``), by default torch.
    ``rounds`` is the number of rounds of fresh processes. A ``task`` is one of ours, its
    name, or the path of a task file. ``image_size`` is height and width in pixels. No round starts
    that would not end within ``budget_s``.
    """

    precisions: Sequence[str]
    runtimes: Sequence[str]
    phases: Sequence[str]
    batch_size: int
    sequence_length: int
    image_size: tuple[int, int]
    rounds: int
    task: Task | str
    device: str
    meter: str
    protocol: Protocol | str
    regime: Regime
    seed: int
    budget_s: float
    retry_failed: bool
    listener: RoundListener


def measure_checkpoint(
    checkpoint: Checkpoint | str | Path, path: Path, options: MeasureOptions
) -> CheckpointEnergy:
    """Measure what the records at ``path`` lack; see ``nas.measure``.

    Raises:
        ValueError: the checkpoint or an option is not valid.
    """
    unknown = sorted(options.keys() - MeasureOptions.__annotations__.keys())
    if unknown:
        allowed = ", ".join(MeasureOptions.__annotations__)
        raise ValueError(f"options must be of {allowed}, got {', '.join(unknown)}")
    size = options.get("batch_size")
    if size is not None and size < 1:
        raise ValueError(f"batch_size must be an integer >= 1, got {size}")
    task = options.get("task")
    plan = plan_measurement(
        checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint),
        _bench(options),
        path,
        sizes=Sizes(
            task=get_task(task) if isinstance(task, str) else task,
            batch_size=size,
            sequence_length=options.get("sequence_length"),
            image_size=options.get("image_size"),
            phases=tuple(options.get("phases", ())),
        ),
        forms=Forms(tuple(options.get("precisions", ())), tuple(options.get("runtimes", ()))),
        n_rounds=options.get("rounds", DEFAULT_ROUNDS),
    )
    return run_plan(
        plan,
        budget_s=options.get("budget_s"),
        retry_failed=options.get("retry_failed", False),
        listener=options.get("listener"),
    )


def _bench(options: MeasureOptions) -> Bench:
    """Return the device, meter and protocol of the options."""
    device = parse_device(options.get("device") or default_device())
    named = options.get("protocol", "quick" if device == "cpu" else "screening")
    protocol = get_protocol(named) if isinstance(named, str) else named
    if "regime" in options:
        protocol = replace(protocol, regime=options["regime"])
    meter = choose_meter(options.get("meter"), device)
    try:
        limits = limits_of(meter)
    finally:
        meter.close()
    seed = options.get("seed", 0)
    return Bench(device, meter.name, meter.source, meter.device, protocol, seed, limits)
