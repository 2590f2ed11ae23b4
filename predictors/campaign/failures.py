"""Measurements that failed, kept beside the records, and the kernels that they rule out.

A kernel that fails in one network fails in the next, at the cost of compiling it again. A choice
of compression is *set aside* once it failed and no record shows that it works on the device.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from predictors.campaign.plan import PlanItem
from predictors.measurement.process import MeasureError, MeasureInterrupted, MeasureTimeout
from predictors.measurement.records import append_line
from search_spaces.architecture import Architecture
from search_spaces.architecture.layer_kinds import PLAIN

# ``kernel``: what the network runs is at fault. ``timeout``: it may have been slow only.
# ``other``: a sensor was lost, a process was killed, or memory ended, which rule out no kernel.
Reason = Literal["kernel", "timeout", "other"]
_REASONS: dict[str, Reason] = {reason: reason for reason in get_args(Reason)}
_WEIGHT: dict[str, float] = {"kernel": 1.0, "timeout": 0.5}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no record; ``choices`` are the compression choices that may be at fault."""

    item: str
    cause: str
    reason: Reason = "other"
    choices: tuple[str, ...] = ()


def reason_of(error: MeasureError) -> Reason:
    """What kind of failure ``error`` is."""
    if isinstance(error, MeasureTimeout):
        return "timeout"
    if isinstance(error, MeasureInterrupted) or "out of memory" in str(error).lower():
        return "other"
    return "kernel"


def compression_choices(architecture: Architecture) -> tuple[str, ...]:
    """The precisions and sparsities of ``architecture`` that run kernels of their own."""
    found = {b.compression.precision for b in architecture.blocks} - set(PLAIN)
    sparse = {b.compression.sparsity for b in architecture.blocks} - {"dense"}
    return tuple(sorted(found | sparse))


def set_aside_choices(failures: Iterable[Failure], working: Collection[str]) -> frozenset[str]:
    """Choices that are not tried again: they failed and are not ``working``.

    A failure counts against all its unproven choices evenly, a time-out by half: one failure of a
    network with one such choice sets it aside, two time-outs do.
    """
    blame: dict[str, float] = defaultdict(float)
    for failure in failures:
        suspects = [choice for choice in failure.choices if choice not in working]
        for choice in suspects:
            blame[choice] += _WEIGHT.get(failure.reason, 0.0) / len(suspects)
    return frozenset(choice for choice, share in blame.items() if share >= 1.0 - 1e-9)


def failures_path(path: Path) -> Path:
    """Where failures of the records at ``path`` are kept."""
    return path.with_name(f"{path.stem}.failures.jsonl")


def read_failures(path: Path) -> dict[str, Failure]:
    """The last failure of each item, by its key, of the records at ``path``."""
    failures = {}
    beside = failures_path(path)
    for line in beside.read_text(encoding="utf-8").splitlines() if beside.exists() else ():
        try:
            data = json.loads(line)
            failure = Failure(
                str(data["item"]),
                str(data["cause"]),
                _REASONS[data["reason"]],
                compression_choices(Architecture.from_dict(data["architecture"])),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            # A line cut off by a kill: its item is tried again.
            continue
        failures[failure.item] = failure
    return failures


def append_failure(path: Path, item: PlanItem, failure: Failure) -> None:
    """Append a failure of the records at ``path``, on disk whole when this returns."""
    line: Mapping[str, object] = {
        "item": failure.item,
        "architecture": item.architecture.to_dict(),
        "workload": item.workload.key,
        "reason": failure.reason,
        "cause": failure.cause,
    }
    beside = failures_path(path)
    beside.parent.mkdir(parents=True, exist_ok=True)
    append_line(beside, line)
