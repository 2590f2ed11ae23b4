"""The order that covers a pool of measurements soonest, by the seconds that each takes.

A measurement tells something about those near it, so its worth is how much nearer it brings the
pool to what is measured: the gain of the facility-location function, whose greedy order is within
1 - 1/e of the best (Nemhauser et al. 1978). Dividing by its seconds puts a kernel that compiles
for a minute where it pays for that minute.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from predictors.campaign.plan import PlanItem
from search_spaces.architecture import PRECISIONS, SPARSITIES
from search_spaces.cost.counting import count

_Floats = NDArray[np.float64]


def order_by_coverage(
    items: Sequence[PlanItem], seconds: Sequence[float], covered: Sequence[PlanItem] = ()
) -> list[int]:
    """Indices of all ``items``, what gains the most coverage a second first.

    ``covered`` is measured before them.
    """
    if not items:
        return []
    points = _features([*items, *covered])
    pool, before = points[: len(items)], points[len(items) :]
    distances = np.linalg.norm(pool[:, None] - pool[None], axis=2)
    nearest = np.full(len(items), distances.max() + 1.0)
    if len(before):
        nearest = np.linalg.norm(pool[:, None] - before[None], axis=2).min(axis=1)
    each_s = np.asarray(seconds, dtype=float)
    left = np.ones(len(items), dtype=bool)
    order = []
    for _ in items:
        gains = np.maximum(nearest[:, None] - distances, 0.0).sum(axis=0) / each_s
        # What covers nothing more comes last, the cheapest first.
        best = int(np.lexsort((each_s, -gains, ~left))[0])
        order.append(best)
        left[best] = False
        nearest = np.minimum(nearest, distances[:, best])
    return order


def _features(items: Sequence[PlanItem]) -> _Floats:
    """What joules depend on: sizes on a log scale in [0, 1], and which kernels run what share."""
    sizes, shares = [], []
    workloads = sorted({item.workload.key for item in items})
    for item in items:
        counts, architecture = count(item.architecture, item.workload), item.architecture
        sizes.append(
            (
                counts.macs,
                counts.weight_bytes,
                counts.activation_bytes,
                architecture.d_model,
                architecture.depth,
            )
        )
        chosen = [block.compression for block in architecture.blocks]
        kernels = [sum(c.precision == name for c in chosen) for name in PRECISIONS]
        kernels += [sum(c.sparsity == name for c in chosen) for name in SPARSITIES]
        is_of = [float(item.workload.key == key) for key in workloads]
        shares.append([*(n / len(chosen) for n in kernels), *is_of])
    logs = np.log(np.asarray(sizes, dtype=float))
    span = np.ptp(logs, axis=0)
    scaled = (logs - logs.min(axis=0)) / np.where(span > 0, span, 1.0)
    return np.hstack([scaled, np.asarray(shares, dtype=float)])
