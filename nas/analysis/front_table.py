"""Columns of the table of a front, for the terminal and the HTML page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nas.core.names import TORCH, device_of
from nas.core.units import (
    format_bytes,
    format_interval,
    format_joules,
    format_milliseconds,
    meter_label,
)
from nas.tasks.base.metric import get_metric
from predictors.meters.flags import describe_flag
from search_spaces.architecture import Architecture

if TYPE_CHECKING:
    from nas.pareto.queries import Front, FrontMember

# A head, a cell for each member, and whether cells are aligned right.
Column = tuple[str, list[str], bool]

PARETO_NOTE = (
    "P(Pareto): probability that no trial dominates this one, given the standard errors of both"
)
# The quality by which a finalist was chosen: with a supernet's weights, or after a short training.
BEFORE = "before"
BEFORE_NOTE = (
    f"{BEFORE}: quality when it was chosen as a finalist, by which the ranking was judged"
)
_COSTS: dict[str, tuple[str, Callable[[FrontMember], str]]] = {
    "latency": (
        "latency",
        lambda m: "" if m.latency_s is None else format_milliseconds(m.latency_s),
    ),
    "memory": (
        "memory (counted)",
        lambda m: "" if m.peak_memory_bytes is None else format_bytes(m.peak_memory_bytes),
    ),
}


def described_member(front: Front) -> FrontMember:
    """Return the member whose meter and device describe the table: a measured one, if any."""
    return next((m for m in front if m.joules == "measured"), front.members[0])


def device_text(hardware: str, name: str | None) -> str:
    """Return the hardware, preceded by the name that the search gave it, if any."""
    return hardware if name is None else f"{name} ({hardware})"


def place_text(front: Front) -> str:
    """Return the device of a front's joules, with the runtime that all its members share."""
    first = described_member(front)
    place = first.device
    if has_runtimes(front):
        place = device_of(place, first.runtime)
    return device_text(place, first.measured_on)


def has_runtimes(front: Front) -> bool:
    """Return whether the search of a front measured in several runtimes."""
    return len({m.runtime for m in front}) > 1 or any(m.other_runtimes_j for m in front)


def runtime_notes(front: Front) -> list[str]:
    """Return notes on the runtimes of a front's joules, and on the quality of int8 there."""
    lines = []
    if has_runtimes(front):
        lines.append(
            "runtime: the cheapest of those that a network was measured in, and then the others"
        )
    if any(not m.runtime.startswith(TORCH) and _is_quantised(m) for m in front):
        lines.append(
            "quality of int8 is that of torch's int8; nas export judges the runtime's own file"
        )
    return lines


def _is_quantised(member: FrontMember) -> bool:
    architecture = Architecture.from_dict(member.architecture)
    precisions = {p.spec.compression.precision for p in architecture.placed_blocks}
    return not precisions <= {"fp32", "bf16"}


def _runtime(member: FrontMember) -> str:
    others = sorted(member.other_runtimes_j.items(), key=lambda item: item[1])
    beside = "".join(f", {name} {format_joules(energy_j)}" for name, energy_j in others)
    return f"{member.runtime}{beside}"


def is_mixed(front: Front) -> bool:
    """Return whether stock classes of ``transformers`` support some members but not others."""
    return len({m.loadable for m in front}) > 1


def front_columns(front: Front) -> list[Column]:
    """Return the columns of a front with members; test quality is shown and never used."""
    first = described_member(front)
    metric = get_metric(first.metric)
    label = meter_label(first.meter, is_estimate=first.is_estimate)
    if first.measured_on is not None:
        label = f"{first.measured_on}, {label}"

    def share(value: float | None) -> str:
        return "" if value is None else metric.text(value)

    columns: list[Column] = [
        ("trial", [str(m.trial) for m in front], True),
        (metric.name, [_quality(m) for m in front], False),
        (f"energy per {first.unit} ({label})", [_energy(m) for m in front], False),
        *([("runtime", [_runtime(m) for m in front], False)] if has_runtimes(front) else []),
        ("params", [f"{m.params:,}" for m in front], True),
        (
            "architecture",
            [f"{m.architecture_text}{' (baseline)' if m.baseline else ''}" for m in front],
            False,
        ),
        # Parameters have a column in any case.
        *(
            (_COSTS[name][0], [_COSTS[name][1](m) for m in front], True)
            for name in front.costs
            if name in _COSTS
        ),
        (
            "P(Pareto)",
            ["" if (p := m.front_probability) is None else f"{p:.0%}" for m in front],
            True,
        ),
        (f"test {metric.name}*", [share(m.test_quality) for m in front], False),
    ]
    if any(m.inherited_quality is not None for m in front):
        columns.append((BEFORE, [share(m.inherited_quality) for m in front], False))
    if len({m.limits for m in front}) > 1:
        columns.append(("limits", [m.limits or "unknown" for m in front], False))
    if is_mixed(front):
        columns.append(("loadable", ["yes" if m.loadable else "no" for m in front], False))
    if any(m.flags for m in front):
        columns.append(("flags", [", ".join(m.flags) for m in front], False))
    return columns


def condition_notes(front: Front) -> list[str]:
    """Return notes on the power limits of the joules, and on the meaning of each flag."""
    limits = sorted({m.limits for m in front if m.joules == "measured"})
    lines = []
    if len(limits) > 1:
        names = " and under ".join(limit or "unknown ones" for limit in limits)
        lines.append(
            f"limits of the board changed: joules under {names} do not compare with each other"
        )
    elif limits and limits[0]:
        lines.append(f"limits of the board: {limits[0]}")
    flags = sorted({flag for m in front for flag in m.flags})
    return [*lines, *(f"{flag}: {describe_flag(flag)}" for flag in flags)]


def _quality(member: FrontMember) -> str:
    text = get_metric(member.metric).text(member.quality, member.quality_se)
    inherited = " (inherited)" if member.weights == "inherited" else ""
    mean = f" (mean of {member.n_evaluations})" if member.n_evaluations > 1 else ""
    return f"{text}{inherited}{mean}"


def _energy(member: FrontMember) -> str:
    text = format_interval(member.energy)
    return f"{text}{' (predicted)' if member.joules == 'predicted' else ''}"
