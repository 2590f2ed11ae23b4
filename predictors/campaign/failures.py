"""Failed measurements, in a file beside the records, and the kernels that they exclude.

A kernel that fails in one network fails in the next, after it was compiled again. A compression
choice is *set aside* once it failed and no record shows that it works on the device.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nas.core.names import TORCH
from predictors.campaign.plan import PlanItem
from predictors.measurement.process import MeasureError, MeasureInterrupted, MeasureTimeout
from predictors.measurement.records import append_line
from search_spaces.architecture import Architecture
from search_spaces.architecture.layer_kinds import PLAIN

# ``kernel``: a kernel of the network failed. ``timeout``: the network may only have been slow.
# ``other``: lost sensor, killed process or out of memory, which exclude no kernel.
Reason = Literal["kernel", "timeout", "other"]
_REASONS: dict[str, Reason] = {reason: reason for reason in get_args(Reason)}
_WEIGHT: dict[str, float] = {"kernel": 1.0, "timeout": 0.5}


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason why an item has no record; ``choices`` are its compression choices."""

    item: str
    cause: str
    reason: Reason = "other"
    choices: tuple[str, ...] = ()


def reason_of(error: MeasureError) -> Reason:
    """Return the kind of failure of ``error``."""
    if isinstance(error, MeasureTimeout):
        return "timeout"
    if isinstance(error, MeasureInterrupted) or "out of memory" in str(error).lower():
        return "other"
    return "kernel"


def compression_choices(architecture: Architecture) -> tuple[str, ...]:
    """Return the precisions and sparsities of ``architecture`` that have their own kernels."""
    precisions = {b.compression.precision for b in architecture.blocks} - set(PLAIN)
    sparse = {b.compression.sparsity for b in architecture.blocks} - {"dense"}
    return tuple(sorted(precisions | sparse))


def set_aside_choices(failures: Iterable[Failure], working: Collection[str]) -> frozenset[str]:
    """Return the choices not to retry: they failed and are not ``working``.

    A failure is split evenly among its unproven choices, and a timeout counts half. A choice is
    set aside by one failure, or two timeouts, of networks that have no other unproven choice.
    """
    blame: dict[str, float] = defaultdict(float)
    for failure in failures:
        suspects = [choice for choice in failure.choices if choice not in working]
        for choice in suspects:
            blame[choice] += _WEIGHT.get(failure.reason, 0.0) / len(suspects)
    return frozenset(choice for choice, share in blame.items() if share >= 1.0 - 1e-9)


def failures_path(path: Path) -> Path:
    """Return the path of the failures that belong to the records at ``path``."""
    return path.with_name(f"{path.stem}.failures.jsonl")


def read_failures(path: Path) -> dict[str, Failure]:
    """Return the last failure of each item by its key, for the records at ``path``."""
    failures = {}
    beside = failures_path(path)
    for line in beside.read_text(encoding="utf-8").splitlines() if beside.exists() else ():
        try:
            data = json.loads(line)
            failure = Failure(
                str(data["item"]),
                str(data["cause"]),
                _REASONS[data["reason"]],
                # Kernels of other runtimes say nothing about torch's.
                ()
                if "runtime" in data
                else compression_choices(Architecture.from_dict(data["architecture"])),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            # A kill cut this line off; its item is retried.
            continue
        failures[failure.item] = failure
    return failures


def append_failure(path: Path, item: PlanItem, failure: Failure) -> None:
    """Append a failure beside the records at ``path``; it is on disk when this returns."""
    line: Mapping[str, object] = {
        "item": failure.item,
        "architecture": item.architecture.to_dict(),
        "workload": item.workload.key,
        "reason": failure.reason,
        "cause": failure.cause,
        **({} if item.runtime == TORCH else {"runtime": item.runtime}),
    }
    beside = failures_path(path)
    beside.parent.mkdir(parents=True, exist_ok=True)
    append_line(beside, line)
