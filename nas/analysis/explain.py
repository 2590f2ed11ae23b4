"""Explain the place of a trial: its dominators, differing genes and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from nas.core.estimate import Estimate, Score
from nas.pareto.dominance import as_losses
from nas.pareto.queries import chances
from nas.records.front_member import figures_of
from nas.records.goals import Goals
from nas.records.trial import Trial, judged
from nas.store.run import Run
from search_spaces.architecture import Architecture
from search_spaces.architecture.simulated import describe_on
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import encode

# Where a trial stands relative to the front.
Why = Literal[
    "on the front",
    "dominated",
    "breaks a limit",
    "dropped by the gate",
    "stopped early",
    "failed",
    "still running",
    "judged by inherited weights",
]


@dataclass(frozen=True, slots=True)
class Knob:
    """One gene that differs between two architectures."""

    name: str
    this: Any
    other: Any


@dataclass(frozen=True, slots=True)
class Dominator:
    """A trial that is at least as good in every objective, and better in one.

    ``quality_gain`` is the difference in quality. ``joules_ratio`` is the explained trial's joules
    divided by its own, and ``cost_ratios`` the same of each further objective.
    """

    trial: int
    architecture_text: str
    quality_gain: float
    joules_ratio: float
    cost_ratios: dict[str, float]
    knobs: tuple[Knob, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A constraint that a trial violates: its value and the allowed one."""

    limit: str
    value: float
    allowed: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """The place of one trial, with its figures and dominators.

    ``reason`` is the recorded cause if the trial did not complete. ``prediction`` is the
    prediction interval of the joules before training, at ``confidence``; ``inside`` is true if it
    contains the measured joules. ``front_probability`` is P(Pareto) (``nas.pareto.uncertainty``).
    With its other figures unchanged, the trial would be on the front at a quality above
    ``needed_quality`` or at joules below ``needed_energy_j``; both are ``None`` for a trial on
    the front, or with further objectives. Energies are joules per ``unit``. ``flags`` name
    problems of the measurement, and ``limits`` are the power and clock limits of the board.
    ``dominators`` lists those on the front first, in ascending order of joules. In a search of
    several runtimes ``runtime`` is that of the joules, ``in_runtimes_j`` are those of all that
    measured it, and ``left_out_runtimes`` says why others did not.
    """

    trial: int
    state: str
    why: Why
    reason: str | None
    architecture_text: str
    quality: Score | None
    energy: Estimate | None
    joules: str
    is_estimate: bool
    unit: str
    prediction: Estimate | None
    confidence: float
    inside: bool | None
    audit: bool
    baseline: bool
    front_probability: float | None
    needed_quality: float | None
    needed_energy_j: float | None
    broken: tuple[Broken, ...]
    n_dominators: int
    dominators: tuple[Dominator, ...]
    flags: tuple[str, ...] = ()
    limits: str = ""
    runtime: str | None = None
    in_runtimes_j: Mapping[str, float] = field(default_factory=dict, hash=False)
    left_out_runtimes: Mapping[str, str] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def explain(run: Run, number: int, *, most: int = 3) -> Explanation:
    """Explain the place of trial ``number`` of ``run``, with at most ``most`` dominators.

    Raises:
        ValueError: there is no such trial.
    """
    records = run.trials()
    by_number = {record.number: record for record in records}
    if number not in by_number:
        allowed = f"0 to {max(by_number)}" if by_number else "none yet"
        raise ValueError(f"trial must be one of run {run.folder} ({allowed}), got {number}")
    record, goals = by_number[number], run.config.goals
    compared = {r.number: r for r in judged(records)}
    feasible = [r for r in compared.values() if goals.meets_limits(r)]
    is_judged = number in compared
    rivals = [r for r in feasible if is_judged and _dominates(goals, r, record)]
    on_front = {r.number for r in goals.front(records)}
    rivals.sort(key=lambda r: (r.number not in on_front, r.objectives[1], r.number))
    broken = _broken(goals, record) if is_judged else ()
    reading = record.reading
    probability = None
    if is_judged and not broken:
        members = [figures_of(r) for r in feasible]
        probabilities = chances(members, goals.costs)
        probability = float(probabilities[[m.trial for m in members].index(number)])
    needed = _needed(record, feasible) if rivals and not goals.costs else (None, None)
    return Explanation(
        trial=number,
        state=record.state,
        why=_why(record, is_judged, bool(broken), bool(rivals)),
        reason=record.reason,
        architecture_text=describe_on(record.architecture, run.config.measured_device),
        quality=None if record.outcome is None else record.outcome.quality,
        energy=record.energy,
        joules=record.joules if reading is None else "measured",
        is_estimate=reading is None or reading.is_estimate,
        unit=run.unit,
        prediction=record.prediction,
        confidence=run.config.gate.confidence,
        inside=_inside(record),
        audit=record.audit,
        baseline=record.baseline,
        front_probability=probability,
        needed_quality=needed[0],
        needed_energy_j=needed[1],
        broken=broken,
        n_dominators=len(rivals),
        dominators=tuple(_dominator(run, record, rival) for rival in rivals[:most]),
        flags=() if reading is None else reading.caveats,
        limits="" if reading is None else reading.limits_text,
        runtime=record.runtime,
        in_runtimes_j={name: each.energy_j for name, each in record.in_runtimes.items()},
        left_out_runtimes=record.left_out_runtimes,
    )


def differing_knobs(this: Architecture, other: Architecture, space: SearchSpace) -> list[Knob]:
    """Return the genes that differ between two members of ``space``, in their common layers."""
    mine, theirs = _genes(this, space), _genes(other, space)
    return [
        Knob(name, value, theirs[name])
        for name, value in mine.items()
        if name in theirs and value != theirs[name]
    ]


def _genes(architecture: Architecture, space: SearchSpace) -> Mapping[str, Any]:
    """Return the genes of layers within the depth; ``encode`` has values for all layers."""
    depths = [len(stack) for stack in architecture.stacks]
    absent = tuple(
        f"{stack.layer}{i}."
        for stack, depth in zip(space.stacks, depths, strict=True)
        for i in range(depth, space.deepest(stack))
    )
    genes = encode(architecture, space)
    return {name: value for name, value in genes.items() if not name.startswith(absent)}


def _why(record: Trial, is_judged: bool, is_broken: bool, is_dominated: bool) -> Why:
    if is_judged:
        if is_broken:
            return "breaks a limit"
        return "dominated" if is_dominated else "on the front"
    by_state: dict[str, Why] = {
        "dropped": "dropped by the gate",
        "stopped": "stopped early",
        "failed": "failed",
        "running": "still running",
    }
    return by_state.get(record.state, "judged by inherited weights")


def _dominates(goals: Goals, rival: Trial, record: Trial) -> bool:
    theirs, own = as_losses([goals.values(rival), goals.values(record)], goals.maximize)
    return bool(np.all(theirs <= own) and np.any(theirs < own))


def _broken(goals: Goals, record: Trial) -> tuple[Broken, ...]:
    reading = record.reading
    values = {
        "max_joules": record.energy_j,
        "max_latency_s": None if reading is None else reading.latency_s,
        "max_params": record.params,
        "max_memory_bytes": record.peak_memory_bytes,
    }
    limits: dict[str, float | None] = {name: getattr(goals, name) for name in values}
    return tuple(
        Broken(name, float(value), limit)
        for name, value in values.items()
        if (limit := limits[name]) is not None and value is not None and value > limit
    )


def _inside(record: Trial) -> bool | None:
    if record.reading is None or record.prediction is None:
        return None
    return record.reading.energy_j in record.prediction


def _needed(record: Trial, feasible: Sequence[Trial]) -> tuple[float | None, float | None]:
    """Return the quality to exceed at these joules, and the joules to undercut at this quality."""
    quality, energy_j = record.objectives
    rivals = [r.objectives for r in feasible if r.number != record.number]
    return (
        max((a for a, j in rivals if j <= energy_j), default=None),
        min((j for a, j in rivals if a >= quality), default=None),
    )


def _dominator(run: Run, record: Trial, rival: Trial) -> Dominator:
    goals = run.config.goals
    own, theirs = goals.values(record), goals.values(rival)
    return Dominator(
        trial=rival.number,
        architecture_text=describe_on(rival.architecture, run.config.measured_device),
        quality_gain=theirs[0] - own[0],
        joules_ratio=own[1] / theirs[1],
        cost_ratios={
            name: mine / other
            for name, mine, other in zip(goals.costs, own[2:], theirs[2:], strict=True)
        },
        knobs=tuple(differing_knobs(record.architecture, rival.architecture, run.config.space)),
    )
