"""A plan in two stages: what needs no compiler first, then what pays most for its seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from predictors.campaign.coverage import order_by_coverage
from predictors.campaign.plan import (
    Part,
    Plan,
    PlanItem,
    choose,
    plan_campaign,
    plan_items,
    reference_architecture,
)
from predictors.measurement.protocol import Protocol

# Of the second stage, each so many-th item of the pool is measured again, so many items later:
# which ones does not depend on the order, which changes with the seconds of compiling.
_REPEAT_EACH, _REPEAT_AFTER = 10, 20
# References whose spread is that between processes: six are the fewest with a 95% interval.
N_REFERENCES = 6


def plan_stages(
    first: Sequence[Part],
    later: Sequence[Part],
    *,
    protocol: Protocol,
    device: str,
    item_s: Callable[[PlanItem], float],
    seed: int = 0,
) -> Plan:
    """Parts ``first`` in turn, then all of ``later`` by the coverage that they gain a second.

    ``item_s`` returns the seconds that an item takes. Later parts of whose space nothing runs on
    ``device`` are left out. The reference is on the workload of the first part.

    Raises:
        ValueError: a first part has no member that runs on ``device``.
    """
    items = list(plan_campaign(first, protocol=protocol, device=device, seed=seed).items)
    pool: dict[PlanItem, None] = {}
    for index, part in enumerate(later):
        try:
            rng = np.random.default_rng([seed, len(first) + index])
            pool.update(dict.fromkeys(choose(part, device, rng)))
        except ValueError:
            continue
    rest = [item for item in pool if item not in items]
    order = order_by_coverage(rest, [item_s(item) for item in rest], items)
    items += _with_repeats([rest[index] for index in order], set(rest[::_REPEAT_EACH]))
    workload = first[0].workload
    reference = PlanItem(reference_architecture(workload, device), workload)
    plan = plan_items(items, protocol=protocol, device=device)
    return replace(plan, reference=reference, n_references=N_REFERENCES)


def _with_repeats(items: Sequence[PlanItem], repeated: set[PlanItem]) -> list[PlanItem]:
    """``items`` with those of ``repeated`` measured again later, in another process."""
    ordered: list[PlanItem] = []
    due: dict[int, list[PlanItem]] = defaultdict(list)
    for index, item in enumerate(items):
        ordered += [item, *due.pop(index, ())]
        if item in repeated:
            due[index + _REPEAT_AFTER].append(replace(item, repeat=1))
    return ordered + [item for late in due.values() for item in late]
