"""A plan in two stages: parts that need no compiler, then all others by coverage per second."""

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

# In the second stage every tenth item of the pool is measured again, 20 items later. The choice is
# independent of the order, which changes with the seconds of compiling.
_REPEAT_EACH, _REPEAT_AFTER = 10, 20
# The spread of references is the noise between processes; six are the fewest with a 95% interval.
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
    """Plan the parts ``first`` in turn, then all of ``later`` by coverage gained per second.

    ``item_s`` returns the seconds that an item takes. Later parts without a member that runs on
    ``device`` are omitted. The reference has the workload of the first part.

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
    """Return ``items``, where those in ``repeated`` occur again later, for another process."""
    ordered: list[PlanItem] = []
    due: dict[int, list[PlanItem]] = defaultdict(list)
    for index, item in enumerate(items):
        ordered += [item, *due.pop(index, ())]
        if item in repeated:
            due[index + _REPEAT_AFTER].append(replace(item, repeat=1))
    return ordered + [item for late in due.values() for item in late]
