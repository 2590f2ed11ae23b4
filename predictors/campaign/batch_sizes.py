"""Measure each item at the batch size above which joules per sample hardly fall."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from predictors.campaign.failures import read_failures
from predictors.campaign.plan import Plan, PlanItem
from predictors.measurement.batching import search_batch_size
from predictors.measurement.records import read_records


def measure_batch_sizes(
    plan: Plan,
    path: Path,
    measure: Callable[[Sequence[PlanItem], float | None], None],
    *,
    budget_s: float | None,
) -> list[PlanItem]:
    """Double batch sizes while joules fall; return the items at the last or the next size.

    ``measure`` measures items within a number of seconds and appends to ``path``.
    """
    started_s = time.monotonic()
    measured_before: list[PlanItem] = []
    while True:
        records = read_records(path).records if path.exists() else ()
        by_key: dict[str, float | None] = dict.fromkeys(read_failures(path))
        by_key |= {record.item: record.reading.energy_j for record in records}
        missing, items = [], []
        for item in plan.items:
            chosen, is_measured = _chosen_size(plan, item, by_key)
            items.append(chosen)
            missing += [] if is_measured else [chosen]
        left_s = None if budget_s is None else budget_s - (time.monotonic() - started_s)
        is_over = left_s is not None and left_s <= 0
        # The same items again: measuring them had no result.
        if not missing or missing == measured_before or is_over:
            return items
        measured_before = missing
        measure(missing, left_s)


def _chosen_size(
    plan: Plan, item: PlanItem, by_key: dict[str, float | None]
) -> tuple[PlanItem, bool]:
    """Return ``item`` at its final batch size and true, or at the next one to measure."""
    by_size: dict[int, float | None] = {}
    while (size := search_batch_size(by_size).following) is not None:
        sized = replace(item, workload=item.workload.with_batch_size(size))
        if plan.key(sized) not in by_key:
            return sized, False
        by_size[size] = by_key[plan.key(sized)]
    settled = search_batch_size(by_size).settled or 1
    return replace(item, workload=item.workload.with_batch_size(settled)), True
