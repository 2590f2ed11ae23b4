"""Order a pool of measurements by coverage gained per second.

A measurement is informative about items near it. Its gain is the sum by which it reduces each
item's distance to the nearest measured one (facility location), whose greedy order is within
1 - 1/e of the best (Nemhauser et al. 1978). The gain is divided by the seconds of the measurement,
so that a kernel that compiles for a minute comes later.
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
    """Return the indices of all ``items``, in descending order of coverage gained per second.

    ``covered`` items are measured before them.
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
        # Items without any gain come last, in ascending order of seconds.
        best = int(np.lexsort((each_s, -gains, ~left))[0])
        order.append(best)
        left[best] = False
        nearest = np.minimum(nearest, distances[:, best])
    return order


def _features(items: Sequence[PlanItem]) -> _Floats:
    """Return features: log sizes scaled to [0, 1], shares of kernels, and one-hot workloads."""
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
