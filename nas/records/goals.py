"""Objectives of a search in addition to quality and joules, and its constraints (limits).

Parameters and peak memory have closed forms, so that candidates beyond their limits are never
proposed. Joules and latency are measured: a candidate is dropped if even the optimistic end of
its prediction interval exceeds a limit. A measured trial that exceeds one is infeasible and on no
front.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nas.core.nearest import did_you_mean
from nas.core.units import Quantity, parse_bytes, parse_count, parse_joules, parse_seconds
from nas.pareto.dominance import non_dominated_mask
from nas.records.trial import Trial, judged
from search_spaces.cost.counting import count_batch
from search_spaces.cost.memory import peak_memory_bytes
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.sampling import sample_positions, smallest
from search_spaces.workload import Workload

Cost = Literal["latency", "params", "memory"]
COSTS: tuple[Cost, ...] = get_args(Cost)
_N_SAMPLED = 1000
# Limits and the parsers of their texts.
LIMITS: dict[str, Callable[[Quantity, str], float]] = {
    "max_joules": parse_joules,
    "max_latency_s": parse_seconds,
    "max_params": parse_count,
    "max_memory_bytes": parse_bytes,
}
# Costs in closed form, known before training.
_COUNTED: dict[Cost, Callable[[ArchitectureBatch, Workload, str], NDArray[np.float64]]] = {
    "params": lambda batch, workload, _: count_batch(batch, workload).total("params"),
    "memory": peak_memory_bytes,
}


@dataclass(frozen=True, slots=True)
class Goals:
    """Objectives and limits of a search.

    Quality is maximised, joules and ``costs`` are minimised. ``max_joules`` is per sample,
    ``max_latency_s`` per batch, ``max_memory_bytes`` is peak memory with weights in the format of
    ``device`` (see ``search_spaces.cost.memory``). ``reference`` is the reference point of the
    hypervolume, a value for each objective; ``None`` for the sampler's default (see
    ``nas.samplers.ehvi``). Limits may be texts as tables print them, such as ``"100 uJ"``,
    ``"12.3 ms"``, ``"1.25 MB"`` or ``"18,202"``.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    costs: tuple[Cost, ...] = ()
    max_joules: float | None = None
    max_latency_s: float | None = None
    max_params: float | None = None
    max_memory_bytes: float | None = None
    reference: tuple[float, ...] | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for cost in self.costs:
            if cost not in COSTS:
                raise ValueError(
                    f"objective must be one of {', '.join(COSTS)}, got {cost!r}"
                    f"{did_you_mean(cost, COSTS)}"
                )
        if len(set(self.costs)) < len(self.costs):
            raise ValueError(f"objectives must be named once each, got {', '.join(self.costs)}")
        read_limits(self)
        for name in LIMITS:
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 < value < math.inf):
                raise ValueError(f"{name} must be finite and > 0, got {value!r}")
        if self.reference is None:
            return
        if len(self.reference) != 2 + len(self.costs):
            raise ValueError(
                f"reference must have {2 + len(self.costs)} values, for "
                f"{', '.join(self.names)}, got {self.reference!r}"
            )
        if not all(math.isfinite(value) for value in self.reference):
            raise ValueError(f"reference must be finite, got {self.reference!r}")
        if not 0 <= self.reference[0] < 1:
            raise ValueError(f"reference quality must be in [0, 1), got {self.reference[0]!r}")
        if min(self.reference[1:]) <= 0:
            raise ValueError(f"reference costs must be > 0, got {self.reference!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all objectives, in order."""
        return ("quality", "joules", *self.costs)

    @property
    def maximize(self) -> tuple[bool, ...]:
        """Whether each objective is maximised."""
        return (True, *[False] * (1 + len(self.costs)))

    @property
    def limits_counts(self) -> bool:
        """Whether a cost in closed form has a limit."""
        return self.max_params is not None or self.max_memory_bytes is not None

    @property
    def narrows(self) -> bool:
        """Whether there are objectives or limits other than quality and joules."""
        return bool(self.costs) or self.limits_counts or self.max_latency_s is not None

    @property
    def needs_latency(self) -> bool:
        """Whether a candidate's latency matters."""
        return self.max_latency_s is not None or "latency" in self.costs

    def values(self, record: Trial) -> tuple[float, ...]:
        """Return the objective values of a complete trial.

        Raises:
            ValueError: the trial is not complete.
        """
        return (*record.objectives, *(_measured(record, cost) for cost in self.costs))

    def excess(self, record: Trial) -> dict[str, float]:
        """Return the log ratio of a complete trial's value to each measured limit."""
        _, energy_j = record.objectives
        excess = {}
        if self.max_joules is not None:
            excess["max_joules"] = math.log(energy_j / self.max_joules)
        if self.max_latency_s is not None:
            excess["max_latency_s"] = math.log(_measured(record, "latency") / self.max_latency_s)
        return excess

    def meets_limits(self, record: Trial) -> bool:
        """Return whether a complete trial is within all limits."""
        limits = (("params", self.max_params), ("memory", self.max_memory_bytes))
        return max(self.excess(record).values(), default=0.0) <= 0 and all(
            limit is None or _measured(record, cost) <= limit  # type: ignore[arg-type]
            for cost, limit in limits
        )

    def feasible(self, records: Sequence[Trial]) -> list[Trial]:
        """Return the complete trials within all limits.

        Trials with inherited weights are included only if no other trial is complete.
        """
        return [r for r in judged(records) if self.meets_limits(r)]

    def front(self, records: Sequence[Trial]) -> list[Trial]:
        """Return the non-dominated of the ``feasible`` trials."""
        feasible = self.feasible(records)
        mask = non_dominated_mask([self.values(r) for r in feasible], self.maximize)
        return [r for r, on_front in zip(feasible, mask, strict=True) if on_front]

    def counted(
        self, batch: ArchitectureBatch, workload: Workload
    ) -> dict[Cost, NDArray[np.float64]]:
        """Return those of ``costs`` that have a closed form, ``(N,)`` each."""
        return {c: _COUNTED[c](batch, workload, self.device) for c in self.costs if c in _COUNTED}

    def allows(self, batch: ArchitectureBatch, workload: Workload) -> NDArray[np.bool_]:
        """Return which members of ``batch`` are within the closed-form limits, ``(N,)``."""
        is_allowed = np.ones(len(batch), dtype=bool)
        if self.max_params is not None:
            is_allowed &= _COUNTED["params"](batch, workload, self.device) <= self.max_params
        if self.max_memory_bytes is not None:
            memory = peak_memory_bytes(batch, workload, self.device)
            is_allowed &= memory <= self.max_memory_bytes
        return is_allowed

    def check_reachable(self, space: SearchSpace, workload: Workload, seed: int) -> None:
        """Raise ``ValueError`` if a closed-form limit seems to exclude all members of ``space``.

        The check covers the smallest member and a thousand random ones.
        """
        positions = sample_positions(space, _N_SAMPLED, np.random.default_rng(seed))
        if self.allows(ArchitectureBatch.from_positions(positions, space), workload).any():
            return
        batch = ArchitectureBatch.of([smallest(space)])
        for cost, name in (("params", "max_params"), ("memory", "max_memory_bytes")):
            limit: float | None = getattr(self, name)
            if limit is None:
                continue
            value = float(_COUNTED[cost](batch, workload, self.device)[0])  # type: ignore[index]
            if value > limit:
                raise ValueError(
                    f"{name} must be at least {value:,.0f}, which the smallest member of space "
                    f"{space.name!r} has, got {limit:,.0f}"
                )


def read_limits(record: object) -> None:
    """Convert the limits of a frozen record from texts with units to numbers, in place.

    Raises:
        ValueError: a text is no number above zero, or its unit is unknown.
    """
    for name, parse in LIMITS.items():
        value = getattr(record, name)
        if isinstance(value, str):
            object.__setattr__(record, name, parse(value, name))


def _measured(record: Trial, cost: Cost) -> float:
    """Return a cost of a complete trial."""
    value: float | None
    if cost == "latency":
        value = None if record.reading is None else record.reading.latency_s
    else:
        value = record.params if cost == "params" else record.peak_memory_bytes
    if value is None:
        raise ValueError(f"trial {record.number} must have {cost}, and does not")
    return float(value)
