"""What a search is after: objectives beside quality and joules, and limits that none may break.

Parameters and peak memory are counted in closed form, so that what breaks their limits is never
proposed. Joules and latency are measured: a candidate is dropped where even the optimistic end of
its prediction breaks a limit, and a measured trial that breaks one is on no front.
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
_LOOKED_AT = 1000
# What no trial may exceed, and how a text that says how much is read.
LIMITS: dict[str, Callable[[Quantity, str], float]] = {
    "max_joules": parse_joules,
    "max_latency_s": parse_seconds,
    "max_params": parse_count,
    "max_memory_bytes": parse_bytes,
}
# Known before anything is trained.
_COUNTED: dict[Cost, Callable[[ArchitectureBatch, Workload, str], NDArray[np.float64]]] = {
    "params": lambda batch, workload, _: count_batch(batch, workload).total("params"),
    "memory": peak_memory_bytes,
}


@dataclass(frozen=True, slots=True)
class Goals:
    """Objectives after quality (the most) and joules (the fewest), and limits.

    ``costs`` are minimised as well. ``max_joules`` is per sample; ``max_latency_s`` is of one
    batch, as it is measured; ``max_memory_bytes`` is peak memory as ``search_spaces.cost.memory``
    counts it. ``reference`` is the corner that hypervolume is counted from, a value for each
    objective; ``None`` for the search's own (see ``nas.samplers.ehvi``). Memory is that of
    weights as they are stored on ``device``. Limits may be texts as tables print them, such as
    ``"100 uJ"``, ``"12.3 ms"``, ``"1.25 MB"`` or ``"18,202"``.

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
        """Every objective, in order."""
        return ("quality", "joules", *self.costs)

    @property
    def maximize(self) -> tuple[bool, ...]:
        """For each objective whether more is better."""
        return (True, *[False] * (1 + len(self.costs)))

    @property
    def limits_counts(self) -> bool:
        """Whether there is a limit on what is counted."""
        return self.max_params is not None or self.max_memory_bytes is not None

    @property
    def narrows(self) -> bool:
        """Whether some trial that is good in quality and joules may be of no use all the same."""
        return bool(self.costs) or self.limits_counts or self.max_latency_s is not None

    @property
    def needs_latency(self) -> bool:
        """Whether a candidate's latency matters."""
        return self.max_latency_s is not None or "latency" in self.costs

    def values(self, record: Trial) -> tuple[float, ...]:
        """The objectives of a complete trial.

        Raises:
            ValueError: the trial is not complete.
        """
        return (*record.objectives, *(_measured(record, cost) for cost in self.costs))

    def excess(self, record: Trial) -> dict[str, float]:
        """How far a complete trial is beyond each measured limit, as logarithms of ratios."""
        _, energy_j = record.objectives
        found = {}
        if self.max_joules is not None:
            found["max_joules"] = math.log(energy_j / self.max_joules)
        if self.max_latency_s is not None:
            found["max_latency_s"] = math.log(_measured(record, "latency") / self.max_latency_s)
        return found

    def keeps(self, record: Trial) -> bool:
        """Whether a complete trial breaks no limit."""
        limits = (("params", self.max_params), ("memory", self.max_memory_bytes))
        return max(self.excess(record).values(), default=0.0) <= 0 and all(
            limit is None or _measured(record, cost) <= limit  # type: ignore[arg-type]
            for cost, limit in limits
        )

    def front(self, records: Sequence[Trial]) -> list[Trial]:
        """Of all trials the complete ones that break no limit and that none such dominates.

        In a search by a supernet those of inherited weights only where no other is complete.
        """
        kept = [r for r in judged(records) if self.keeps(r)]
        mask = non_dominated_mask([self.values(r) for r in kept], self.maximize)
        return [r for r, on_front in zip(kept, mask, strict=True) if on_front]

    def counted(
        self, batch: ArchitectureBatch, workload: Workload
    ) -> dict[Cost, NDArray[np.float64]]:
        """Those of ``costs`` that are known beforehand, ``(N,)`` each."""
        return {c: _COUNTED[c](batch, workload, self.device) for c in self.costs if c in _COUNTED}

    def allows(self, batch: ArchitectureBatch, workload: Workload) -> NDArray[np.bool_]:
        """Which members of ``batch`` break no limit on what is counted, shape ``(N,)``."""
        found = np.ones(len(batch), dtype=bool)
        if self.max_params is not None:
            found &= _COUNTED["params"](batch, workload, self.device) <= self.max_params
        if self.max_memory_bytes is not None:
            memory = peak_memory_bytes(batch, workload, self.device)
            found &= memory <= self.max_memory_bytes
        return found

    def check_reachable(self, space: SearchSpace, workload: Workload, seed: int) -> None:
        """Raise ``ValueError`` naming the limit where no member of ``space`` was found to keep it.

        Looked at are the smallest member and a thousand others.
        """
        drawn = sample_positions(space, _LOOKED_AT, np.random.default_rng(seed))
        if self.allows(ArchitectureBatch.from_positions(drawn, space), workload).any():
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
    """Turn limits of a frozen record that are texts with units into numbers.

    Raises:
        ValueError: one is no number above zero in a unit that is known.
    """
    for name, parse in LIMITS.items():
        value = getattr(record, name)
        if isinstance(value, str):
            object.__setattr__(record, name, parse(value, name))


def _measured(record: Trial, cost: Cost) -> float:
    """A cost of a complete trial."""
    value: float | None
    if cost == "latency":
        value = None if record.reading is None else record.reading.latency_s
    else:
        value = record.params if cost == "params" else record.peak_memory_bytes
    if value is None:
        raise ValueError(f"trial {record.number} must have {cost}, and does not")
    return float(value)
