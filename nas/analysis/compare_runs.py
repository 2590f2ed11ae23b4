"""Compare two runs of one task, or one run on two devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nas.analysis.front_table import described_member
from nas.pareto.comparison import compare_fronts
from nas.pareto.hypervolume import volume_losses, volume_values
from nas.pareto.queries import Front, FrontMember
from nas.store.run import Run


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the two compared fronts. ``label`` is A or B.

    ``hypervolume`` is quality times decades of joules (and of each further objective) from the
    common reference. ``covers`` is the share of the other front's members that this front equals
    or dominates. ``dominated`` maps each dominated member's trial number to the
    trials of the other front that dominate it. ``measured_on`` is the device's name in the search.
    """

    label: str
    run: str
    device: str
    meter: str
    is_estimate: bool
    workload: str
    members: tuple[FrontMember, ...]
    hypervolume: float
    covers: float
    dominated: dict[int, tuple[int, ...]]
    measured_on: str | None = None


@dataclass(frozen=True, slots=True)
class RunsCompared:
    """Two fronts side by side, with notes on figures that are not comparable.

    ``reference`` has a value for each of ``objectives`` in their own units. If the searches set
    different ones or none, it is a tenth of the joint extent beyond the worst of both fronts.
    """

    objectives: tuple[str, ...]
    reference: tuple[float, ...]
    reference_is_set: bool
    runs: tuple[ComparedRun, ComparedRun]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        data = asdict(self)
        for side in data["runs"]:
            side["dominated"] = [
                {"trial": trial, "by": list(by)} for trial, by in side["dominated"].items()
            ]
        return data


def compare_runs(a: Run, b: Run) -> RunsCompared:
    """Compare the current fronts of two runs.

    Raises:
        ValueError: the runs are of different tasks, or one has no front yet.
    """
    if a.task != b.task:
        raise ValueError(
            f"runs must be of one task, whose qualities compare, got {a.task!r} and {b.task!r}"
        )
    costs = a.config.goals.costs
    same_costs = costs == b.config.goals.costs
    # A member on a front of more objectives may be dominated in quality and joules alone.
    fronts = [run.front() if same_costs else Front.of(run.front().members) for run in (a, b)]
    for run, front in zip((a, b), fronts, strict=True):
        if not len(front):
            raise ValueError(f"run {run.folder} must have a front to compare, and has none yet")
    is_set = same_costs and a.config.reference == b.config.reference
    reference = a.config.reference if is_set else None
    compared = compare_fronts(
        fronts[0].losses(),
        fronts[1].losses(),
        None if reference is None else volume_losses([reference])[0].tolist(),
    )
    volumes, coverage = compared.volumes, compared.coverage
    runs = (
        _side("A", a, fronts, volumes[0], coverage[0], compared.dominated_a),
        _side("B", b, fronts[::-1], volumes[1], coverage[1], compared.dominated_b),
    )
    return RunsCompared(
        objectives=("quality", "joules", *(costs if same_costs else ())),
        reference=reference or volume_values(compared.reference),
        reference_is_set=reference is not None,
        runs=runs,
        notes=tuple(_notes(a, b, runs, same_costs)),
    )


def _side(
    label: str,
    run: Run,
    fronts: Sequence[Front],
    volume: float,
    covers: float,
    dominators: Sequence[Sequence[int]],
) -> ComparedRun:
    """Return the side of the first of two fronts; ``dominators`` are positions in the second."""
    front, other = fronts
    first = described_member(front)
    return ComparedRun(
        label=label,
        run=str(run.folder),
        device=first.device,
        measured_on=first.measured_on,
        meter=first.meter,
        is_estimate=any(m.is_estimate for m in front),
        workload=first.workload,
        members=front.members,
        hypervolume=volume,
        covers=covers,
        dominated={
            member.trial: tuple(other.members[i].trial for i in by)
            for member, by in zip(front.members, dominators, strict=True)
            if by
        },
    )


def _notes(a: Run, b: Run, runs: Sequence[ComparedRun], same_costs: bool) -> list[str]:
    """Return notes on figures of the two fronts that are not comparable."""
    notes = []
    one, two = runs
    if not same_costs:
        notes.append(
            "the runs have different objectives: they are compared in quality and joules alone"
        )
    for name, word in (
        ("device", "devices"),
        ("meter", "meters"),
        ("workload", "workloads"),
    ):
        left, right = getattr(one, name), getattr(two, name)
        if left != right:
            notes.append(f"joules are of different {word}: {left} and {right}")
    if a.config.protocol != b.config.protocol:
        notes.append(
            f"joules were measured by different protocols: {a.config.protocol} and "
            f"{b.config.protocol}"
        )
    if one.is_estimate or two.is_estimate:
        notes.append("some joules are estimates: compare ratios, not absolute values")
    return notes
